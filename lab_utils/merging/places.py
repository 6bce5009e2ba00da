"""Turning a model with adapters into plain weights: three places to merge into. `checked.merge` tests the result.

A merge adds ΔW = scaling · B·A to W once and for all. On plain weights that costs one rounding. A 4-bit base leaves a
choice of W: the weights that the 4-bit codes mean (`into_dequantized`), the ones they were made from (`into_original`),
or the codes themselves (`into_four_bits`). Only the first answers as the adapter did in training. The last rounds back
onto the levels that the weights lie on already; what other formats keep of an update, `grids.what_is_left` measures.
No function here changes the model.
"""

import torch

from ..errors import LabError
from ..models.registry import base_model
from . import plain_copy as plain
from .finite_weights import refuse_nonfinite, refuse_overflow
from .plain_copy import is_four_bit


def dequantized_copy(model):
    """A plain copy of a 4-bit model, with its active LoRA adapter merged in: same answers, faster decoding on a CPU.

    The copy's weights are the dequantized ones, so it is as good or bad as the 4-bit model, not as the original.
    Merging into the dequantized weights and rounding to the compute dtype moves the logits less than bfloat16
    arithmetic does. The model itself is left as it is.

    Parameters
    ----------
    model : transformers model or peft model with bitsandbytes 4-bit layers on the CPU

    Returns
    -------
    transformers model in eval mode; embeddings, norms and head are shared with `model`, linear layers are new

    Raises
    ------
    LabError
        An adapter is merged already, or is of a kind that cannot be merged here; adapter or base hold NaN or infinity,
        or the result would: tensor and place are named.
    """
    return _finite_copy(model, base_model(model).dtype, share=True)


def _finite_copy(model, dtype: torch.dtype, **options):
    """`plain_copy.copy_of` with adapters merged, of finite weights and into finite ones."""
    refuse_nonfinite(model)
    copy = plain.copy_of(model, plain.merged_layer, dtype, **options)
    refuse_overflow(copy)
    return copy


def into_dequantized(model, dtype: torch.dtype | None = None):
    """Merge the active adapters into the weights that the model computes with, dequantized where they are in 4 bits.

    Parameters
    ----------
    model : peft model on a 4-bit or an unquantized base (a plain model is copied)
    dtype : torch.dtype, default the base's; sums are taken in float32 and rounded once

    Returns
    -------
    transformers model in eval mode that shares no tensor with `model`; its answers are not checked: `merge` does that

    Raises
    ------
    LabError
        As `dequantized_copy`.
    """
    return _finite_copy(model, dtype or base_model(model).dtype)


def into_original(model, original, dtype: torch.dtype | None = None):
    """Merge the active adapters into the unquantized weights that a 4-bit base was made from.

    An adapter that was trained on 4-bit weights gives other answers on these: perhaps as good ones, but not the same.

    Parameters
    ----------
    model : peft model
    original : transformers model, the same base loaded with quantization="none"; left as it is
    dtype : torch.dtype, default that of `original`

    Raises
    ------
    LabError
        `original` is quantized, has adapters, is another model or not finite; otherwise as `dequantized_copy`.
    """
    if plain.replaced_layers(original):
        raise LabError("`original` has 4-bit layers or adapters: give the base as load_base(name, 'none') returns it.")
    refuse_nonfinite(original, "`original`")
    return _finite_copy(model, dtype or original.dtype, original=original)


def into_four_bits(model):
    """What peft's `merge_and_unload` makes of a 4-bit model: W + ΔW, rounded to the levels that W lies on. A trap.

    Where ΔW is smaller than half a step between the levels, nearly all of it is rounded away: see `survival`. It is not
    the four bits that do it. Rounded to another 4-bit format, whose levels lie elsewhere, much of ΔW arrives: see
    `what_is_left`.

    Returns
    -------
    transformers model with 4-bit layers, in eval mode, that shares no tensor with `model`

    Raises
    ------
    LabError
        The base is not in 4 bits; otherwise as `dequantized_copy`.
    """
    import warnings

    check_adapter(model)
    if not any(is_four_bit(layer) for layer in base_model(model).modules()):
        raise LabError("The base has no 4-bit layers: merge with into='dequantized', that is into its own weights.")
    refuse_nonfinite(model)
    twin = plain.whole_copy(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rounding errors", category=UserWarning)
        merged = twin.merge_and_unload().eval()
    refuse_nonfinite(merged, "What came of the merge")
    return merged


def can_repack() -> bool:
    """Does bitsandbytes repack 4-bit weights on this machine: a CPU with AVX512-BF16, and a build that uses it?"""
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def repacked(model):
    """A copy of a 4-bit model as one forward without gradients leaves it where nothing guards it. The second trap.

    On CPUs with AVX512-BF16 bitsandbytes then turns the codes into a layout for inference, in place. The model answers
    as before, but what is read from its weights is no longer W. `load_base` forbids it; the copy allows it again.

    Raises
    ------
    LabError
        This machine does not repack (`can_repack` tells), or the model has no 4-bit layers.
    """
    layers = [layer for layer in base_model(model).modules() if is_four_bit(layer)]
    if not layers or not can_repack():
        reason = "the model has no 4-bit layers" if not layers else "this processor has no AVX512-BF16"
        raise LabError(f"Nothing to repack: {reason}. A merge then reads the right weights.")
    twin = plain.whole_copy(model).eval()
    for layer in twin.modules():
        if is_four_bit(layer):
            layer.support_avx512bf16_for_cpu = True
    with torch.no_grad():
        twin(input_ids=torch.zeros(1, 1, dtype=torch.int64))
    return twin


def is_repacked(model) -> bool:
    """Are any of the model's 4-bit weights in bitsandbytes' inference layout?"""
    states = (layer.weight.quant_state for layer in base_model(model).modules() if is_four_bit(layer))
    return any(getattr(state, "packing_format_for_cpu", False) for state in states)


def check_adapter(model) -> None:
    """Raise a LabError unless the model has an adapter that is in use and can be merged."""
    layers = plain.replaced_layers(base_model(model)).values()
    active = [layer for layer in layers if hasattr(layer, "lora_A") and not layer.disable_adapters]
    if not any(name in layer.lora_A for layer in active for name in layer.active_adapters):
        raise LabError("There is no active adapter to merge. Load one with PeftModel.from_pretrained(base, folder).")
