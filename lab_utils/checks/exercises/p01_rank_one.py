"""Exercises of page 01: outer products, and best fits of low rank."""

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


@st.composite
def _vectors(draw):
    make = tensor_maker(draw)
    rows = draw(SIZE)
    return make(rows), make(rows if draw(st.booleans()) else draw(SIZE))


@st.composite
def _weight_and_rank(draw):
    weight = draw(weights())
    return weight, draw(st.integers(1, min(weight.shape)))


def plaid() -> Tensor:
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
            Mistake(
                "sum instead of product",
                "The pairs are right. Multiply the two numbers of each pair; you added them.",
                wrong=(lambda column, row: column[:, None] + row[None, :],),
            ),
            Mistake(
                "one long vector",
                "The products are right. They belong in rows and columns: one row per number of the column.",
                wrong=(lambda column, row: torch.outer(column, row).flatten(),),
            ),
            Mistake(
                "one of the two repeated",
                "You filled the matrix with copies of one vector. Each entry is a product of one number from each.",
                wrong=(
                    lambda column, row: column[:, None].expand(-1, len(row)).clone(),
                    lambda column, row: row[None, :].expand(len(column), -1).clone(),
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
        spec=best_rank_r_spec, solution=best_rank_r, inputs=_weight_and_rank(), demo=(plaid(), 2),
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
                "half of each singular value missing",
                "The root of S in one factor alone is not enough. Put S into one of them, or its root into both.",
                wrong=(
                    _cut(left=lambda U, S, Vh, r: U[:, :r] * S[:r].sqrt()),
                    _cut(left=lambda U, S, Vh, r: U[:, :r], right=lambda U, S, Vh, r: S[:r, None].sqrt() * Vh[:r]),
                ),
            ),
            Mistake(
                "singular values used twice",
                "You multiplied both B and A by S. Multiply one of them, or each by the square root.",
                wrong=(_cut(right=lambda U, S, Vh, r: S[:r, None] * Vh[:r]),),
            ),
            Mistake(
                "the rank not used",
                "You kept every direction, so B · A is the weight itself. Keep the first `rank` of them.",
                wrong=(_cut(left=lambda U, S, Vh, r: U * S, right=lambda U, S, Vh, r: Vh),),
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
                "the fit of the transposed weight",
                "B · A is the right fit with rows and columns exchanged. B has the weight's rows, A its columns.",
                wrong=(
                    _cut(left=lambda U, S, Vh, r: Vh[:r].T, right=lambda U, S, Vh, r: (U[:, :r] * S[:r]).T),
                    _cut(left=lambda U, S, Vh, r: Vh[:r].T * S[:r], right=lambda U, S, Vh, r: U[:, :r].T),
                ),
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
)  # fmt: skip
