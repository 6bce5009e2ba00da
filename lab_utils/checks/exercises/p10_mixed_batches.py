"""Exercise of page 10: one batch for several adapters."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake
from .p10_combining import two_adapters


def mixed_batch_spec(
    x: Tensor, weight: Tensor, first_A: Tensor, first_B: Tensor, second_A: Tensor, second_B: Tensor, which: Tensor
) -> Tensor:
    """Each row by itself: the base, and what its own adapter adds, if it has one."""
    rows = []
    for n in range(len(x)):
        y = weight @ x[n]
        if which[n] == 1:
            y = y + first_B @ (first_A @ x[n])
        elif which[n] == 2:
            y = y + second_B @ (second_A @ x[n])
        rows.append(y)
    return torch.stack(rows)


def mixed_batch(
    x: Tensor, weight: Tensor, first_A: Tensor, first_B: Tensor, second_A: Tensor, second_B: Tensor, which: Tensor
) -> Tensor:
    y = x @ weight.T  # once for all rows
    for number, A, B in ((1, first_A, first_B), (2, second_A, second_B)):
        rows = which == number
        y[rows] += x[rows] @ A.T @ B.T
    return y


def _served(first=lambda which: which == 1, second=lambda which: which == 2, base=True):
    """mixed_batch with other rows for the two adapters."""

    def wrong(x, weight, A1, B1, A2, B2, which):
        y = x @ weight.T if base else torch.zeros(len(x), len(weight), dtype=x.dtype)
        return y + first(which)[:, None] * (x @ A1.T @ B1.T) + second(which)[:, None] * (x @ A2.T @ B2.T)

    return wrong


def _every(which):
    return which >= 0


def _none(which):
    return which < 0


def _grouped(x, weight, A1, B1, A2, B2, which):
    """Rows in the order of their adapters."""
    order = which.argsort(stable=True)
    return mixed_batch(x[order], weight, A1, B1, A2, B2, which[order])


def _only_adapter(x, weight, A1, B1, A2, B2, which):
    y = torch.where((which == 1)[:, None], x @ A1.T @ B1.T, x @ weight.T)
    return torch.where((which == 2)[:, None], x @ A2.T @ B2.T, y)


@st.composite
def _batch(draw):
    make, (out_features, in_features), factors = draw(two_adapters())
    which = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=1, max_size=5)))
    return make(len(which), in_features), make(out_features, in_features), *factors, which


_X, _W = torch.tensor([[1.0, 2], [2, -1], [0, 3]]), torch.tensor([[1.0, 0], [2, 1]])
_FACTORS = torch.tensor([[1.0, 1]]), torch.tensor([[2.0], [-1]]), torch.tensor([[0.0, 2]]), torch.tensor([[1.0], [3]])

EXERCISES = (
    Exercise(
        name="mixed_batch", page=10, title="A different adapter for each row",
        spec=mixed_batch_spec, solution=mixed_batch, inputs=_batch(), demo=(_X, _W, *_FACTORS, torch.tensor([1, 0, 2])),
        picture=lambda y: y,
        mistakes=(
            Mistake(
                "both adapters for every row",
                "A row gets what `which` says: nothing, the first, or the second.",
                wrong=(_served(_every, _every),),
            ),
            Mistake(
                "one adapter for all",
                "Customers share the batch, not the adapter: pick the rows where which == 1, and those where it is 2.",
                wrong=(
                    _served(_every, _none), _served(_none, _every),
                    _served(lambda which: (which[0] == 1).expand(len(which)), lambda w: (w[0] == 2).expand(len(w))),
                ),
            ),
            Mistake(
                "counted from 0",
                "0 is the base alone. The first adapter has number 1.",
                wrong=(_served(lambda which: which == 0, lambda which: which == 1),),
            ),
            Mistake(
                "an adapter for the rows that want the base",
                "Rows with 0 get the base alone. Not every row that is not the first adapter's is the second's.",
                wrong=(_served(second=lambda which: which != 1), _served(first=lambda which: which != 2)),
            ),
            Mistake(
                "the two adapters swapped",
                "1 is the first adapter, 2 the second.",
                wrong=(_served(lambda which: which == 2, lambda which: which == 1),),
            ),
            Mistake(
                "the base forgotten where there is an adapter",
                "An adapter adds to the base; it does not take its place.",
                wrong=(_only_adapter, _served(base=False)),
            ),
            Mistake(
                "the number of the adapter as a factor",
                "2 means the second adapter, not twice an adapter.",
                wrong=(_served(second=lambda which: 2 * (which == 2)), _served(lambda which: which, _none)),
            ),
            Mistake(
                "the first adapter for the second's rows too",
                "`which >= 1` is true for 2 as well: compare with ==.",
                wrong=(_served(lambda which: which >= 1), _served(lambda which: which >= 1, _none)),
            ),
            Mistake(
                "rows in another order",
                "Put the rows together again in the order in which they came: write into y[rows].",
                wrong=(_grouped,),
            ),
            Mistake("no adapter at all", "Add what each row's adapter makes of it.", wrong=(_served(_none, _none),)),
        ),
        hints=(
            "Which part of the work is the same for all rows? Which rows of x need A1 and B1?",
            "The base, for all rows at once. Then pick each adapter's rows by a mask, and add to these rows only.",
            "y = x @ weight.T; rows = which == 1; add x[rows] @ first_A.T @ first_B.T to y[rows]; the same for 2.",
        ),
        reward="The large weight is used once for everybody. So one server answers for many adapters.",
    ),
)  # fmt: skip
