"""Double quantization: the absmax values of 4-bit blocks, stored in 8 bits instead of 32.

    absmax ≈ code[codes] · group absmax + offset        one offset per tensor, one group absmax per 256 values

A block of 64 weights then has 8 + 32/256 bits of scale instead of 32: 0.127 bits per weight instead of 0.5. Codes,
offset and group absmax equal those of bitsandbytes 0.50 on a CPU, bit for bit.

Source: Dettmers et al. 2023 (QLoRA), section 3. https://arxiv.org/abs/2305.14314
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 256  # absmax values that share one group absmax
GRID = 2**16  # points from -1 to 1 that a value is first rounded to


@dataclass(frozen=True, eq=False)
class DoubleQuantized:
    """Absmax values in 8 bits: what `compress` returns and `restore` needs.

    codes : uint8 Tensor, shape (blocks,), positions in `dynamic_code()`
    absmax : float32 Tensor, shape (groups,), the largest |value − offset| of each group of 256
    offset : float32 Tensor, shape (), the mean of all values
    """

    codes: Tensor
    absmax: Tensor
    offset: Tensor


@cache
def dynamic_code() -> Tensor:
    """The 256 values of the signed dynamic 8-bit type, for numbers that span many powers of ten.

    Returns
    -------
    float32 Tensor, shape (256,), ascending, from -0.993 to 1
        The decade from 10**(i-7) to 10**(i-6) is cut into 2**i equal bins, for i from 0 to 6; the middle of each is a
        value, with either sign. With 0 and 1 that makes 2 · 127 + 2 values. Do not change it: all callers share it.

    Source: Dettmers et al. 2022 (8-bit optimizers), section 1.3. https://arxiv.org/abs/2110.02861

    >>> [f"{value:.3g}" for value in dynamic_code()[[127, 128, 254, 255]].tolist()]  # from 0 up, and the largest two
    ['0', '5.5e-07', '0.993', '1']
    """
    decades = []
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        decades.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (i - 6))
    positive = torch.cat(decades)
    return torch.cat([-positive, torch.tensor([0.0, 1.0]), positive]).sort().values


@cache
def _nearest_on_grid() -> Tensor:
    """uint8 (65536,): for each point of the grid the position of the nearest value in `dynamic_code()`."""
    points = torch.arange(GRID, dtype=torch.float32) * 2 / (GRID - 1) - 1
    code = dynamic_code()
    return torch.bucketize(points, (code[:-1] + code[1:]) / 2).to(torch.uint8)


def compress(absmax: Tensor) -> DoubleQuantized:
    """Store absmax values in 8 bits.

    Parameters
    ----------
    absmax : float32 Tensor, shape (blocks,), finite

    Returns
    -------
    DoubleQuantized

    The mean is subtracted first, since absmax values are all positive and the code is symmetric. Then bitsandbytes
    does not look for the nearest of the 256 values: it rounds to one of 65,536 grid points and looks up the value
    nearest to that point. Right beside the middle between two values this can pick the farther one, and so do we. No
    grid point is within 1.5e-5 of 0, so 7 of the 256 values, 0 among them, are never chosen.

    >>> compressed = compress(torch.tensor([1.0, 2.0, 3.0]))
    >>> compressed.offset.item(), compressed.absmax.tolist(), compressed.codes.tolist()  # −1, ≈ 0 and 1 in the code
    (2.0, [1.0], [0, 131, 255])
    """
    offset = absmax.mean()
    values = absmax - offset
    groups = F.pad(values, (0, -len(values) % GROUP)).view(-1, GROUP)  # zeros at the end change no absmax
    largest = groups.abs().amax(dim=1)
    scaled = (groups * (1 / largest)[:, None]).clamp(-1, 1)  # NaN where all values of a group are 0
    points = ((scaled + 1) * 0.5 * (GRID - 1) + 0.5).nan_to_num(0).long()  # + 0.5, then cut off: the nearest point
    codes = _nearest_on_grid().to(points.device)[points]
    return DoubleQuantized(codes.flatten()[: len(values)], largest, offset)


def restore(compressed: DoubleQuantized) -> Tensor:
    """Turn 8-bit absmax values back into floats: code[codes] · group absmax + offset.

    Parameters
    ----------
    compressed : DoubleQuantized

    Returns
    -------
    float32 Tensor, shape (blocks,)

    >>> [round(value, 3) for value in restore(compress(torch.tensor([1.0, 2.0, 3.0]))).tolist()]
    [1.007, 2.0, 3.0]
    """
    codes = compressed.codes
    scale = compressed.absmax.repeat_interleave(GROUP)[: len(codes)]
    return dynamic_code().to(codes.device)[codes.long()] * scale + compressed.offset
