"""Exercise of page 05: a range that is not the same on both sides of zero."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import BITS, SIZE, Exercise, Mistake, candidates, far_from_ties


def quantize_zeropoint_spec(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the range from the smallest to the largest number, 0 among them, into steps; count them from 0's index on."""
    low, high = 0.0, 0.0
    for value in weight.flatten().tolist():
        low, high = min(low, value), max(high, value)
    scale = (high - low) / (2**bits - 1)
    zero_point = round(-low / scale)
    indices = torch.zeros(weight.shape, dtype=torch.uint8)
    for i, row in enumerate(weight.tolist()):
        for j, value in enumerate(row):
            indices[i, j] = zero_point + round(value / scale)
    return indices, torch.tensor(scale), torch.tensor(zero_point)


def quantize_zeropoint(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    low, high = weight.min().clamp(max=0), weight.max().clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero_point = (-low / scale).round()
    indices = (weight / scale).round() + zero_point
    return indices.to(torch.uint8), scale, zero_point


def _step_and_zero(weight, bits, ends=None, levels=lambda bits: 2**bits - 1):
    """Width of a step and unrounded index of zero; the range has zero in it if no other `ends` are given."""
    low, high = ends(weight) if ends else (weight.min().clamp(max=0), weight.max().clamp(min=0))
    scale = (high - low) / levels(bits)
    return scale, -low / scale


def _zeropoint(indices=lambda w, s, z: (w / s).round() + z, back=lambda s, z: (s, z), cut=False, **range_):
    """quantize_zeropoint with other indices, cut off at the ends or not, other constants handed back, another range."""

    def wrong(weight, bits):
        scale, zero_point = _step_and_zero(weight, bits, **range_)
        made = indices(weight, scale, zero_point.round())
        made = made.clamp(0, 2**bits - 1) if cut else made
        return made.to(torch.uint8), *back(scale, zero_point.round())

    return wrong


def _from_lowest(rounding):
    """Indices counted from the smallest weight, or from zero if that is smaller."""
    return lambda w, s, z: rounding((w - w.min().clamp(max=0)) / s)


def _with_low(counted_from_low):
    """quantize_zeropoint that hands back the lower end of the range in the place of zero's index."""

    def wrong(weight, bits):
        scale, zero_point = _step_and_zero(weight, bits)
        low = weight.min().clamp(max=0)
        made = ((weight - low) / scale).round() if counted_from_low else (weight / scale).round() + zero_point.round()
        return made.to(torch.uint8), scale, low

    return wrong


def _unrounded_zero(counted_from_low, half=False):
    """quantize_zeropoint whose zero_point is not a whole number; `half` rounds it for the indices alone."""

    def wrong(weight, bits):
        scale, zero_point = _step_and_zero(weight, bits)
        used = zero_point.round() if half else zero_point
        made = ((weight / scale) + used).round() if counted_from_low else (weight / scale).round() + used
        return made.to(torch.uint8), scale, zero_point

    return wrong


def _as_floats(rounding):
    """quantize_zeropoint whose indices are not stored as uint8."""

    def wrong(weight, bits):
        scale, zero_point = _step_and_zero(weight, bits)
        return rounding(weight / scale) + zero_point.round(), scale, zero_point.round()

    return wrong


def _ends(w):
    return w.min(), w.max()


def _both_sides(w):
    return -w.abs().max(), w.abs().max()


@st.composite
def _one_sided(draw):
    """A matrix of both signs, or all above or all below zero, and bits."""
    bits, shape, side = draw(BITS), (draw(SIZE), draw(SIZE)), draw(st.sampled_from([0, 1, -1]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    for weight in candidates(draw(st.integers(0, 99)), shape, dtype):
        weight = weight if side == 0 else side * (weight.abs() + 1)
        if weight.any():
            scale, zero_point = _step_and_zero(weight, bits)
            if far_from_ties(weight / scale, zero_point):
                return weight, bits


_SKEWED = torch.tensor([[0.5, -0.6, 0.1, 0.9], [-0.4, 2.1, -0.8, 0.3], [1.3, -0.2, 0.7, 1.6]])

EXERCISES = (
    Exercise(
        name="quantize_zeropoint", page=5, title="A range that is not the same on both sides",
        spec=quantize_zeropoint_spec, solution=quantize_zeropoint, inputs=_one_sided(),
        demo=(_SKEWED, 4), picture=lambda result: result[0],
        mistakes=(
            Mistake(
                "a range without zero",
                "If all weights lie on one side, stretch the range to zero: low is at most 0 and high at least 0. "
                "Else zero_point is not an index.",
                wrong=(_zeropoint(ends=_ends), _zeropoint(ends=_ends, cut=True)),
            ),
            Mistake(
                "zero point not added",
                "weight / scale is negative below zero, and uint8 has no negative numbers. Add zero_point.",
                wrong=(
                    _zeropoint(lambda w, s, z: (w / s).round()), _zeropoint(lambda w, s, z: (w / s).round(), cut=True),
                ),
            ),
            Mistake(
                "zero point with the wrong sign",
                "Zero lies -low / scale steps above the lower end: a positive number, as low is negative.",
                wrong=(
                    _zeropoint(back=lambda s, z: (s, -z)),
                    _zeropoint(lambda w, s, z: (w / s).round() - z),
                    _zeropoint(lambda w, s, z: (w / s).round() - z, back=lambda s, z: (s, -z)),
                    _zeropoint(_from_lowest(torch.round), back=lambda s, z: (s, -z)),
                ),
            ),
            Mistake(
                "rounded down instead of to the nearest",
                "Then every weight comes back at the left edge of its step, too small by half a step on average. "
                "Use .round() before .to(torch.uint8).",
                wrong=(
                    _zeropoint(lambda w, s, z: (w / s).floor() + z), _zeropoint(lambda w, s, z: (w / s).trunc() + z),
                    _zeropoint(_from_lowest(torch.floor)), _zeropoint(lambda w, s, z: w / s + z),
                ),
            ),
            Mistake(
                "a grid that starts at the smallest weight",
                "Zero then falls between two steps. Round zero_point first, and add this whole number to the rounded "
                "weight / scale.",
                wrong=(_zeropoint(_from_lowest(torch.round)),),
            ),
            Mistake(
                "the lower end handed back as zero_point",
                "zero_point is the index of zero, a whole number of steps: -low / scale, rounded.",
                wrong=(_with_low(True), _with_low(False)),
            ),
            Mistake(
                "zero_point not rounded",
                "zero_point is an index like any other. Rounded, it makes zero come back as exactly zero.",
                wrong=(
                    _unrounded_zero(True), _unrounded_zero(False), _unrounded_zero(True, half=True),
                    _unrounded_zero(False, half=True),
                ),
            ),
            Mistake(
                "not stored as uint8",
                "An index is a whole number in one byte: .round(), and then .to(torch.uint8).",
                wrong=(_as_floats(torch.round), _as_floats(lambda steps: steps)),
            ),
            Mistake(
                "always the 255 steps of 8 bits",
                "255 is the largest index of 8 bits only. For `bits` bits it is 2**bits - 1.",
                wrong=(_zeropoint(levels=lambda bits: 255),),
            ),
            Mistake(
                "one step too many",
                "The indices are 0 to 2**bits - 1, and between so many points there are 2**bits - 1 steps.",
                wrong=(_zeropoint(levels=lambda bits: 2**bits), _zeropoint(levels=lambda bits: 2**bits, cut=True)),
            ),
            Mistake(
                "the absmax scale",
                "That range is the same on both sides of zero. Let it reach from low to high only.",
                wrong=(
                    _zeropoint(ends=_both_sides), _zeropoint(ends=_both_sides, levels=lambda bits: 2**bits - 2),
                ),
            ),
            Mistake(
                "scale upside down",
                "Hand back the width of one step, (high - low) / (2**bits - 1), by which an index is multiplied.",
                wrong=(_zeropoint(back=lambda s, z: (1 / s, z)),),
            ),
        ),
        hints=(
            "Where does the range begin, where does it end, and how many steps fit in between? Zero belongs to it.",
            "scale is the width of a step. zero_point says how many steps zero lies above the lower end, rounded.",
            "scale = (high - low) / (2**bits - 1) with low ≤ 0 ≤ high; zero_point = round(-low / scale); an index is "
            "round(weight / scale) + zero_point.",
        ),
        reward="No index is wasted on a side where there are no weights, and zero still comes back as exactly zero.",
    ),
)  # fmt: skip
