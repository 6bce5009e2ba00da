"""Exercise of page 10: what is left of an update when the merged weight is stored in 16 bits."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, tensor_maker


def lost_in_rounding_spec(weight: Tensor, delta: Tensor) -> float:
    """Store the sum in 16 bits; what is then there beyond the old weight, and how far is that from the update?"""
    wrong, whole = 0.0, 0.0
    for w, d in zip(weight.flatten().tolist(), delta.flatten().tolist(), strict=True):
        stored = torch.tensor(w + d).to(torch.bfloat16).item()
        wrong += ((stored - w) - d) ** 2
        whole += d**2
    return (wrong / whole) ** 0.5


def lost_in_rounding(weight: Tensor, delta: Tensor) -> float:
    stored = (weight + delta).to(torch.bfloat16).to(weight.dtype)
    return ((stored - weight - delta).norm() / delta.norm()).item()


def _lost(error, size=lambda w, d: d.norm()):
    """lost_in_rounding with another error, or compared with another size."""
    return lambda weight, delta: (error(weight, delta).norm() / size(weight, delta)).item()


def _rounded(values: Tensor) -> Tensor:
    """To bfloat16 and back."""
    return values.to(torch.bfloat16).to(values.dtype)


def _error(weight, delta):
    return _rounded(weight + delta) - (weight + delta)


@st.composite
def _update(draw):
    """Weights that bfloat16 holds exactly, and an update small beside them; float32 holds their sum exactly."""
    make = tensor_maker(draw)
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    steps = draw(st.sampled_from([3, 25, 90]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    delta = torch.randint(1, steps + 1, shape, generator=generator) * make(*shape).sign() / 2**14
    return make(*shape) / 4, delta.to(make(1).dtype)


_NOISE = torch.Generator().manual_seed(0)
_W = torch.randn(8, 16, generator=_NOISE).to(torch.bfloat16).float()
_D = (0.005 * torch.randn(8, 16, generator=_NOISE) * 2**14).round() / 2**14  # float32 holds each sum exactly

EXERCISES = (
    Exercise(
        name="lost_in_rounding", page=10, title="What a merge into 16 bits loses",
        spec=lost_in_rounding_spec, solution=lost_in_rounding, inputs=_update(), demo=(_W, _D),
        mistakes=(
            Mistake(
                "compared with the weight",
                "The question is what is lost of the update: divide by its norm. The weight is much larger.",
                wrong=(_lost(_error, lambda w, d: w.norm()), _lost(_error, lambda w, d: (w + d).norm())),
            ),
            Mistake(
                "the update rounded by itself",
                "Alone it loses next to nothing. What is stored is weight plus update, in one number of 16 bits.",
                wrong=(
                    _lost(lambda w, d: _rounded(d) - d), _lost(lambda w, d: _rounded(w) + _rounded(d) - w - d),
                ),
            ),
            Mistake(
                "rounded to float16",
                "float16 has three more digits in binary, but not bfloat16's range. Here it is bfloat16.",
                wrong=(_lost(lambda w, d: (w + d).half().to(w.dtype) - (w + d)),),
            ),
            Mistake(
                "the norm squared",
                "Take the root: norm over norm.",
                wrong=(lambda w, d: lost_in_rounding(w, d) ** 2,),
            ),
            Mistake(
                "what is left instead of what is lost",
                "You found how much of the update is stored. Compare it with the update itself: take the difference.",
                wrong=(
                    _lost(lambda w, d: _rounded(w + d) - w), lambda w, d: 1 - lost_in_rounding(w, d),
                    lambda w, d: (1 - (_rounded(w + d) - w).norm() / d.norm()).item(),
                ),
            ),
            Mistake(
                "the mean of single ratios",
                "Single small entries would decide. Divide one norm by the other.",
                wrong=(lambda w, d: (_error(w, d).abs() / d.abs()).mean().item(),),
            ),
            Mistake(
                "the largest error",
                "Take the norm of all errors together.",
                wrong=(
                    lambda w, d: (_error(w, d).abs().max() / d.abs().max()).item(),
                    lambda w, d: _error(w, d).abs().max().item(),
                ),
            ),
            Mistake(
                "means of sizes instead of norms",
                "A norm squares first, so that large errors count more: the root of a sum of squares, over another.",
                wrong=(lambda w, d: (_error(w, d).abs().mean() / d.abs().mean()).item(),),
            ),
            Mistake(
                "what is missing along the update",
                "An error may also point elsewhere. Take the norm of the whole difference, not its part along delta.",
                wrong=(
                    lambda w, d: (1 - ((_rounded(w + d) - w) * d).sum() / d.square().sum()).item(),
                    lambda w, d: (1 - ((_rounded(w + d) - w) * d).sum() / d.square().sum()).abs().item(),
                ),
            ),
            Mistake(
                "compared with what is stored",
                "Divide by the norm of delta, of what should have been added; what was added may even be zero.",
                wrong=(_lost(_error, lambda w, d: (_rounded(w + d) - w).norm()),),
            ),
            Mistake(
                "not divided by the update",
                "A share is asked for: divide by the norm of delta.",
                wrong=(_lost(_error, lambda w, d: 1),),
            ),
        ),
        hints=(
            "What is stored after merging? How much of it is new, and how far is that from what should be new?",
            "stored = weight + delta in bfloat16. stored - weight should be delta. Compare norms.",
            "(stored - weight - delta).norm() / delta.norm(), with stored brought back to the dtype of weight.",
        ),
        reward="At 0.5 % of the weights, a third of the update is noise after bfloat16. It points nowhere, and so it "
        "hardly harms.",
    ),
)  # fmt: skip
