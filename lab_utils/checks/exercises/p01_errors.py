"""Exercises of page 01: how good a fit is."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import SIZE, Exercise, Mistake, tensor_maker, weights
from .p01_rank_one import plaid


def relative_error_spec(weight: Tensor, approximation: Tensor) -> float:
    """The length of what is missing, as a share of the length of the whole."""
    missing, whole = 0.0, 0.0
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            missing += float(weight[i, j] - approximation[i, j]) ** 2
            whole += float(weight[i, j]) ** 2
    return missing**0.5 / whole**0.5


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    return ((weight - approximation).norm() / weight.norm()).item()


def energy_spec(weight: Tensor) -> Tensor:
    """The share of the squares that the first, the first two, the first three ... singular values hold."""
    values = torch.linalg.svdvals(weight)  # the largest first
    total = sum(value**2 for value in values)
    so_far, shares = 0.0, []
    for value in values:
        so_far = so_far + value**2
        shares.append(so_far / total)
    return torch.stack(shares)


def energy(weight: Tensor) -> Tensor:
    squares = torch.linalg.svdvals(weight) ** 2
    return squares.cumsum(0) / squares.sum()


def _squares(weight):
    return torch.linalg.svdvals(weight) ** 2


def _off(weight, approximation):
    return ((weight - approximation).norm() / weight.norm()).item()


@st.composite
def _two_matrices(draw):
    make, shape = tensor_maker(draw), (draw(SIZE), draw(SIZE))
    return make(*shape), make(*shape)


EXERCISES = (
    Exercise(
        name="relative_error", page=1, title="How far off is a fit?",
        spec=relative_error_spec, solution=relative_error, inputs=_two_matrices(),
        demo=(torch.tensor([[3.0, 1], [1, 4]]), torch.tensor([[3.0, 1], [1, 2]])),
        mistakes=(
            Mistake(
                "absolute error",
                "You measured the length of the difference. Divide by the length of the weight: 0.1 is then 10 %.",
                wrong=(
                    lambda weight, approximation: (weight - approximation).norm(),
                    lambda weight, approximation: (weight - approximation).square().mean(),
                    lambda weight, approximation: (weight - approximation).square().sum(),
                ),
            ),
            Mistake(
                "how good instead of how far off",
                "An exact fit has error 0, and yours would give it 1. The energy is 1 − error², the error is not.",
                wrong=(
                    lambda weight, approximation: 1 - _off(weight, approximation),
                    lambda weight, approximation: 1 - _off(weight, approximation) ** 2,
                    lambda weight, approximation: max(0.0, 1 - _off(weight, approximation) ** 2) ** 0.5,
                ),
            ),
            Mistake(
                "difference of two norms",
                "Two matrices can be of the same length and far apart. Subtract first, then take the norm.",
                wrong=(
                    lambda weight, approximation: (weight.norm() - approximation.norm()) / weight.norm(),
                    lambda weight, approximation: (weight.norm() - approximation.norm()).abs() / weight.norm(),
                ),
            ),
            Mistake(
                "a percentage instead of a share",
                "A tenth is 0.1 here, not 10. Leave the factor of 100 to the code that prints it.",
                wrong=(lambda weight, approximation: 100 * _off(weight, approximation),),
            ),
            Mistake(
                "divided by the norm of the approximation",
                "The error is a share of what you wanted, and that is `weight`.",
                wrong=(lambda weight, approximation: (weight - approximation).norm() / approximation.norm(),),
            ),
            Mistake(
                "squared error",
                "This is the ratio of the squares. Take the square root of both sums, or of the ratio.",
                wrong=(lambda weight, approximation: ((weight - approximation).norm() / weight.norm()) ** 2,),
            ),
            Mistake(
                "mean of elementwise ratios",
                "One tiny entry would rule the result. Sum the squares of all entries first, and divide once.",
                wrong=(
                    lambda weight, approximation: ((weight - approximation) / weight).abs().mean(),
                    lambda weight, approximation: ((weight - approximation) / weight).mean(),
                    lambda weight, approximation: ((weight - approximation) / weight).norm(),
                ),
            ),
            Mistake(
                "another norm",
                "Use the Frobenius norm, the root of the sum of squares: x.norm(), or linalg.norm(x) without `ord`.",
                wrong=(
                    lambda weight, approximation: torch.linalg.norm(weight - approximation, 2)
                    / torch.linalg.norm(weight, 2),
                    lambda weight, approximation: (weight - approximation).abs().sum() / weight.abs().sum(),
                ),
            ),
        ),
        hints=(
            "An error of 1 is much for a weight of size 2 and little for one of size 1,000. What should you divide by?",
            "Think of the matrix as one long vector. Its length is the root of the sum of its squares.",
            "The norm of (weight - approximation), divided by the norm of weight. `.item()` makes a number of it.",
        ),
        reward="You have a measure that reads as a percentage, and compares fits of matrices of any size.",
    ),
    Exercise(
        name="energy", page=1, title="How much do the first r directions hold?",
        spec=energy_spec, solution=energy, inputs=st.tuples(weights()), demo=(plaid(),), any_width=True,
        picture=lambda shares: shares,
        mistakes=(
            Mistake(
                "not squared",
                "Energy is the sum of squares, as in the error: square the singular values first.",
                wrong=(lambda weight: torch.linalg.svdvals(weight).cumsum(0) / torch.linalg.svdvals(weight).sum(),),
            ),
            Mistake(
                "not cumulative",
                "Entry r is the share of the first r + 1 directions together: add up from the start (cumsum).",
                wrong=(lambda weight: _squares(weight) / _squares(weight).sum(),),
            ),
            Mistake(
                "summed from the smallest",
                "Start with the largest singular value: svdvals hands them back in this order already.",
                wrong=(
                    lambda weight: _squares(weight).flip(0).cumsum(0) / _squares(weight).sum(),
                    lambda weight: _squares(weight).flip(0).cumsum(0).flip(0) / _squares(weight).sum(),
                ),
            ),
            Mistake(
                "what is missing instead of what is held",
                "This falls to 0: it is what the first r directions do not hold. Energy is the part that they do.",
                wrong=(
                    lambda weight: 1 - energy(weight), lambda weight: (1 - energy(weight)).clamp(min=0).sqrt(),
                ),
            ),
            Mistake(
                "summed before squaring",
                "Square each singular value first, and add up the squares: (1 + 1)² is not 1² + 1².",
                wrong=(
                    lambda weight: (torch.linalg.svdvals(weight).cumsum(0) / torch.linalg.svdvals(weight).sum()) ** 2,
                    lambda weight: _squares(weight).cumsum(0) / torch.linalg.svdvals(weight).sum() ** 2,
                ),
            ),
            Mistake(
                "divided by the largest",
                "The whole is the sum of all squares, not the largest of them.",
                wrong=(lambda weight: _squares(weight).cumsum(0) / _squares(weight)[0],),
            ),
            Mistake(
                "a percentage instead of a share",
                "The last entry is 1 here, not 100. Leave the factor to the code that prints it.",
                wrong=(lambda weight: 100 * energy(weight),),
            ),
            Mistake(
                "root taken",
                "Energy is a share of squares: no root at the end.",
                wrong=(lambda weight: energy(weight).sqrt(),),
            ),
            Mistake(
                "not a share",
                "Divide by the sum of all squares, so that the last entry is 1.",
                wrong=(lambda weight: _squares(weight).cumsum(0),),
            ),
        ),
        hints=(
            "The squares of all entries sum to the squares of all singular values. Which part do the first r hold?",
            "torch.linalg.svdvals gives the values, the largest first. You need squares, a running sum and the total.",
            "Square the values; .cumsum(0) is the running sum; divide it by .sum(), so that the curve ends at 1.",
        ),
        reward="You can now read off a curve how many directions a matrix really needs.",
    ),
)  # fmt: skip
