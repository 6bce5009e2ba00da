"""Exercises of page 05: weights to small whole numbers, and back."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import BITS, SIZE, Exercise, Mistake, candidates, far_from_ties


def quantize_absmax_spec(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Put as many steps on either side of zero as the bits allow; take every weight to the nearest step."""
    steps = 2 ** (bits - 1) - 1
    absmax = max(abs(value) for value in weight.flatten())
    indices = torch.zeros(weight.shape, dtype=torch.int8)
    for i, row in enumerate(weight.tolist()):
        for j, value in enumerate(row):
            distances = {step: abs(value - float(absmax) * step / steps) for step in range(-steps, steps + 1)}
            indices[i, j] = min(distances, key=distances.get)
    return indices, absmax


def quantize_absmax(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    absmax = weight.abs().max()
    steps = 2 ** (bits - 1) - 1
    return (weight / absmax * steps).round().to(torch.int8), absmax


def dequantize_absmax_spec(indices: Tensor, absmax: Tensor, bits: int) -> Tensor:
    """The index of the last step means absmax, and every other its share of it."""
    last = 0
    while last + 1 < 2 ** (bits - 1):
        last += 1
    weight = torch.zeros(indices.shape, dtype=absmax.dtype)
    for i, row in enumerate(indices.tolist()):
        for j, index in enumerate(row):
            weight[i, j] = index / last * absmax
    return weight


def dequantize_absmax(indices: Tensor, absmax: Tensor, bits: int) -> Tensor:
    return indices * (absmax / (2 ** (bits - 1) - 1))


def _absmax(weight, bits):
    return weight.abs().max()


def _steps(weight, bits):
    return 2 ** (bits - 1) - 1


def _by(scale=_absmax, steps=_steps, rounding=torch.round, back=None):
    """quantize_absmax with another scale, number of steps or rounding; `back` is the scale handed back, if another."""

    def wrong(weight, bits):
        indices = rounding(weight / scale(weight, bits) * steps(weight, bits))
        return indices.to(torch.int8), (back or scale)(weight, bits)

    return wrong


def _clamped(scale, steps=_steps, low=_steps, high=_steps):
    """The same, with indices cut off at the ends."""

    def wrong(weight, bits):
        indices = (weight / scale(weight, bits) * steps(weight, bits)).round()
        return indices.clamp(-low(weight, bits), high(weight, bits)).to(torch.int8), scale(weight, bits)

    return wrong


def _cut_or_not(*scales):
    """Each scale without and with the cut at the ends: some weights lie beyond them."""
    half = lambda w, bits: 2 ** (bits - 1)  # noqa: E731
    return tuple(wrong for scale in scales for wrong in (_by(scale), _clamped(scale), _clamped(scale, low=half)))


def _as_floats(weight, bits):
    """quantize_absmax without rounding, or rounded and not stored as int8."""
    return weight / weight.abs().max() * _steps(weight, bits), weight.abs().max()


def _swap(results):
    return results[1], results[0]


@st.composite
def _indices_and_absmax(draw):
    """Indices, their absmax and bits; in half of them the largest index does not occur, as in a part of a matrix."""
    weight, bits = draw(_weight_and_bits())
    indices, absmax = quantize_absmax(weight, bits)
    last = _steps(weight, bits) - 1
    return (indices.clamp(-last, last) if last and draw(st.booleans()) else indices), absmax, bits


@st.composite
def _weight_and_bits(draw):
    """A matrix and bits; no weight lies halfway between two steps, not even with a usual wrong scale."""
    bits, shape = draw(BITS), (draw(SIZE), draw(SIZE))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    for weight in candidates(draw(st.integers(0, 99)), shape, dtype):
        rows = weight.abs().amax(1, keepdim=True).clamp(min=0.1)
        scales = weight.abs().max(), weight.abs().mean(), weight.mean(), weight.std(correction=0), rows
        steps = 2 ** (bits - 1) - 1, 2 ** (bits - 1)
        if weight.any() and far_from_ties(*(weight / scale * n for scale in scales for n in steps)):
            return weight, bits


_WEIGHT = torch.tensor([[0.5, -1.2, 0.1, 0.9], [-0.4, 2.1, -0.8, 0.3], [1.3, -0.2, 0.7, -1.6]])
EXERCISES = (
    Exercise(
        name="quantize_absmax", page=5, title="Weights to whole numbers",
        spec=quantize_absmax_spec, solution=quantize_absmax, inputs=_weight_and_bits(), demo=(_WEIGHT, 4),
        picture=lambda result: result[0],
        mistakes=(
            Mistake(
                "the mean instead of the largest",
                "The scale has to reach the largest |weight|: with the mean all larger weights fall off the end.",
                wrong=_cut_or_not(lambda w, bits: w.abs().mean(), lambda w, bits: w.mean()),
            ),
            Mistake(
                "the standard deviation instead of the largest",
                "The scale has to reach the largest |weight|. The standard deviation says how far a usual one lies.",
                wrong=_cut_or_not(lambda w, bits: w.std(), lambda w, bits: w.std(correction=0)),
            ),
            Mistake(
                "the largest weight without its absolute value",
                "The weight furthest from zero may be negative: take .abs() before .max().",
                wrong=_cut_or_not(lambda w, bits: w.max(), lambda w, bits: w.max().abs()),
            ),
            Mistake(
                "one step too many",
                "A signed number of 4 bits ends at 7, not at 8: 2**(bits-1) - 1 steps on either side of zero.",
                wrong=(
                    _by(steps=lambda w, bits: 2 ** (bits - 1)),
                    _clamped(_absmax, steps=lambda w, bits: 2 ** (bits - 1)),
                    _clamped(_absmax, steps=lambda w, bits: 2 ** (bits - 1), low=lambda w, bits: 2 ** (bits - 1)),
                ),
            ),
            Mistake(
                "the sign has no bit",
                "2**bits numbers in all, half of them negative: 2**(bits-1) - 1 are left on either side of zero.",
                wrong=(
                    _by(steps=lambda w, bits: 2**bits - 1), _by(steps=lambda w, bits: 2**bits),
                    _clamped(_absmax, steps=lambda w, bits: 2**bits - 1),
                    _clamped(_absmax, steps=lambda w, bits: 2**bits),
                ),
            ),
            Mistake(
                "cut off instead of rounded",
                "Converting to int8 drops the decimals, so 6.9 becomes 6. Use .round() before it.",
                wrong=(_by(rounding=torch.trunc), _by(rounding=torch.floor)),
            ),
            Mistake(
                "always the 127 steps of 8 bits",
                "127 is the largest index of 8 bits only. For `bits` bits it is 2**(bits-1) - 1.",
                wrong=(_by(steps=lambda w, bits: 127), _clamped(_absmax, steps=lambda w, bits: 127)),
            ),
            Mistake(
                "not stored as int8",
                "An index is a whole number in one byte: .round(), and then .to(torch.int8).",
                wrong=(
                    _as_floats,
                    lambda w, bits: (_as_floats(w, bits)[0].round(), w.abs().max()),
                    lambda w, bits: (_as_floats(w, bits)[0].round().to(torch.int32), w.abs().max()),
                    lambda w, bits: (_as_floats(w, bits)[0].round().to(torch.int64), w.abs().max()),
                ),
            ),
            Mistake(
                "an absmax for each row",
                "Section 3 tries that, and it is a good idea. Here the whole matrix shares one absmax.",
                wrong=(
                    _by(lambda w, bits: w.abs().amax(1, keepdim=True)),
                    _by(lambda w, bits: w.abs().amax(1, keepdim=True), back=_absmax),
                ),
            ),
            Mistake(
                "not spread over the steps",
                "weight / absmax lies between -1 and 1. Multiply by 2**(bits-1) - 1 before you round.",
                wrong=(_by(steps=lambda w, bits: 1),),
            ),
            Mistake(
                "the width of a step handed back",
                "The indices are right. Hand back absmax itself, not absmax divided by the steps (or its inverse).",
                wrong=(
                    _by(back=lambda w, bits: w.abs().max() / _steps(w, bits)),
                    _by(back=lambda w, bits: _steps(w, bits) / w.abs().max()),
                ),
            ),
            Mistake(
                "results in the wrong order",
                "Hand back (indices, absmax).",
                wrong=(lambda weight, bits: _swap(quantize_absmax(weight, bits)),),
            ),
        ),
        hints=(
            "Three things happen: the weights are scaled, rounded, and stored as int8. Which weight fixes the scale?",
            "The largest |weight| is to become the largest index, 7 for 4 bits. Which is it for `bits` bits?",
            "absmax is weight.abs().max(). Divide by it, multiply by 2**(bits-1) - 1, then .round() and "
            ".to(torch.int8).",
        ),
        reward="You can quantize any weight. No entry moves by more than half a step: absmax / (2**bits - 2).",
    ),
    Exercise(
        name="dequantize_absmax", page=5, title="Whole numbers back to weights",
        spec=dequantize_absmax_spec, solution=dequantize_absmax, any_width=True, picture=lambda weight: weight,
        inputs=_indices_and_absmax(),
        demo=(*quantize_absmax(_WEIGHT, 4), 4),
        mistakes=(
            Mistake(
                "the steps forgotten",
                "Index 7 of 4 bits is to become absmax, not 7 times absmax: divide by 2**(bits-1) - 1.",
                wrong=(lambda indices, absmax, bits: indices * absmax,),
            ),
            Mistake(
                "absmax forgotten",
                "This lies between -1 and 1. Multiply by absmax to get back the size of the weights.",
                wrong=(lambda indices, absmax, bits: indices / (2 ** (bits - 1) - 1),),
            ),
            Mistake(
                "scaled once more instead of back",
                "Quantizing divided by absmax and multiplied by the steps. The way back does the opposite of both.",
                wrong=(
                    lambda indices, absmax, bits: indices / absmax * (2 ** (bits - 1) - 1),
                    lambda indices, absmax, bits: indices * (2 ** (bits - 1) - 1) / absmax,
                ),
            ),
            Mistake(
                "divided by absmax",
                "Quantizing divided by absmax, so the way back multiplies by it.",
                wrong=(
                    lambda indices, absmax, bits: indices / absmax,
                    lambda indices, absmax, bits: indices / absmax / (2 ** (bits - 1) - 1),
                ),
            ),
            Mistake(
                "multiplied by the steps",
                "Quantizing multiplied by the steps, so the way back divides by them.",
                wrong=(
                    lambda indices, absmax, bits: indices * absmax * (2 ** (bits - 1) - 1),
                    lambda indices, absmax, bits: indices * (2 ** (bits - 1) - 1) * absmax,
                ),
            ),
            Mistake(
                "one step too many",
                "The largest index is 2**(bits-1) - 1, and that is to become absmax.",
                wrong=(lambda indices, absmax, bits: indices * absmax / 2 ** (bits - 1),),
            ),
            Mistake(
                "the sign has no bit",
                "There are 2**(bits-1) - 1 steps on either side of zero, not 2**bits - 1.",
                wrong=(
                    lambda indices, absmax, bits: indices * absmax / (2**bits - 1),
                    lambda indices, absmax, bits: indices * absmax / 2**bits,
                ),
            ),
            Mistake(
                "always the 127 steps of 8 bits",
                "127 is the largest index of 8 bits only. For `bits` bits it is 2**(bits-1) - 1.",
                wrong=(lambda indices, absmax, bits: indices * absmax / 127,),
            ),
            Mistake(
                "the largest index in sight",
                "absmax belongs to the largest index that `bits` bits can hold, and in a part of a matrix it need not "
                "occur.",
                wrong=(
                    lambda indices, absmax, bits: indices / indices.abs().max() * absmax,
                    lambda indices, absmax, bits: indices / indices.max() * absmax,
                ),
            ),
            Mistake(
                "the middle of the next gap",
                "The weights were rounded to the steps themselves. Nothing is to be added to the index.",
                wrong=(
                    lambda indices, absmax, bits: (indices + 0.5) * absmax / (2 ** (bits - 1) - 1),
                    lambda indices, absmax, bits: (indices - 0.5) * absmax / (2 ** (bits - 1) - 1),
                ),
            ),
        ),
        hints=(
            "Undo what quantizing did, in the opposite order. All but the rounding: what that took away is gone.",
            "Which weight does the largest index mean? And index 1? That is the width of a step.",
            "The width of a step is absmax over 2**(bits-1) - 1. Multiply every index by it.",
        ),
        reward="What comes back is not the weight but the step next to it. The difference is the price of few bits.",
    ),
)  # fmt: skip
