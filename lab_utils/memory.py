"""How many bytes a training step needs, before it is taken: the guard against an out-of-memory kill."""


def training_step_bytes(
    *,
    tokens: int,
    longest: int,
    supervised_tokens: int,
    layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    vocabulary: int,
    trainable_parameters: int,
    dtype_bytes: int,
    checkpointing: bool,
    fused: bool = False,
) -> dict[str, int]:
    """Bytes that fine-tuning with LoRA takes on top of the loaded base model.

    Parameters
    ----------
    tokens : int, tokens in a batch, padding included
    longest : int, tokens of the longest example
    supervised_tokens : int, positions whose logits are computed
    layers, hidden, intermediate, heads, vocabulary : int, the model's shape
    trainable_parameters : int, of the adapters, held in float32
    dtype_bytes : int, of the compute dtype (2 or 4)
    checkpointing : bool, activations recomputed in the backward pass
    fused : bool, the adapters compute by `fourbit.FourBitLoRA`; else peft keeps a float32 copy of each layer's input

    Returns
    -------
    dict of int: bytes for "adapter", "gradients", "optimizer", "activations", "logits"

    A layer keeps, per token, six hidden-sized vectors in the compute dtype and two in float32 (the norms'), four
    intermediate-sized ones, and the attention weights, in float32 and in the compute dtype. Without `fused`, peft
    holds its layers' inputs in float32: hidden-sized three and eight, of the intermediate-sized one in float32. At
    the peak three float32 tensors of logit size stand side by side: log-probabilities, their gradient, the logits'
    gradient. With checkpointing one layer at a time is recomputed, after the logits are gone: the larger of the two
    counts. tests/test_memory.py holds the sum, within 25 %, against the bytes that a step really takes.
    """
    full = dtype_bytes == 4  # a cast to float32 costs nothing then
    hidden_bytes = 6 * dtype_bytes + 2 * 4 if fused or full else 3 * dtype_bytes + 8 * 4
    intermediate_bytes = 4 * dtype_bytes if fused or full else 3 * dtype_bytes + 4
    attention_bytes = 4 if full else 4 + dtype_bytes
    layer = tokens * (hidden_bytes * hidden + intermediate_bytes * intermediate + attention_bytes * longest * heads)
    logits = 12 * supervised_tokens * vocabulary
    activations = layers * layer
    if checkpointing:
        activations = layers * tokens * hidden * dtype_bytes + max(0, layer - logits)
    return {
        "adapter": 4 * trainable_parameters,
        "gradients": 4 * trainable_parameters,
        "optimizer": 8 * trainable_parameters,
        "activations": activations,
        "logits": logits,
    }
