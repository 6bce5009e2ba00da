"""MXFP4 and NVFP4, written to be read: blocks of 4-bit floating-point numbers (E2M1) with a scale that is a float too.

    weight ≈ e2m1 · scale                 MXFP4: blocks of 32, the scale a power of two, 8 bits; 4.25 bits per weight
    weight ≈ e2m1 · scale · tensor_scale  NVFP4: blocks of 16, the scale a number of E4M3, 8 bits; 4.5 bits per weight

The rounded weights equal those of torchao 0.18 bit for bit.

Source: Open Compute Project, Microscaling Formats (MX) specification 1.0, 2023; NVIDIA, Introducing NVFP4, 2025.
https://developer.nvidia.com/blog/introducing-nvfp4-for-efficient-and-accurate-low-precision-inference/
"""

from functools import cache

import torch
from torch import Tensor

from ..errors import LabError
from ..quantize import check_weight

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # sign, two bits of exponent, one of mantissa
LARGEST_E4M3, SMALLEST_E4M3 = 448.0, 2.0**-6  # torchao takes no scale below the smallest normal number
MX_BLOCK, NV_BLOCK = 32, 16


@cache
def e2m1_code() -> Tensor:
    """The fifteen values of E2M1, scaled to the range from -1 to 1.

    Returns
    -------
    float32 Tensor, shape (15,), ascending; +0 and −0 are one
        Do not change it: all callers share it.

    >>> (6 * e2m1_code()).tolist()[7:]
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    return torch.tensor([-value for value in E2M1[:0:-1]] + list(E2M1)) / E2M1[-1]


def round_to_e2m1(values: Tensor) -> Tensor:
    """Each value rounded to the nearest number of E2M1; beyond ±6, to ±6.

    Parameters
    ----------
    values : float32 Tensor of any shape, finite

    Returns
    -------
    float32 Tensor, same shape
        Halfway between two, the one whose mantissa bit is 0 is taken, as in IEEE arithmetic.

    >>> round_to_e2m1(torch.tensor([0.2, 2.5, 3.5, -9.0])).tolist()
    [0.0, 2.0, 4.0, -6.0]
    """
    numbers = values.new_tensor(E2M1)
    edges = (numbers[1:] + numbers[:-1]) / 2
    edges[1::2] = edges[1::2].nextafter(edges.new_zeros(()))  # from there on it is the upper one that is even
    return numbers[torch.bucketize(values.abs(), edges)].copysign(values)


def round_to_mxfp4(weight: Tensor) -> Tensor:
    """A weight stored as MXFP4 and read again.

    Parameters
    ----------
    weight : float32, bfloat16 or float16 Tensor of any shape but (), finite; its size a multiple of 32

    Returns
    -------
    float32 Tensor, same shape
        The scale of a block is the power of two that brings its largest |weight| into [4, 8). What then is above 6
        becomes 6.

    Raises
    ------
    LabError
        The weight is not as said above.

    Source: Open Compute Project, Microscaling Formats (MX) specification 1.0, 2023.

    >>> round_to_mxfp4(torch.tensor([7.0, 1.1, 0.2] + [0.0] * 29))[:3].tolist()  # 7 is cut off at 6
    [6.0, 1.0, 0.0]
    """
    blocks = _blocks(weight, MX_BLOCK)
    _, exponent = torch.frexp(blocks.abs().amax(1, keepdim=True))  # of 4 to 8: 3
    scale = torch.exp2((exponent - 3).clamp(-127, 127).float())
    return (round_to_e2m1(blocks / scale) * scale).reshape(weight.shape)


def round_to_nvfp4(weight: Tensor) -> Tensor:
    """A weight stored as NVFP4 and read again.

    Parameters
    ----------
    weight : float32, bfloat16 or float16 Tensor of any shape but (), finite; its size a multiple of 16

    Returns
    -------
    float32 Tensor, same shape
        The scale of a block brings its largest |weight| near 6, as exactly as E4M3 can. A float32 scale of the whole
        tensor makes the largest of these scales 448, the largest number of E4M3.

    Raises
    ------
    LabError
        The weight is not as said above.

    Source: NVIDIA, Introducing NVFP4, 2025.

    >>> rounded = round_to_nvfp4(torch.tensor([7.0, 1.1, 0.2] + [0.0] * 13))
    >>> [round(value, 3) for value in rounded[:3].tolist()]  # steps of 7/6: the 7 is not cut off
    [7.0, 1.167, 0.0]
    """
    blocks = _blocks(weight, NV_BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    tensor_scale = largest.max() / (LARGEST_E4M3 * E2M1[-1])
    if tensor_scale == 0:
        return torch.zeros(weight.shape)
    scale = (largest / E2M1[-1] / tensor_scale).clamp(SMALLEST_E4M3, LARGEST_E4M3)
    scale = scale.to(torch.float8_e4m3fn).float()
    return (round_to_e2m1(blocks * (1 / tensor_scale / scale)) * (scale * tensor_scale)).reshape(weight.shape)


def _blocks(weight: Tensor, size: int) -> Tensor:
    """float32 (blocks, size): a weight in reading order."""
    check_weight(weight)
    if not weight.isfinite().all():
        count = int((~weight.isfinite()).sum())
        raise LabError(f"weight holds {count} entries that are NaN or infinite: fix them first.")
    if weight.numel() % size:
        raise LabError(f"A weight of {weight.numel()} numbers is not made of blocks of {size}. Add zeros at its end.")
    return weight.detach().float().reshape(-1, size)
