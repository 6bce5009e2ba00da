"""Integer quantization written to be read: absmax and zero-point, per tensor, channel or block, and its errors.

    absmax       index = round(127 · w / absmax)      w ≈ index / 127 · absmax           127 at 8 bits, 7 at 4
    zero-point   index = round(w / scale) + zero      w ≈ (index − zero) · scale         0 … 255 at 8 bits

Everything is computed in float32, whatever the dtype of the weights. Halves are rounded to the even neighbor, as
`torch.round` does. An index takes a whole byte here; `nf4` shows how to pack several into one byte.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import LabError, whole

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALLEST_STEP = torch.finfo(torch.float32).tiny  # 2**-126: below it float32 loses digits
LARGEST_WEIGHT = 1e38  # the range from lowest to highest must stay finite, and so must one level below it


@dataclass(frozen=True, eq=False)
class QuantizedAbsmax:
    """What `quantize_absmax` returns and `dequantize_absmax` needs.

    indices : int8 Tensor, the weight's shape, values from -(2**(bits-1) - 1) to 2**(bits-1) - 1
    absmax : float32 Tensor, the largest |weight| of each tensor, channel or block
        Shape (1, 1) per tensor, (rows, 1) or (1, columns) per channel, (rows, blocks in a row) per block.
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
    """What `quantize_zeropoint` returns and `dequantize_zeropoint` needs.

    indices : uint8 Tensor, the weight's shape, values from 0 to 2**bits - 1
    scale : float32 Tensor, the width of one step, in the weight's unit; shaped like QuantizedAbsmax.absmax
    zero : uint8 Tensor of the same shape, the index that means exactly 0
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
    """Round weights to integer multiples of absmax / (2**(bits-1) - 1): levels symmetric around zero.

    Parameters
    ----------
    weight : float32, bfloat16 or float16 Tensor of any shape but (), finite, not empty
    bits : int, 2 to 8
    axis : int or None
        One absmax for each index of this axis: for a weight (out, in), axis 0 gives one per row, which is an output
        channel, and axis 1 one per column. None: one for the whole tensor.
    blocksize : int >= 1 or None
        One absmax for each run of that many weights along the last axis; the last run of a row may be shorter.
        Choose `axis` or `blocksize`, not both.

    Returns
    -------
    QuantizedAbsmax
        Each weight is at most half a step from its level. Zero stays exactly zero; all zeros have absmax 0. One
        of the 2**bits patterns is unused, so −w always gets minus the index of w.

    Raises
    ------
    LabError
        `bits`, `axis` or `blocksize` is out of range, the last two are both given, or the weight is not allowed.

    There are two ways to store the same scale: bitsandbytes keeps absmax and multiplies by absmax / 127; Keras keeps
    the factor 127 / absmax and divides by it. "Divide by the factor" is right for the second only, and for absmax 0
    the factor would be infinite.

    Source: Dettmers et al. 2022 (LLM.int8), section 2.1. https://arxiv.org/abs/2208.07339

    >>> quantize_absmax(torch.tensor([1.0, -0.5, 0.25, 0.02]), bits=4).indices.tolist()  # 7 · w, rounded: −3.5 to −4
    [7, -4, 2, 0]
    """
    weight = _checked(weight, bits, axis, blocksize)
    absmax = _reduce(weight.abs(), torch.amax, axis, blocksize)
    divisor = torch.where(absmax == 0, 1.0, absmax)  # a block of zeros: 0 / 1 instead of 0 / 0
    top = 2 ** (bits - 1) - 1
    indices = (weight / _per_weight(divisor, weight, blocksize) * top).round()
    return QuantizedAbsmax(indices.to(torch.int8), absmax, bits, blocksize)


def dequantize_absmax(quantized: QuantizedAbsmax) -> Tensor:
    """Turn absmax-quantized indices back into weights: index / (2**(bits-1) - 1) · absmax.

    Parameters
    ----------
    quantized : QuantizedAbsmax

    Returns
    -------
    float32 Tensor, the weight's shape

    >>> quantized = quantize_absmax(torch.tensor([1.0, -0.5, 0.25, 0.02]), bits=4)  # indices 7, -4, 2, 0
    >>> [round(w, 3) for w in dequantize_absmax(quantized).tolist()]
    [1.0, -0.571, 0.286, 0.0]
    """
    indices = quantized.indices.float()
    return indices / (2 ** (quantized.bits - 1) - 1) * _per_weight(quantized.absmax, indices, quantized.blocksize)


def quantize_zeropoint(
    weight: Tensor, bits: int = 8, *, axis: int | None = None, blocksize: int | None = None
) -> QuantizedZeroPoint:
    """Spread all 2**bits levels evenly from the smallest weight to the largest, shifted so that 0 is one of them.

    Parameters
    ----------
    weight, bits, axis, blocksize
        As for `quantize_absmax`; no |weight| may be above 1e38.

    Returns
    -------
    QuantizedZeroPoint
        Each weight is at most half a step from its level. The range always includes 0, which stays exactly 0: if all
        weights are positive, the levels start at 0. A step is never below 2**-126, the smallest float32 with full
        precision; weights closer together than that become equal.

    Raises
    ------
    LabError
        As `quantize_absmax`, or a |weight| is above 1e38.

    Source: Jacob et al. 2018, section 2.1. https://arxiv.org/abs/1712.05877

    >>> quantized = quantize_zeropoint(torch.tensor([1.0, -0.5, 0.0, 0.13]), bits=4)
    >>> quantized.scale.item(), quantized.zero.item()  # 16 levels over 1.5: steps of 0.1, and 0 is the fifth above −0.5
    (0.10000000149011612, 5)
    >>> quantized.indices.tolist()
    [15, 0, 5, 6]
    """
    weight = _checked(weight, bits, axis, blocksize)
    if weight.abs().max() > LARGEST_WEIGHT:
        raise LabError(f"weight reaches {float(weight.abs().max()):g}: zero-point needs |weight| up to 1e38.")
    low = _reduce(weight, torch.amin, axis, blocksize).clamp(max=0)
    high = _reduce(weight, torch.amax, axis, blocksize).clamp(min=0)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp(min=SMALLEST_STEP)
    zero = (-low / scale).round()
    # `zero` is added after rounding: 0 / scale + zero is then a whole number, and 0 is exact.
    indices = (weight / _per_weight(scale, weight, blocksize)).round() + _per_weight(zero, weight, blocksize)
    return QuantizedZeroPoint(indices.clamp(0, top).to(torch.uint8), scale, zero.to(torch.uint8), bits, blocksize)


def dequantize_zeropoint(quantized: QuantizedZeroPoint) -> Tensor:
    """Turn zero-point-quantized indices back into weights: (index − zero) · scale.

    Parameters
    ----------
    quantized : QuantizedZeroPoint

    Returns
    -------
    float32 Tensor, the weight's shape

    >>> quantized = quantize_zeropoint(torch.tensor([1.0, -0.5, 0.0, 0.13]), bits=4)  # indices 15, 0, 5, 6
    >>> [round(w, 3) for w in dequantize_zeropoint(quantized).tolist()]
    [1.0, -0.5, 0.0, 0.1]
    """
    indices, blocksize = quantized.indices.float(), quantized.blocksize
    zero, scale = (_per_weight(values, indices, blocksize) for values in (quantized.zero, quantized.scale))
    return (indices - zero) * scale


def mse(weight: Tensor, approximation: Tensor) -> float:
    """The mean squared error of two tensors of one shape, in the weight's unit squared; LabError if shapes differ.

    >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))  # (0² + 0.5²) / 2
    0.125
    """
    weight, error = _pair(weight, approximation)
    return float(error.square().mean())


def sqnr_db(weight: Tensor, approximation: Tensor) -> float:
    """Signal-to-quantization-noise ratio: 10 · log10(Σ w² / Σ error²), in dB; one more bit adds about 6 dB.

    Parameters
    ----------
    weight, approximation : float Tensors of one shape, finite

    Returns
    -------
    float: infinity if there is no error, minus infinity if there is error but no signal

    Raises
    ------
    LabError
        The shapes differ, or a tensor is empty or not finite.

    >>> sqnr_db(torch.tensor([10.0, 0.0]), torch.tensor([10.0, 1.0]))  # 10 · log10(10² / 1²)
    20.0
    """
    weight, error = _pair(weight, approximation)
    signal, noise = float(weight.square().sum()), float(error.square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def largest_error(weight: Tensor, approximation: Tensor) -> float:
    """The largest |error| of two tensors of one shape, in the weight's unit; LabError if shapes differ.

    >>> largest_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    0.5
    """
    return float(_pair(weight, approximation)[1].abs().max())


def check_weight(weight: Tensor) -> None:
    """Raise a LabError unless it is a tensor with a dtype in DTYPES, an axis and an entry; it may hold NaN.

    >>> check_weight([1.0])
    Traceback (most recent call last):
    lab_utils.errors.LabError: weight is list, not a float32, bfloat16 or float16 tensor: convert it with .float().
    """
    if not isinstance(weight, Tensor) or weight.dtype not in DTYPES:
        kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise LabError(f"weight is {kind}, not a float32, bfloat16 or float16 tensor: convert it with .float().")
    if not weight.dim() or not weight.numel():
        raise LabError(f"weight has shape {tuple(weight.shape)}: at least one axis and one entry are needed.")


def _checked(weight: Tensor, bits: int, axis: int | None, blocksize: int | None) -> Tensor:
    """`weight` in float32 without gradient, or a LabError that names what is not allowed."""
    whole("bits", bits, 2, 8, "so that an index fits in a byte")
    check_weight(weight)
    if not weight.isfinite().all():
        count = int((~weight.isfinite()).sum())
        raise LabError(f"weight holds {count} of {weight.numel()} entries that are NaN or infinite: fix them first.")
    if axis is not None and blocksize is not None:
        raise LabError(f"axis={axis!r} and blocksize={blocksize!r}: choose one of the two.")
    if axis is not None and (type(axis) is not int or not -weight.dim() <= axis < weight.dim()):
        raise LabError(f"axis={axis!r} is out of range: shape {tuple(weight.shape)} has {weight.dim()} axes, from 0.")
    if blocksize is not None:
        whole("blocksize", blocksize)
    return weight.detach().float()


def _reduce(weight: Tensor, function, axis: int | None, blocksize: int | None) -> Tensor:
    """`function`, amin or amax, of the tensor, each channel or each block; a short last block is padded with zeros."""
    if blocksize is not None:
        blocks = F.pad(weight, (0, -weight.shape[-1] % blocksize)).unflatten(-1, (-1, blocksize))
        return function(blocks, dim=-1)  # (..., blocks in a row)
    others = [i for i in range(weight.dim()) if axis is None or i != axis % weight.dim()]
    return function(weight, dim=others, keepdim=True) if others else weight


def _per_weight(values: Tensor, weight: Tensor, blocksize: int | None) -> Tensor:
    """One value per block -> one value per weight; values per tensor or channel broadcast as they are."""
    return values if blocksize is None else values.repeat_interleave(blocksize, dim=-1)[..., : weight.shape[-1]]


def _pair(weight: Tensor, approximation: Tensor) -> tuple[Tensor, Tensor]:
    """The weight and its error in float64, or a LabError."""
    for name, value in (("weight", weight), ("approximation", approximation)):
        if not isinstance(value, Tensor) or not value.numel() or not value.isfinite().all():
            raise LabError(f"{name} must be a tensor with at least one entry, all of them finite.")
    if weight.shape != approximation.shape:
        shapes = f"{tuple(weight.shape)} and approximation {tuple(approximation.shape)}"
        raise LabError(f"weight has shape {shapes}: they must be equal.")
    if weight.device != approximation.device:
        raise LabError(
            f"weight is on {weight.device} and approximation on {approximation.device}: move one, as with .cpu()."
        )
    weight = weight.detach().double()
    return weight, approximation.detach().double() - weight
