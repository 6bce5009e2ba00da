"""Number formats as grids: the levels that weights are rounded to, and what a rounding leaves of an update.

Every format here is a set of levels for each small block of weights. Weights that were rounded once lie on the levels
of that format; whether an update survives a second rounding depends on whether they lie on the levels of the new one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import LabError, choose
from ..nf4 import dequantize_4bit, quantize_4bit
from ..quantize import dequantize_absmax, quantize_absmax

BLOCKS = {"NF4": 64, "FP4": 64, "int8": 64, "Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "float16": 1, "float32": 1}
FORMATS = tuple(BLOCKS)  # the last one rounds nothing away


class Rounded(NamedTuple):
    """Weights in a number format."""

    codes: Tensor  # what is stored for each weight, in the weights' shape: a level's number, or the 16-bit pattern
    values: Tensor  # float32, what the codes mean


def round_to(weight: Tensor, into: str, double_quant: bool = False) -> Rounded:
    """Round weights to a number format.

    NF4 and FP4 are bitsandbytes' (absmax of 64), int8 is absmax rounding of 64 to -127 … 127, and Q4_0, Q4_1 and Q8_0
    are llama.cpp's blocks of 32 with float16 constants.

    Parameters
    ----------
    weight : float Tensor, of a multiple of 64 numbers; blocks are neighbours in reading order
    into : str, of `FORMATS`
    double_quant : bool, store the absmax values of NF4 and FP4 in 8 bits, as `load_base` does

    Returns
    -------
    Rounded, both parts in the weight's shape

    Raises
    ------
    LabError
        An unknown format, or a number of weights that is not a multiple of 64.

    Source: ggml-quants.c in llama.cpp, quantize_row_q4_0_ref, _q4_1_ref and _q8_0_ref, as the package gguf has them.
    """
    choose("number format", into, FORMATS)
    if not weight.numel() or weight.numel() % 64:
        raise LabError(f"A weight of shape {tuple(weight.shape)} cannot be rounded in blocks: 64 must divide its size.")
    weight = weight.float()
    if into in ("NF4", "FP4"):
        return _four_bit(weight, into, double_quant)
    if into == "int8":
        found = quantize_absmax(weight.reshape(-1, 64), 8, axis=0)
        return Rounded(found.indices.view(weight.shape), dequantize_absmax(found).view(weight.shape))
    if into in _GGUF:
        codes, values = _GGUF[into](weight.reshape(-1, 32))
        return Rounded(codes.view(weight.shape), values.view(weight.shape))
    rounded = weight.half() if into == "float16" else weight
    return Rounded(rounded.view(torch.int16) if into == "float16" else rounded, rounded.float())


class Left(NamedTuple):
    """What a rounding left of an update ΔW. `arrived` is the rounded weights minus the weights without update."""

    kept: float  # ⟨arrived, ΔW⟩ / ‖ΔW‖²: 1 means that all of ΔW arrives, 0 that none does
    noise: float  # ‖arrived − ΔW‖ / ‖W‖: what else the rounding does, as a share of the weights
    cosine: float  # between arrived and ΔW
    changed: float  # share of the codes that are other than without ΔW


def what_is_left(weight: Tensor, delta: Tensor, into: str, double_quant: bool = False) -> Left:
    """Round W + ΔW to a format, and measure what came of ΔW.

    Parameters
    ----------
    weight, delta : float Tensor of one shape; `weight` as it is, on a grid or not
    into, double_quant : see `round_to`

    Returns
    -------
    Left; its kept and cosine are 0 for an update that is zero
    """
    after, before = round_to(weight + delta, into, double_quant), round_to(weight, into, double_quant)
    return compare_rounded(weight, delta, after, before)


def compare_rounded(weight: Tensor, delta: Tensor, after: Rounded, before: Rounded) -> Left:
    """What is left of ΔW, of W + ΔW rounded (`after`) and W rounded (`before`): what `what_is_left` returns."""
    arrived, wanted = (after.values - weight).double(), delta.double()
    inner, sizes = float((arrived * wanted).sum()), (float(arrived.norm()), float(wanted.norm()))
    return Left(
        kept=inner / sizes[1] ** 2 if sizes[1] else 0.0,
        noise=float((arrived - wanted).norm() / weight.double().norm()),
        cosine=inner / (sizes[0] * sizes[1]) if all(sizes) else 0.0,
        changed=float((after.codes != before.codes).float().mean()),
    )


def _four_bit(weight: Tensor, into: str, double_quant: bool) -> Rounded:
    quantized = quantize_4bit(weight, 64, quant_type=into.lower(), double_quant=double_quant)
    packed = quantized.packed.view(-1)
    codes = torch.stack([packed >> 4, packed & 15], dim=1).view(weight.shape)
    return Rounded(codes, dequantize_4bit(quantized, torch.float32).view(weight.shape))


def _inverse(step: Tensor) -> Tensor:
    """1 / step, and 0 for 0."""
    return torch.where(step == 0, step, 1 / step)


def _q4_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Sixteen even levels, -8 to 7 steps; the weight of largest size lies on -8."""
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    step = largest / -8
    codes = (blocks * _inverse(step) + 8.5).trunc().clamp(0, 15)
    return codes.to(torch.uint8), step.half().float() * (codes - 8)


def _q4_1(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Sixteen even levels from the smallest weight to the largest."""
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    step = (high - low) / 15
    codes = ((blocks - low) * _inverse(step) + 0.5).trunc().clamp(0, 15)
    return codes.to(torch.uint8), step.half().float() * codes + low.half().float()


def _q8_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Even levels, -127 to 127 steps, halves rounded away from zero."""
    step = blocks.abs().amax(1, keepdim=True) / 127
    share = blocks * _inverse(step)
    codes = share.sign() * (share.abs().floor() + (2 * (share.abs() - share.abs().floor())).floor())
    return codes.to(torch.int8), step.half().float() * codes


_GGUF = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q8_0": _q8_0}
