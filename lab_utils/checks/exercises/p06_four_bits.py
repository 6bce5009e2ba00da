"""Exercises of page 06: where the sixteen numbers come from, and the nearest of them."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

NF4_OFFSET = 0.9677083  # share of the bell curve below NF4's last entry


def equal_mass_code_spec(k: int) -> Tensor:
    """Cut the bell curve into k slices of equal mass; in each, find the value with half the slice on either side."""
    code = []
    for i in range(k):
        wanted, low, high = (i + 0.5) / k, -9.0, 9.0
        for _ in range(60):
            middle = (low + high) / 2
            mass_below = (1 + math.erf(middle / 2**0.5)) / 2
            low, high = (middle, high) if mass_below < wanted else (low, middle)
        code.append(low)
    return torch.tensor([value / code[-1] for value in code])


def equal_mass_code(k: int) -> Tensor:
    middles = (torch.arange(k) + 0.5) / k
    quantiles = torch.special.ndtri(middles)
    return quantiles / quantiles.max()


def nearest_code_spec(values: Tensor, code: Tensor) -> Tensor:
    """For each value go through the code and keep the entry that is least far away."""
    indices = torch.zeros(len(values), dtype=torch.int64)
    for n in range(len(values)):
        for k in range(len(code)):
            if abs(values[n] - code[k]) < abs(values[n] - code[indices[n]]):
                indices[n] = k
    return indices


def nearest_code(values: Tensor, code: Tensor) -> Tensor:
    distances = (values[:, None] - code).abs()
    return distances.argmin(dim=1)


def _both(points):
    """equal_mass_code from other shares: divided by the largest value, by the largest size, and not at all."""
    quantiles = lambda k: torch.special.ndtri(points(k))  # noqa: E731
    return lambda k: quantiles(k) / quantiles(k).max(), lambda k: quantiles(k) / quantiles(k).abs().max(), quantiles


def _middles(k):
    return (torch.arange(k) + 0.5) / k


def _searched(change):
    """nearest_code by binary search: `change` makes an index of how many entries of the code lie below."""
    return lambda values, code: change(torch.searchsorted(code, values)).clamp(0, len(code) - 1)


@st.composite
def _values_and_code(draw):
    """An uneven code in tenths from -1 to 1, and values that are neither in it nor halfway between two entries."""
    inner = draw(st.sets(st.integers(-9, 9), min_size=1, max_size=4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    hundredths = st.integers(-10, 9).flatmap(lambda tenth: st.sampled_from([10 * tenth + digit for digit in (2, 7)]))
    values = draw(st.lists(hundredths, min_size=1, max_size=6))
    code = torch.tensor([-10, *sorted(inner), 10], dtype=dtype) / 10
    return torch.tensor(values, dtype=dtype) / 100, code


_CODE = torch.tensor([-1.0, -0.6, -0.3, -0.1, 0.0, 0.2, 0.5, 1.0])

EXERCISES = (
    Exercise(
        name="equal_mass_code", page=6, title="Values where the weights are",
        spec=equal_mass_code_spec, solution=equal_mass_code, inputs=st.tuples(st.integers(3, 24)), demo=(16,),
        any_width=True, picture=lambda code: code,
        mistakes=(
            Mistake(
                "the left edges instead of the middles",
                "Slice i begins at i/k, and the first begins at minus infinity. Take its middle, (i + 1/2)/k.",
                wrong=_both(lambda k: torch.arange(k) / k),
            ),
            Mistake(
                "infinite ends",
                "The bell curve has no end: the quantiles of 0 and 1 are infinite. Take the middles, (i + 1/2)/k.",
                wrong=_both(lambda k: torch.linspace(0, 1, k)) + _both(lambda k: torch.linspace(0, 1, k + 1)),
            ),
            Mistake(
                "one entry too few",
                "k slices have k - 1 edges between them. Take one value inside each slice, not the edges: k in all.",
                wrong=_both(lambda k: torch.arange(1, k) / k),
            ),
            Mistake(
                "k + 1 slices",
                "These are the edges of k + 1 slices. Cut the curve into k, and take the middle of each, (i + 1/2)/k.",
                wrong=_both(lambda k: torch.arange(1, k + 1) / (k + 1)),
            ),
            Mistake(
                "NF4's own ends",
                "0.968 is where NF4's sixteen end. For k slices of equal mass the ends are the middles of the first "
                "and of the last slice.",
                wrong=_both(lambda k: torch.linspace(1 - NF4_OFFSET, NF4_OFFSET, k))
                + _both(lambda k: torch.linspace(0.032, 0.968, k)),
            ),
            Mistake(
                "slices of equal width",
                "This is int4's grid. Use the quantiles, torch.special.ndtri, so that each value represents as "
                "many weights.",
                wrong=(
                    lambda k: torch.linspace(-1, 1, k), lambda k: 2 * _middles(k) - 1,
                    _middles, lambda k: torch.linspace(0, 1, k),
                ),
            ),
            Mistake(
                "not scaled to [-1, 1]",
                "Divide by the largest value: the weights of a block are divided by their absmax, too.",
                wrong=(lambda k: torch.special.ndtri(_middles(k)),),
            ),
            Mistake(
                "Φ instead of its inverse",
                "Φ (ndtr) makes a share of a value. You have shares and want values: ndtri.",
                wrong=(
                    lambda k: torch.special.ndtr(_middles(k)),
                    lambda k: torch.special.ndtr(_middles(k)) / torch.special.ndtr(_middles(k)).max(),
                ),
            ),
        ),
        hints=(
            "Each of the k values should represent as many weights as any other. Where on the bell curve do they lie?",
            "torch.special.ndtri(p) is the value with the share p of all weights below it. Which k shares are the "
            "middles of k equal slices of 0 to 1?",
            "The shares are (torch.arange(k) + 0.5) / k. Put them through ndtri, and divide by the largest result.",
        ),
        reward="This is NF4's idea. NF4 itself counts each side of zero apart, so that one entry is exactly zero.",
    ),
    Exercise(
        name="nearest_code", page=6, title="The nearest of the sixteen",
        spec=nearest_code_spec, solution=nearest_code, inputs=_values_and_code(), any_width=True,
        demo=(torch.tensor([-0.92, -0.48, -0.17, 0.03, 0.18, 0.33, 0.72, 0.97]), _CODE),
        picture=lambda indices: indices,
        mistakes=(
            Mistake(
                "the left edge instead of the nearest",
                "This is the last entry below the value. The next one may be nearer.",
                wrong=(_searched(lambda above: above - 1),),
            ),
            Mistake(
                "the right edge instead of the nearest",
                "This is the first entry above the value, as searchsorted gives it. The one before may be nearer.",
                wrong=(_searched(lambda above: above),),
            ),
            Mistake(
                "off by one",
                "Indices begin at 0. With searchsorted or bucketize on the middles between entries, nothing is to be "
                "added or taken off.",
                wrong=(
                    lambda values, code: nearest_code(values, code) + 1,
                    lambda values, code: nearest_code(values, code) - 1,
                    lambda values, code: (nearest_code(values, code) + 1).clamp(max=len(code) - 1),
                    lambda values, code: (nearest_code(values, code) - 1).clamp(min=0),
                ),
            ),
            Mistake(
                "the code taken as evenly spaced",
                "The entries lie closer together near zero. Compare each value with each entry.",
                wrong=(lambda values, code: ((values + 1) / 2 * (len(code) - 1)).round().long(),),
            ),
            Mistake(
                "the absolute value forgotten",
                "The smallest difference is the most negative one. Take .abs() before .argmin.",
                wrong=(
                    lambda values, code: (values[:, None] - code).argmin(1),
                    lambda values, code: (code - values[:, None]).argmin(1),
                ),
            ),
            Mistake(
                "the entries instead of their indices",
                "code[index] is the entry itself. What is stored is its index.",
                wrong=(lambda values, code: code[nearest_code(values, code)],),
            ),
            Mistake(
                "along the wrong axis",
                "Search among the entries, for each value: argmin over the axis of the code.",
                wrong=(lambda values, code: (values[:, None] - code).abs().argmin(0),),
            ),
            Mistake(
                "the farthest instead of the nearest",
                "Take argmin of the distances.",
                wrong=(lambda values, code: (values[:, None] - code).abs().argmax(1),),
            ),
        ),
        hints=(
            "Make a table of all distances: a row for each value, a column for each entry of the code.",
            "values[:, None] - code is that table, but with signs. Which column has the smallest distance in each row?",
            "The absolute value of values[:, None] - code, and then .argmin over the columns, dim=1.",
        ),
        reward="With NF4's code this is all that 4-bit quantization does, once a block has been divided by its absmax.",
    ),
)  # fmt: skip
