"""Bytes that a fine-tuning step needs on top of the loaded model: checked before the step, so that it is not killed."""

from ..errors import flag, whole
from .activations import kept_bytes, logits_bytes


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
    """Bytes that fine-tuning with LoRA takes on top of the loaded base model: a guard for any model and batch.

    Parameters
    ----------
    tokens : int, tokens in a batch, padding included
    longest : int, tokens of the longest example
    supervised_tokens : int, positions whose logits are computed
    layers, hidden, intermediate, heads, vocabulary : int, the model's shape
    trainable_parameters : int, of the adapters, held in float32
    dtype_bytes : int, of the compute dtype (2 or 4)
    checkpointing : bool, activations recomputed in the backward pass
    fused : bool, the adapters compute with `fourbit.FourBitLoRA`; else peft keeps a float32 copy of each layer's input

    Returns
    -------
    dict of int: bytes for "adapter", "gradients", "optimizer", "activations", "logits"

    Raises
    ------
    LabError
        Names the value that is not a whole number of 1 or more (for `supervised_tokens` and `trainable_parameters`: 0
        or more), or neither True nor False.

    The layers are those of `memory.estimate` with adapters on every linear layer, without small parts: x Aᵀ, the
    last norm, one layer's work. tests/library/test_memory_guard.py compares the sum with the bytes that a step takes:
    within 25 %.
    """
    sizes = {
        "tokens": tokens, "longest": longest, "layers": layers, "hidden": hidden, "intermediate": intermediate,
        "heads": heads, "vocabulary": vocabulary, "dtype_bytes": dtype_bytes,
    }  # fmt: skip
    tokens, longest, layers, hidden, intermediate, heads, vocabulary, dtype_bytes = (
        whole(name, value) for name, value in sizes.items()
    )
    supervised_tokens = whole("supervised_tokens", supervised_tokens, 0)
    trainable_parameters = whole("trainable_parameters", trainable_parameters, 0)
    checkpointing, fused = flag("checkpointing", checkpointing), flag("fused", fused)
    copied = dtype_bytes < 4 and not fused
    inputs = 4 * (6 * hidden + intermediate) if copied else dtype_bytes * (3 * hidden + intermediate)
    layer = kept_bytes(tokens, longest, hidden, hidden, intermediate, heads, dtype_bytes, inputs)
    logits = logits_bytes(supervised_tokens, vocabulary)
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
