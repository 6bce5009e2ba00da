"""Four bits per weight, written to be read: the NF4 and FP4 codes, blocks, packing into bytes.

    weight ≈ code[index] · absmax        one float32 absmax for each block of, say, 64 weights in a row

Packed bytes, absmax values, their double quantization and the dequantized weights equal those of bitsandbytes 0.50 on a
CPU, bit for bit. The work is done in slices, to take little memory on top of the result.

Source: Dettmers et al. 2023 (QLoRA), sections 2 and 3. https://arxiv.org/abs/2305.14314
"""

from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from torch import Tensor

from ..errors import LabError, choose, flag
from ..quantize import check_weight
from .double_quant import DoubleQuantized, compress, restore

QUANT_TYPES = ("nf4", "fp4")
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
OFFSET = 0.9677083  # ½[(1 − 1/30) + (1 − 1/32)] to seven digits: with more, the code's last bits are not bitsandbytes'
AF4 = (
    -1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0, 0.04273164, 0.12934483,
    0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0,
)  # fmt: skip
SLICE = 2**17  # weights worked on at a time: 0.5 MB of float32, and a whole number of blocks of any size
SMALLEST = 1e-38  # divides where the absmax is 0


@dataclass(frozen=True, eq=False)
class Quantized4Bit:
    """A weight in 4 bits: what `quantize_4bit` returns and `dequantize_4bit` needs.

    packed : uint8 Tensor, shape (ceil(weights / 2), 1), as in bitsandbytes
        Two weights per byte in reading order, the first in the upper four bits. An odd last one is followed by a zero.
    scales : float32 Tensor, shape (blocks,), or DoubleQuantized
        The absmax values as they are stored; `.absmax` has them as numbers.
    shape, dtype : of the original weight
    blocksize : int, weights that share an absmax; the last block may be shorter
    quant_type : "nf4" or "fp4"
    """

    packed: Tensor
    scales: Tensor | DoubleQuantized
    shape: torch.Size
    dtype: torch.dtype
    blocksize: int
    quant_type: str

    @property
    def absmax(self) -> Tensor:
        """float32 Tensor, shape (blocks,): the factor of each block's code values."""
        return restore(self.scales) if self.nested else self.scales

    @property
    def nested(self) -> DoubleQuantized | None:
        """The 8-bit absmax values with their scales, or None without double quantization."""
        return self.scales if isinstance(self.scales, DoubleQuantized) else None

    @property
    def bits_per_parameter(self) -> float:
        """All that is stored for this weight, in bits per weight; the codes, which all weights share, are left out."""
        nested = self.nested
        parts = (self.packed, nested.codes, nested.absmax, nested.offset) if nested else (self.packed, self.scales)
        return 8 * sum(part.numel() * part.element_size() for part in parts) / prod(self.shape)


@cache
def nf4_code() -> Tensor:
    """The sixteen values of NF4: quantiles of the normal distribution, scaled to the range from -1 to 1.

    Returns
    -------
    float32 Tensor, shape (16,), ascending: seven negative values, 0, eight positive ones
        Each side goes in equal steps of probability from OFFSET to ½, eight steps above zero and seven below. The
        offset avoids the quantile of 1, which is infinite. Do not change the tensor: all callers share it.

    Source: Dettmers et al. 2023 (QLoRA), section 3 and appendix E.

    >>> [round(value, 2) for value in nf4_code().tolist()][6:10]  # close together near 0, and 0 itself is a value
    [-0.09, 0.0, 0.08, 0.16]
    """
    above, below = (torch.linspace(OFFSET, 0.5, steps + 1)[:-1].double() for steps in (8, 7))
    values = torch.cat([-torch.special.ndtri(below), torch.zeros(1), torch.special.ndtri(above).flip(0)]).float()
    return values / values.max()


@cache
def af4_code() -> Tensor:
    """The sixteen values of AF4, derived from the expected |error| on normal weights in blocks of 64.

    Returns
    -------
    float32 Tensor, shape (16,), ascending; -1, 0 and 1 are fixed
        The numbers are the paper's, as bitsandbytes has them. Do not change the tensor: all callers share it.

    Source: Yoshida 2023, NF4 Isn't Information Theoretically Optimal (and that's Good).
    https://arxiv.org/abs/2306.06965

    >>> [round(value, 2) for value in af4_code().tolist()][6:10]
    [-0.05, 0.0, 0.04, 0.13]
    """
    return torch.tensor(AF4)


@cache
def fp4_code() -> Tensor:
    """The sixteen values of bitsandbytes' FP4, tiny floating-point numbers, scaled to the range from -1 to 1.

    Its smallest number is 1/192 of the largest. The FP4 of today's GPUs has other numbers: see `e2m1_code`.

    Returns
    -------
    float32 Tensor, shape (16,), ascending; 0 appears twice, because floating point has +0 and −0
        Do not change it: all callers share it.

    >>> [round(value, 3) for value in fp4_code().tolist()][7:]
    [0.0, 0.0, 0.005, 0.167, 0.25, 0.333, 0.5, 0.667, 1.0]
    """
    return _fp4_by_pattern()[_patterns("fp4").long()]


def _fp4_by_pattern() -> Tensor:
    """float32 (16,): the value of each bit pattern of FP4: sign, two bits of exponent, one of mantissa."""
    exponent = torch.tensor([-4, 3, 2, 1]).repeat_interleave(2)  # bits 00 mean the smallest, then it falls from 3
    magnitude = 2.0**exponent * (1 + 0.5 * torch.tensor([0, 1] * 4))  # 8, 12, 4, 6, 2, 3
    magnitude[:2] = torch.tensor([0.0, 2.0**-4])  # subnormal: no leading 1
    return torch.cat([magnitude, -magnitude + 0.0]) / magnitude.max()  # + 0.0 makes −0 a plain 0, as in bitsandbytes


@cache
def _patterns(quant_type: str) -> Tensor:
    """uint8 (16,): the four bits that are stored for each position in the ascending code."""
    if quant_type == "nf4":
        return torch.arange(16, dtype=torch.uint8)  # no floating point: the position itself
    return _fp4_by_pattern().argsort(stable=True).to(torch.uint8)


@cache
def _pairs(quant_type: str) -> Tensor:
    """float32 (256, 2): the two values in each byte."""
    by_pattern = nf4_code() if quant_type == "nf4" else _fp4_by_pattern()
    byte = torch.arange(256)
    return torch.stack([by_pattern[byte >> 4], by_pattern[byte & 15]], dim=1)


def quantize_4bit(
    weight: Tensor, blocksize: int = 64, quant_type: str = "nf4", double_quant: bool = False
) -> Quantized4Bit:
    """Quantize a weight to 4 bits in blocks.

    Parameters
    ----------
    weight : float32, bfloat16 or float16 Tensor of any shape but (), finite, not empty
        Blocks run through it in reading order, across the ends of rows.
    blocksize : 32, 64, 128, 256, 512, 1024, 2048 or 4096
    quant_type : "nf4" or "fp4"
    double_quant : bool, store the absmax values in 8 bits

    Returns
    -------
    Quantized4Bit
        Each weight, divided by its block's absmax, goes to the nearest value of the code; the middle between two
        values goes to the lower one. A block of zeros has absmax 0; if it is a shorter last one, 1e-38, as in
        bitsandbytes.

    Raises
    ------
    LabError
        A setting is unknown, or the weight is not allowed.

    >>> quantized = quantize_4bit(torch.tensor([2.0, -2.0, 0.0, 0.6]))  # absmax 2: 1, -1, 0 and 0.3 in the code
    >>> [f"{byte:08b}" for byte in quantized.packed.flatten().tolist()]  # indices 15, 0, 7 and 11, two per byte
    ['11110000', '01111011']
    """
    _check(weight, blocksize, quant_type, double_quant)
    flat = weight.detach().reshape(-1)
    packed = torch.empty((flat.numel() + 1) // 2, dtype=torch.uint8, device=flat.device)
    absmax = torch.empty(-(-flat.numel() // blocksize), device=flat.device)
    whole = flat.numel() - flat.numel() % blocksize  # weights in whole blocks
    for start in range(0, whole, SLICE):
        end = min(start + SLICE, whole)
        blocks = flat[start:end].float().view(-1, blocksize)
        largest = blocks.abs().amax(dim=1)
        absmax[start // blocksize : end // blocksize] = largest
        scaled = blocks * (1 / largest.clamp(min=SMALLEST))[:, None]
        packed[start // 2 : end // 2] = _packed(scaled.view(-1), quant_type)
    if whole < flat.numel():  # a shorter last block: here bitsandbytes divides, above it multiplies by 1 / absmax
        rest = flat[whole:].float()
        absmax[-1] = rest.abs().max().clamp(min=SMALLEST)
        packed[whole // 2 :] = _packed(rest / absmax[-1], quant_type)
    if not absmax.isfinite().all():
        raise LabError("weight holds NaN or infinity: its blocks have no absmax. Fix those entries first.")
    scales = compress(absmax) if double_quant else absmax
    return Quantized4Bit(packed[:, None], scales, weight.shape, weight.dtype, blocksize, quant_type)


def dequantize_4bit(quantized: Quantized4Bit, dtype: torch.dtype | None = None) -> Tensor:
    """Turn a 4-bit weight back into floats: code[index] · absmax, computed in float32.

    Parameters
    ----------
    quantized : Quantized4Bit
    dtype : float dtype of the result; None: the original weight's

    Returns
    -------
    Tensor, the original shape

    >>> quantized = quantize_4bit(torch.tensor([2.0, -2.0, 0.0, 0.6]))
    >>> [round(w, 3) for w in dequantize_4bit(quantized).tolist()]  # nearest to 0.3 is 0.338
    [2.0, -2.0, 0.0, 0.676]
    """
    packed, absmax, blocksize = quantized.packed.view(-1), quantized.absmax, quantized.blocksize
    # A byte's two float32 values are viewed as one 64-bit number: a single look-up gives both.
    pairs = _pairs(quantized.quant_type).to(packed.device).view(torch.int64).view(-1)
    total = prod(quantized.shape)
    result = torch.empty(total, dtype=dtype or quantized.dtype, device=packed.device)
    for start in range(0, total, SLICE):
        some = packed[start // 2 : (start + SLICE) // 2]
        values = pairs.index_select(0, some.int()).view(torch.float32)
        scale = absmax[start // blocksize : (start + SLICE) // blocksize]
        whole = values.numel() - values.numel() % blocksize
        values[:whole].view(-1, blocksize).mul_(scale[: whole // blocksize, None])
        values[whole:].mul_(scale[-1])
        result[start : start + SLICE] = values[: total - start]
    return result.view(quantized.shape)


def _packed(scaled: Tensor, quant_type: str) -> Tensor:
    """Scaled float32 weights (n,) -> uint8 (ceil(n / 2),), two to a byte."""
    code = nf4_code() if quant_type == "nf4" else fp4_code()
    if scaled.numel() % 2:
        scaled = torch.cat([scaled, scaled.new_zeros(1)])
    indices, above = scaled.new_zeros(scaled.shape, dtype=torch.uint8), torch.empty_like(scaled, dtype=torch.bool)
    for middle in ((code[:-1] + code[1:]) / 2).tolist():  # the index is the number of middles that lie below
        torch.gt(scaled, middle, out=above)
        indices += above.view(torch.uint8)
    if quant_type == "fp4":
        indices = _patterns(quant_type).to(indices.device)[indices.int()]
    return (indices[::2] << 4) | indices[1::2]


def _check(weight: Tensor, blocksize: int, quant_type: str, double_quant: bool) -> None:
    """Raise a LabError that names what is not allowed."""
    choose("quant_type", quant_type, QUANT_TYPES)
    if isinstance(blocksize, bool) or not isinstance(blocksize, int) or blocksize not in BLOCKSIZES:
        raise LabError(f"blocksize={blocksize!r} is out of range: {', '.join(map(str, BLOCKSIZES))}.")
    flag("double_quant", double_quant)
    check_weight(weight)
