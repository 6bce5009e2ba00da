"""Whole-number quantization written to be read: absmax and zero-point, by tensor, channel or block, and its errors.

    absmax       index = round(127 · w / absmax)      w ≈ index / 127 · absmax           127 at 8 bits, 7 at 4
    zero-point   index = round(w / scale) + zero      w ≈ (index − zero) · scale         0 … 255 at 8 bits

Everything is computed in float32, whatever the dtype of the weights; a half is rounded to the even neighbour, as
`torch.round` does. One index takes a whole byte here: packing several into a byte is shown in `nf4`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import LabError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALLEST_STEP = torch.finfo(torch.float32).tiny  # 2**-126: below it float32 loses digits
LARGEST_WEIGHT = 1e38  # the range from lowest to highest, and the level below it, must stay finite


@dataclass(frozen=True, eq=False)
class QuantizedAbsmax:
    """What `quantize_absmax` returns: all that `dequantize_absmax` needs.

    indices : int8 Tensor, the weight's shape, values from -(2**(bits-1) - 1) to 2**(bits-1) - 1
    absmax : float32 Tensor, the largest |weight| of each tensor, channel or block
        Shape (1, 1) by tensor, (rows, 1) or (1, columns) by channel, (rows, blocks in a row) by block.
    bits : int, 2 to 8
    blocksize : int or None
    """

    indices: Tensor
    absmax: Tensor
    bits: int
    blocksize: int | None = None

    @property
    def bits_per_parameter(self) -> float:
        """Bits of one index, plus its share of the float32 absmax values."""
        return self.bits + 32 * self.absmax.numel() / self.indices.numel()


@dataclass(frozen=True, eq=False)
class QuantizedZeroPoint:
    """What `quantize_zeropoint` returns: all that `dequantize_zeropoint` needs.

    indices : uint8 Tensor, the weight's shape, values from 0 to 2**bits - 1
    scale : float32 Tensor, the width of one step, in the weight's unit; shapes as of QuantizedAbsmax.absmax
    zero : uint8 Tensor of the same shape, the index that stands for exactly 0
    bits : int, 2 to 8
    blocksize : int or None
    """

    indices: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    blocksize: int | None = None

    @property
    def bits_per_parameter(self) -> float:
        """Bits of one index, plus its share of the float32 scales and 8-bit zeros."""
        return self.bits + (32 + 8) * self.scale.numel() / self.indices.numel()


def quantize_absmax(
    weight: Tensor, bits: int = 8, *, axis: int | None = None, blocksize: int | None = None
) -> QuantizedAbsmax:
    """Round weights to whole multiples of absmax / (2**(bits-1) - 1): levels that are symmetric around zero.

    Parameters
    ----------
    weight : float32, bfloat16 or float16 Tensor of any shape but (), finite, not empty
    bits : int, 2 to 8
    axis : int or None
        One absmax for each index of this axis. Of a weight (out, in), axis 0 means one for each row, which is an
        output channel, and axis 1 one for each column. None: one for the whole tensor.
    blocksize : int >= 1 or None
        One absmax for each run of so many weights along the last axis; the last run of a row may be shorter.
        Choose `axis` or `blocksize`, not both.

    Returns
    -------
    QuantizedAbsmax
        Each weight is at most half a step from its level. Zero stays exactly zero; all zeros have absmax 0. Of the
        2**bits patterns one is not used, so that −w always gets minus the index of w.

    Raises
    ------
    LabError
        `bits`, `axis` or `blocksize` is out of range, both of the latter are given, or the weight is not allowed.

    Two ways to store the scale mean the same: bitsandbytes keeps absmax and multiplies by absmax / 127; Keras keeps
    the factor 127 / absmax and divides by it. "Divide by the factor" is right for the second kind only, and for
    absmax 0 the factor would be infinite.

    Source: Dettmers et al. 2022 (LLM.int8), section 2.1. https://arxiv.org/abs/2208.07339
    """
    weight = _checked(weight, bits, axis, blocksize)
    absmax = _reduce(weight.abs(), torch.amax, axis, blocksize)
    divisor = torch.where(absmax == 0, 1.0, absmax)  # a block of zeros: 0 / 1 instead of 0 / 0
    top = 2 ** (bits - 1) - 1
    indices = (weight / _spread(divisor, weight, blocksize) * top).round()
    return QuantizedAbsmax(indices.to(torch.int8), absmax, bits, blocksize)


def dequantize_absmax(quantized: QuantizedAbsmax) -> Tensor:
    """Turn absmax-quantized indices back into weights: index / (2**(bits-1) - 1) · absmax.

    Parameters
    ----------
    quantized : QuantizedAbsmax

    Returns
    -------
    float32 Tensor, the weight's shape
    """
    indices = quantized.indices.float()
    return indices / (2 ** (quantized.bits - 1) - 1) * _spread(quantized.absmax, indices, quantized.blocksize)


def quantize_zeropoint(
    weight: Tensor, bits: int = 8, *, axis: int | None = None, blocksize: int | None = None
) -> QuantizedZeroPoint:
    """Spread all 2**bits levels evenly from the smallest weight to the largest, shifted so that 0 is a level.

    Parameters
    ----------
    weight, bits, axis, blocksize
        As of `quantize_absmax`; here no |weight| may be above 1e38.

    Returns
    -------
    QuantizedZeroPoint
        Each weight is at most half a step from its level. The range always reaches to 0, so that 0 stays exactly 0:
        weights that are all positive use the levels from 0 up. A step is never below 2**-126, the smallest float32
        with all its digits; weights that differ by less than that become one.

    Raises
    ------
    LabError
        As `quantize_absmax`, or a |weight| is above 1e38.

    Source: Jacob et al. 2018, section 2.1. https://arxiv.org/abs/1712.05877
    """
    weight = _checked(weight, bits, axis, blocksize)
    if weight.abs().max() > LARGEST_WEIGHT:
        raise LabError(f"weight reaches {float(weight.abs().max()):g}: zero-point needs |weight| up to 1e38.")
    low = _reduce(weight, torch.amin, axis, blocksize).clamp(max=0)
    high = _reduce(weight, torch.amax, axis, blocksize).clamp(min=0)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp(min=SMALLEST_STEP)
    zero = (-low / scale).round()
    indices = (weight / _spread(scale, weight, blocksize)).round() + _spread(zero, weight, blocksize)
    return QuantizedZeroPoint(indices.clamp(0, top).to(torch.uint8), scale, zero.to(torch.uint8), bits, blocksize)


def dequantize_zeropoint(quantized: QuantizedZeroPoint) -> Tensor:
    """Turn zero-point-quantized indices back into weights: (index − zero) · scale.

    Parameters
    ----------
    quantized : QuantizedZeroPoint

    Returns
    -------
    float32 Tensor, the weight's shape
    """
    indices, blocksize = quantized.indices.float(), quantized.blocksize
    zero, scale = (_spread(values, indices, blocksize) for values in (quantized.zero, quantized.scale))
    return (indices - zero) * scale


def mse(weight: Tensor, approximation: Tensor) -> float:
    """The mean squared error, in the weight's unit squared; both Tensors of one shape. Raises LabError otherwise."""
    weight, error = _pair(weight, approximation)
    return float(error.square().mean())


def sqnr_db(weight: Tensor, approximation: Tensor) -> float:
    """Signal-to-quantization-noise ratio: 10 · log10(Σ w² / Σ error²), in dB; one more bit brings about 6 dB.

    Parameters
    ----------
    weight, approximation : float Tensors of one shape, finite

    Returns
    -------
    float: infinite where there is no error, minus infinite where there is error but no signal

    Raises
    ------
    LabError
        The shapes differ, or a tensor is empty or not finite.
    """
    weight, error = _pair(weight, approximation)
    signal, noise = float(weight.square().sum()), float(error.square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def largest_error(weight: Tensor, approximation: Tensor) -> float:
    """The largest |error|, in the weight's unit; both Tensors of one shape. Raises LabError otherwise."""
    return float(_pair(weight, approximation)[1].abs().max())


def check_weight(weight: Tensor) -> None:
    """Raise a LabError unless it is a tensor of a dtype in DTYPES, with an axis and an entry; NaN is not looked for."""
    if not isinstance(weight, Tensor) or weight.dtype not in DTYPES:
        kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise LabError(f"weight is {kind}, not a float32, bfloat16 or float16 tensor: convert it with .float().")
    if not weight.dim() or not weight.numel():
        raise LabError(f"weight has shape {tuple(weight.shape)}: at least one axis and one entry are needed.")


def _checked(weight: Tensor, bits: int, axis: int | None, blocksize: int | None) -> Tensor:
    """`weight` in float32 without gradient, or a LabError that names what is not allowed."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise LabError(f"bits={bits!r} is out of range: a whole number from 2 to 8.")
    check_weight(weight)
    if not weight.isfinite().all():
        count = int((~weight.isfinite()).sum())
        raise LabError(f"weight holds {count} of {weight.numel()} entries that are NaN or infinite: mend them first.")
    if axis is not None and blocksize is not None:
        raise LabError(f"axis={axis!r} and blocksize={blocksize!r}: choose one of the two.")
    if axis is not None and (type(axis) is not int or not -weight.dim() <= axis < weight.dim()):
        raise LabError(f"axis={axis!r} is out of range: shape {tuple(weight.shape)} has {weight.dim()} axes, from 0.")
    if blocksize is not None and (isinstance(blocksize, bool) or not isinstance(blocksize, int) or blocksize < 1):
        raise LabError(f"blocksize={blocksize!r} is out of range: a whole number from 1, such as 64.")
    return weight.detach().float()


def _reduce(weight: Tensor, function, axis: int | None, blocksize: int | None) -> Tensor:
    """`function`, amin or amax, of the tensor, of each channel or of each block; blocks are filled up with zeros."""
    if blocksize is not None:
        blocks = F.pad(weight, (0, -weight.shape[-1] % blocksize)).unflatten(-1, (-1, blocksize))
        return function(blocks, dim=-1)  # (..., blocks in a row)
    others = [i for i in range(weight.dim()) if axis is None or i != axis % weight.dim()]
    return function(weight, dim=others, keepdim=True) if others else weight


def _spread(values: Tensor, weight: Tensor, blocksize: int | None) -> Tensor:
    """One value a block -> one value a weight; values by tensor or channel broadcast as they are."""
    return values if blocksize is None else values.repeat_interleave(blocksize, dim=-1)[..., : weight.shape[-1]]


def _pair(weight: Tensor, approximation: Tensor) -> tuple[Tensor, Tensor]:
    """The weight and its error in float64, or a LabError."""
    for name, value in (("weight", weight), ("approximation", approximation)):
        if not isinstance(value, Tensor) or not value.numel() or not value.isfinite().all():
            raise LabError(f"{name} must be a tensor with at least one entry, all of them finite.")
    if weight.shape != approximation.shape:
        shapes = f"{tuple(weight.shape)} and approximation {tuple(approximation.shape)}"
        raise LabError(f"weight has shape {shapes}: they must be equal.")
    weight = weight.detach().double()
    return weight, approximation.detach().double() - weight
