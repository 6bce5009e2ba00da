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

    Returns
    -------
    dict of int: bytes for "adapter", "gradients", "optimizer", "activations", "logits"

    A layer keeps, per token, about 20 hidden-sized and 4 intermediate-sized vectors (norms in float32 count twice),
    and three attention matrices; logits pass through float32 three times. tests/test_memory.py holds the sum against
    the bytes that autograd really keeps.
    """
    layer = tokens * dtype_bytes * (20 * hidden + 4 * intermediate) + 3 * tokens * longest * heads * dtype_bytes
    activations = layer + layers * tokens * hidden * dtype_bytes if checkpointing else layers * layer
    return {
        "adapter": 4 * trainable_parameters,
        "gradients": 4 * trainable_parameters,
        "optimizer": 8 * trainable_parameters,
        "activations": activations,
        "logits": supervised_tokens * vocabulary * (dtype_bytes + 12),
    }
