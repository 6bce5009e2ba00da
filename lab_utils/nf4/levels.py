"""Any sixteen levels: how far they miss a weight in blocks, and the sixteen that miss it least.

    weight ≈ levels[index] · absmax                  4 bits an index, and one float32 absmax per block
    weight ≈ smallest + index · step                 4 bits an index, and two float16 per block: as many bits

All is computed in float64, so that another program gets the same numbers, to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LabError, whole
from ..quantize import check_weight
from .codec import af4_code, nf4_code

STILL = 1e-9  # a level that moves less has arrived
MOST_ROUNDS = 500  # 10 to 200 were seen


def even_code() -> Tensor:
    """Sixteen even levels from −1 to 1; 0 is not among them.

    Returns
    -------
    float64 Tensor, shape (16,), ascending

    >>> [round(value, 3) for value in even_code().tolist()][6:10]
    [-0.2, -0.067, 0.067, 0.2]
    """
    return torch.arange(16, dtype=torch.float64) * 2 / 15 - 1


def round_to_levels(weight: Tensor, levels: Tensor, blocksize: int = 64) -> Tensor:
    """A weight whose blocks are rounded to the nearest of levels · absmax.

    Parameters
    ----------
    weight, levels, blocksize
        As for `levels_error`.

    Returns
    -------
    float64 Tensor of the weight's shape

    Raises
    ------
    LabError
        As `levels_error`.

    >>> round_to_levels(torch.tensor([3.0, 4.0]), torch.tensor([-1.0, 0.0, 1.0]), 2).tolist()
    [4.0, 4.0]
    """
    shares, largest = divided(weight, blocksize)
    return (_nearest(shares, levels.to(shares)) * largest).reshape(weight.shape)


def levels_error(weight: Tensor, levels: Tensor, blocksize: int = 64) -> float:
    """Relative error (root mean square) of a weight whose blocks are rounded to levels · absmax.

    Parameters
    ----------
    weight : float32, bfloat16 or float16 Tensor of any shape but (), finite; read row by row
    levels : float Tensor (k,), ascending, in [-1, 1]
    blocksize : int >= 1; the last block may be shorter

    Returns
    -------
    float: ‖weight − rounded‖ / ‖weight‖; 0 for a weight of zeros

    Raises
    ------
    LabError
        The weight or the block size is not as said above.

    >>> levels_error(torch.tensor([3.0, 4.0]), torch.tensor([-1.0, 0.0, 1.0]), 2)  # 3 becomes 4: 1 / 5
    0.2
    """
    shares, largest = divided(weight, blocksize)
    return _relative((shares - _nearest(shares, levels.to(shares))) * largest, shares * largest)


def zeropoint_error(weight: Tensor, blocksize: int = 64) -> float:
    """Relative error with sixteen even levels from a block's smallest weight to its largest.

    Parameters
    ----------
    weight, blocksize
        As for `levels_error`. The smallest weight and the step of each block are kept in float16.

    Returns
    -------
    float

    Raises
    ------
    LabError
        As `levels_error`.

    >>> zeropoint_error(torch.arange(16.0), 16)  # steps of 1, from 0
    0.0
    """
    values = _checked(weight, blocksize)
    whole_blocks = len(values) // blocksize * blocksize
    missed = []
    for blocks in (values[:whole_blocks].reshape(-1, blocksize), values[None, whole_blocks:]):
        if not blocks.numel():
            continue
        low = blocks.amin(1, keepdim=True).half().float()
        step = ((blocks.amax(1, keepdim=True) - low) / 15).half().float()
        index = ((blocks - low) / torch.where(step == 0, 1.0, step)).round().clamp(0, 15)
        missed.append((blocks.double() - (low.double() + index * step.double())).flatten())
    return _relative(torch.cat(missed), values.double())


def lloyd_max(weight: Tensor, blocksize: int = 64) -> Tensor:
    """The sixteen levels that make `levels_error` small for one weight, each the mean of the weights rounded to it.

    Parameters
    ----------
    weight, blocksize
        As for `levels_error`.

    Returns
    -------
    float64 Tensor, shape (16,), ascending
        Begun at NF4, at AF4 and at sixteen even levels; the best of the three ends. An end need not be the best there
        is: on 32,768 weights of page 06's v_proj its error was 0 (blocks of 64) and 0.3 percent (4,096) above it,
        on 1,500 normal weights in one block 12 percent. A weight counts with its block's absmax², because that is
        what its squared error is multiplied by.

    Raises
    ------
    LabError
        As `levels_error`.

    Source: Lloyd 1982, Least squares quantization in PCM. https://doi.org/10.1109/TIT.1982.1056489

    >>> weight = torch.arange(16.0).repeat(4) / 7.5 - 1  # sixteen different weights: they are the levels
    >>> [round(value, 2) for value in lloyd_max(weight).tolist()][:3]
    [-1.0, -0.87, -0.73]
    """
    shares, largest = divided(weight, blocksize)
    shares, order = shares.sort()
    counts = largest.square()[order]
    zero = shares.new_zeros(1)
    sums = [torch.cat([zero, (counts * shares**power).cumsum(0)]) for power in (0, 1)]
    ends = [_arrive(start.double(), shares, *sums) for start in (nf4_code(), af4_code(), even_code())]
    return min(ends, key=lambda levels: levels_error(weight, levels, blocksize))


def divided(weight: Tensor, blocksize: int) -> tuple[Tensor, Tensor]:
    """Each weight divided by the largest |weight| of its block, and that largest: two float64 Tensors (n,)."""
    values = _checked(weight, blocksize).double()
    blocks = F.pad(values, (0, -len(values) % blocksize)).reshape(-1, blocksize)
    largest = blocks.abs().amax(1, keepdim=True).expand_as(blocks).flatten()[: len(values)]
    return torch.where(largest == 0, 0.0, values / torch.where(largest == 0, 1.0, largest)), largest


def _nearest(shares: Tensor, levels: Tensor) -> Tensor:
    """For each share the level that is nearest to it."""
    return levels[torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2)]


def _arrive(levels: Tensor, shares: Tensor, counts: Tensor, moments: Tensor) -> Tensor:
    """Levels moved to the means of their weights until they stay; sums over the sorted `shares` say where that is."""
    ends = torch.tensor([0, len(shares)])
    for _ in range(MOST_ROUNDS):
        cuts = torch.searchsorted(shares, (levels[1:] + levels[:-1]) / 2, right=True)
        cuts = torch.cat([ends[:1], cuts, ends[1:]])
        count, moment = counts[cuts[1:]] - counts[cuts[:-1]], moments[cuts[1:]] - moments[cuts[:-1]]
        moved = torch.where((cuts[1:] > cuts[:-1]) & (count > 0), moment / count.clamp_min(1e-300), levels)
        if float((moved - levels).abs().max()) < STILL:
            break
        levels = moved
    return levels


def _checked(weight: Tensor, blocksize: int) -> Tensor:
    """A weight's numbers in reading order, float32; or a LabError."""
    whole("blocksize", blocksize)
    check_weight(weight)
    if not weight.isfinite().all():
        count = int((~weight.isfinite()).sum())
        raise LabError(f"weight holds {count} entries that are NaN or infinite: fix them first.")
    return weight.detach().float().flatten()


def _relative(missed: Tensor, values: Tensor) -> float:
    """‖missed‖ / ‖values‖; 0 without values."""
    size = float(values.norm())
    return float(missed.norm()) / size if size else 0.0
