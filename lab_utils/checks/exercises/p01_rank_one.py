"""Exercises of page 01: outer products, best fits of low rank, and how good they are."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import SIZE, Exercise, Mistake, tensor_maker, weights


def outer_product_spec(column: Tensor, row: Tensor) -> Tensor:
    """Every entry of the column times every entry of the row."""
    matrix = torch.zeros(len(column), len(row), dtype=column.dtype)
    for i in range(len(column)):
        for j in range(len(row)):
            matrix[i, j] = column[i] * row[j]
    return matrix


def outer_product(column: Tensor, row: Tensor) -> Tensor:
    return column[:, None] * row[None, :]


def best_rank_r_spec(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`rank` times: find the best column times row by turns, and take it off what is left."""
    rest, columns, rows = weight.double(), [], []
    for _ in range(rank):
        row = rest[rest.norm(dim=1).argmax()]
        for _ in range(200):
            column = rest @ row / (row @ row)  # the best column for this row
            row = rest.T @ column / (column @ column)  # the best row for that column
        rest = rest - column[:, None] * row[None, :]
        columns.append(column)
        rows.append(row)
    return torch.stack(columns, dim=1).to(weight.dtype), torch.stack(rows).to(weight.dtype)


def best_rank_r(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    B = U[:, :rank] * S[:rank]
    A = Vh[:rank]
    return B, A


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


def _cut(reverse: bool = False, extra: int = 0, left=None, right=None):
    """A wrong best_rank_r: other directions (`reverse`, `extra`), or other factors from (U, S, Vh, rank)."""

    def wrong(weight, rank):
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        if reverse:
            U, S, Vh = U.flip(1), S.flip(0), Vh.flip(0)
        rank = rank + extra
        B = (left or (lambda U, S, Vh, r: U[:, :r] * S[:r]))(U, S, Vh, rank)
        A = (right or (lambda U, S, Vh, r: Vh[:r]))(U, S, Vh, rank)
        return B, A

    return wrong


def _full_v(weight, rank):
    U, S, Vh = torch.linalg.svd(weight)
    return U[:, :rank] * S[:rank], Vh[:, :rank].T


def _squares(weight):
    return torch.linalg.svdvals(weight) ** 2


@st.composite
def _vectors(draw):
    make = tensor_maker(draw)
    rows = draw(SIZE)
    return make(rows), make(rows if draw(st.booleans()) else draw(SIZE))


@st.composite
def _weight_and_rank(draw):
    weight = draw(weights())
    return weight, draw(st.integers(1, min(weight.shape)))


@st.composite
def _two_matrices(draw):
    make, shape = tensor_maker(draw), (draw(SIZE), draw(SIZE))
    return make(*shape), make(*shape)


def _plaid() -> Tensor:
    """A smooth 8 × 8 pattern that no rank-2 matrix equals."""
    i, j = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    return ((2 * torch.sin(i / 2) * torch.cos(j / 3) + torch.cos(i) + (i == j)) * 10).round() / 10


EXERCISES = (
    Exercise(
        name="outer_product", page=1, title="A column times a row",
        spec=outer_product_spec, solution=outer_product, inputs=_vectors(), picture=lambda matrix: matrix,
        demo=(torch.tensor([1.0, 2, 0, -1, 3]), torch.tensor([2.0, -1, 1, 0, 1])),
        mistakes=(
            Mistake(
                "column and row swapped",
                "The entry in row i and column j is column[i] · row[j]: the column's length is the number of rows.",
                wrong=(lambda column, row: torch.outer(row, column),),
            ),
            Mistake(
                "elementwise product",
                "Two plain vectors multiply entry by entry. Give the column a second axis, and the row a first one.",
                wrong=(lambda column, row: column * row, lambda column, row: row * column),
            ),
            Mistake(
                "inner product",
                "You summed the products to one number. Here nothing is summed: every pair gets its own place.",
                wrong=(
                    lambda column, row: column @ row, lambda column, row: row @ column,
                    lambda column, row: (column * row).sum(), lambda column, row: (row * column).sum(),
                    lambda column, row: row[None, :] @ column[:, None], lambda column, row: torch.dot(column, row),
                    lambda column, row: torch.dot(row, column), lambda column, row: row[None, :] @ column,
                ),
            ),
        ),
        hints=(
            "If each of 5 entries meets each of 5 others, how many products are there? Where does pair (i, j) go?",
            "Give the column a second axis of size 1, and the row a first one. Then let broadcasting fill the matrix.",
            "column[:, None] has the shape (m, 1) and row[None, :] has (1, n). What does their product with * have?",
        ),
        reward="A column of m and a row of n numbers now make a matrix of m·n: you have built a rank-1 matrix.",
    ),
    Exercise(
        name="best_rank_r", page=1, title="The best fit of rank r",
        spec=best_rank_r_spec, solution=best_rank_r, inputs=_weight_and_rank(), demo=(_plaid(), 2),
        view=lambda factors: factors[0] @ factors[1], picture=lambda factors: factors[0] @ factors[1],
        mistakes=(
            Mistake(
                "the smallest singular values kept",
                "torch.linalg.svd sorts from large to small: the first ones matter most. Take [:rank], not [-rank:].",
                wrong=(_cut(reverse=True),),
            ),
            Mistake(
                "A and B in the wrong order",
                "Hand back (B, A): first (rows, rank), then (rank, columns), so that the first times the second fits.",
                when=lambda inputs, results: results[0][0].shape == (inputs[1], inputs[0].shape[1])
                and results[0][1].shape == (inputs[0].shape[0], inputs[1]),
            ),
            Mistake(
                "singular values left out",
                "The columns of U and the rows of Vᵀ have length 1. The values in S say how much of each to take.",
                wrong=(_cut(left=lambda U, S, Vh, r: U[:, :r]),),
            ),
            Mistake(
                "singular values used twice",
                "You multiplied both B and A by S. Multiply one of them, or each by the square root.",
                wrong=(_cut(right=lambda U, S, Vh, r: S[:r, None] * Vh[:r]),),
            ),
            Mistake(
                "one direction too many",
                "[:rank] takes exactly `rank` of them; the end of a slice is not part of it.",
                wrong=(_cut(extra=1),),
            ),
            Mistake(
                "one direction too few",
                "[:rank] takes exactly `rank` of them; the end of a slice is not part of it already.",
                wrong=(_cut(extra=-1),),
            ),
            Mistake(
                "V used where Vᵀ is needed",
                "torch.linalg.svd hands back Vᵀ (Vh), not V: its rows are the directions. Take rows, as they are.",
                wrong=(
                    _full_v, _cut(right=lambda U, S, Vh, r: Vh[:, :r].T), _cut(right=lambda U, S, Vh, r: Vh[:, :r]),
                ),
            ),
            Mistake(
                "rows of U taken instead of columns",
                "The directions are the columns of U: U[:, :rank].",
                wrong=(_cut(left=lambda U, S, Vh, r: U[:r] * S), _cut(left=lambda U, S, Vh, r: U[:r].T * S[:r])),
            ),
        ),
        hints=(
            "The singular value decomposition cuts a matrix into rank-1 pieces and sorts them, the heaviest first.",
            "weight = U · diag(S) · Vᵀ. Keep the first `rank` columns of U, entries of S, rows of Vᵀ. Where does S go?",
            "With U, S, Vh = torch.linalg.svd(weight, full_matrices=False): scale the kept columns of U by the kept S "
            "(broadcasting does it), and keep as many rows of Vh.",
        ),
        reward="You can now shrink any matrix to rank r, and no other B·A of that rank comes closer (Eckart–Young).",
    ),
    Exercise(
        name="relative_error", page=1, title="How far off is a fit?",
        spec=relative_error_spec, solution=relative_error, inputs=_two_matrices(),
        demo=(torch.tensor([[3.0, 1], [1, 4]]), torch.tensor([[3.0, 1], [1, 2]])),
        mistakes=(
            Mistake(
                "absolute error",
                "You measured the length of the difference. Divide by the length of the weight: 0.1 is then 10 %.",
                wrong=(lambda weight, approximation: (weight - approximation).norm(),),
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
        spec=energy_spec, solution=energy, inputs=st.tuples(weights()), demo=(_plaid(),), any_width=True,
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
