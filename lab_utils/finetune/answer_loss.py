"""The loss on the answers alone: logits where there is a label to predict, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import LabError
from ..models.registry import base_model
from .supervision import IGNORED

NOT_CAUSAL = ("bert-generation", "cpmant", "xlnet")  # of the models that transformers calls causal, unless is_decoder


def answer_logits(model, input_ids, attention_mask, labels):
    """The model's logits where there is a label to predict, and nowhere else.

    The head is a tenth of the embedded model's work, and most of a batch is prompt. So the model runs its own forward
    pass, and on the way into the head the hidden states are cut down to those that are needed. What the model does to
    its logits afterwards (scaling, soft capping) it does to these. A model that does not call its head as a module
    gives all logits, and they are cut down then.

    Parameters
    ----------
    model : causal language model of transformers, with or without adapters
    input_ids, attention_mask, labels : int64 Tensors (examples, length), as `collate` returns them

    Returns
    -------
    (logits, targets, owners) : Tensors (supervised tokens, vocabulary) in the model's dtype, and twice
        (supervised tokens,) int64: the token to predict, and the row of the batch it belongs to

    Raises
    ------
    LabError
        The model does not predict each next token from the tokens before it (T5, BERT), or its logits are not one row
        for each token.
    """
    import torch

    base = base_model(model)
    check_causal(base)
    keep = torch.zeros_like(labels, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != IGNORED
    with _into_the_head(base, keep) as was_cut:
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    if was_cut and logits.shape[:-1] == (1, int(keep.sum())):
        logits = logits[0]
    elif not was_cut and logits.shape[:-1] == keep.shape:
        logits = logits[keep.to(logits.device)]
    else:
        raise LabError(
            f"{type(base).__name__} gives logits of shape {tuple(logits.shape)} for {tuple(input_ids.shape)} tokens, "
            "and one row for each token is needed. Take another base model."
        )
    return logits, labels[:, 1:][keep[:, :-1]].to(logits.device), keep.nonzero()[:, 0].to(logits.device)


def check_causal(base) -> None:
    """Raise a LabError unless a transformers model predicts each token from the tokens before it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILLS_GAPS

    config = base.config
    if getattr(config, "is_encoder_decoder", False):
        why = "reads the prompt with an encoder and answers with a decoder"
    elif base.get_output_embeddings() is None:
        why = "has no head that predicts tokens"
    elif config.model_type in {*FILLS_GAPS, *NOT_CAUSAL} and not getattr(config, "is_decoder", False):
        why = "reads the tokens after a place too (its config does not say is_decoder=True)"
    else:
        return
    raise LabError(
        f"{type(base).__name__} {why}: it cannot be trained here to write an answer token by token. "
        "Take a causal language model, such as a Llama or a Qwen."
    )


@contextmanager
def _into_the_head(base, keep) -> Iterator[list]:
    """Inside, only the hidden states at `keep` (bool, examples × length) go into the head, as one row of a batch.

    Yields a list: empty as long as the head was not called with hidden states of that shape.
    """
    calls = []

    def cut(module, inputs):
        if inputs and inputs[0].dim() == 3 and inputs[0].shape[:2] == keep.shape:
            calls.append(module)
            return (inputs[0][keep.to(inputs[0].device)][None], *inputs[1:])
        return None

    handle = base.get_output_embeddings().register_forward_pre_hook(cut)
    try:
        yield calls
    finally:
        handle.remove()


def build_supervised(model):
    """Wrap a causal language model so that calling it gives the summed loss over the supervised tokens."""
    import torch

    class SupervisedLoss(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, labels):
            """int64 (examples, length) each -> float32 scalar, sum of cross entropy in nats."""
            logits, targets, _ = answer_logits(self.model, input_ids, attention_mask, labels)
            return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    return SupervisedLoss(model)
