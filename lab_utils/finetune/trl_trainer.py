"""What TRL's trainer needs to train this lab's models on every card: two corrections, each one line of a page."""


def one_card(arguments):
    """Let a trainer in one process use one GPU, where the machine has several (Kaggle's two T4s, for instance).

    transformers would wrap the model in `nn.DataParallel`, which TRL refuses and a 4-bit model does not survive.

    Parameters
    ----------
    arguments : transformers.TrainingArguments, such as trl.SFTConfig; changed in place

    Returns
    -------
    `arguments`
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # what transformers itself sets for a model that it has split across GPUs
    return arguments


def float32_adapters(trainer):
    """Hold what a trainer trains in float32 again. Call it between construction and `train()`.

    TRL casts the adapters of a quantized model to bfloat16. A GPU without bfloat16 computes in float16 with loss
    scaling, and `GradScaler` has no kernel for bfloat16 gradients there; and in bfloat16 small steps are rounded away.

    Parameters
    ----------
    trainer : trl.SFTTrainer, or another transformers.Trainer; its model is changed in place

    Returns
    -------
    `trainer`
    """
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer
