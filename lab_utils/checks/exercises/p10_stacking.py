"""Exercise of page 10: two adapters stacked to one."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake
from .p10_combining import two_adapters


def stack_two_spec(
    first_A: Tensor, first_B: Tensor, second_A: Tensor, second_B: Tensor, factors: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Row k of A and column k of B belong together: put down the first adapter's pairs, then the second's."""
    rows, columns = [], []
    for A, B, factor in ((first_A, first_B, factors[0]), (second_A, second_B, factors[1])):
        for k in range(len(A)):
            rows.append(A[k])
            columns.append(factor * B[:, k])
    return torch.stack(rows), torch.stack(columns, dim=1)


def stack_two(
    first_A: Tensor, first_B: Tensor, second_A: Tensor, second_B: Tensor, factors: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    lora_A = torch.cat([first_A, second_A])
    lora_B = torch.cat([factors[0] * first_B, factors[1] * second_B], dim=1)
    return lora_A, lora_B


def _stacked(in_A=lambda f: 1.0, in_B=lambda f: f, turned=False):
    """stack_two with other factors in A and in B, or with the Bs in the opposite order."""

    def wrong(A1, B1, A2, B2, factors):
        f1, f2 = factors
        Bs = [in_B(f1) * B1, in_B(f2) * B2]
        return torch.cat([in_A(f1) * A1, in_A(f2) * A2]), torch.cat(Bs[::-1] if turned else Bs, dim=1)

    return wrong


def _root(factor):
    return torch.tensor(factor).sqrt()


def _one(factor):
    return 1.0


@st.composite
def _to_stack(draw):
    *_, factors = draw(two_adapters())
    return *factors, draw(st.sampled_from([(2.0, 0.5), (0.7, 0.3), (2.0, -2.0), (1.5, 3.0)]))


_A1, _B1 = torch.tensor([[1.0, 2, 0]]), torch.tensor([[1.0], [-1]])
_A2, _B2 = torch.tensor([[1.0, 0, 0], [0, 0, 1]]), torch.tensor([[0.0, 1], [2, 0]])

EXERCISES = (
    Exercise(
        name="stack_two", page=10, title="Two adapters as one",
        spec=stack_two_spec, solution=stack_two, inputs=_to_stack(), demo=(_A1, _B1, _A2, _B2, (2.0, 0.5)),
        view=lambda factors: factors[1] @ factors[0], picture=lambda factors: factors[1] @ factors[0],
        mistakes=(
            Mistake(
                "As and Bs added",
                "Sums keep the rank and mix the adapters: B1·A2 and B2·A1 appear. Put them beside each other instead.",
                wrong=(
                    lambda A1, B1, A2, B2, f: (A1 + A2, f[0] * B1 + f[1] * B2),
                    lambda A1, B1, A2, B2, f: (f[0] * A1 + f[1] * A2, B1 + B2),
                    lambda A1, B1, A2, B2, f: (f[0] * A1 + f[1] * A2, f[0] * B1 + f[1] * B2),
                    lambda A1, B1, A2, B2, f: (A1 + A2, B1 + B2),
                ),
            ),
            Mistake(
                "the factor in A and in B",
                "B·A then holds its square. Multiply one of the two by it.",
                wrong=(_stacked(in_A=lambda f: f),),
            ),
            Mistake(
                "the factors swapped",
                "factors[0] is the first adapter's.",
                wrong=(
                    lambda A1, B1, A2, B2, f: stack_two(A1, B1, A2, B2, f[::-1]),
                    lambda A1, B1, A2, B2, f: (torch.cat([f[1] * A1, f[0] * A2]), torch.cat([B1, B2], dim=1)),
                ),
            ),
            Mistake(
                "the sign of a factor lost",
                "√|factor| in A and in B multiplies to |factor|, which is another update where the factor is negative.",
                wrong=(
                    _stacked(lambda f: abs(f) ** 0.5, lambda f: abs(f) ** 0.5), _stacked(in_B=abs),
                    _stacked(abs, _one),
                ),
            ),
            Mistake(
                "√ of a negative factor",
                "Sharing a factor between A and B fails when it is negative. Put all of it into one of them.",
                wrong=(_stacked(_root, _root),),
            ),
            Mistake(
                "the factors forgotten",
                "Multiply each adapter's B, or its A, by its factor.",
                wrong=(_stacked(in_B=_one),),
            ),
            Mistake(
                "another order in B than in A",
                "Column k of B belongs to row k of A: put the adapters in the same order in both.",
                wrong=(
                    _stacked(turned=True), _stacked(lambda f: f, _one, turned=True),
                    lambda A1, B1, A2, B2, f: (torch.cat([A2, A1]), torch.cat([f[0] * B1, f[1] * B2], dim=1)),
                ),
            ),
            Mistake(
                "divided by the factor",
                "The factor multiplies an update: what A or B is divided by comes out as 1 / factor in B·A.",
                wrong=(_stacked(in_B=lambda f: 1 / f), _stacked(lambda f: 1 / f, _one)),
            ),
            Mistake(
                "one factor for both",
                "factors[1] belongs to the second adapter.",
                wrong=(
                    lambda A1, B1, A2, B2, f: stack_two(A1, B1, A2, B2, (f[0], f[0])),
                    lambda A1, B1, A2, B2, f: stack_two(A1, B1, A2, B2, (f[1], f[1])),
                ),
            ),
            Mistake(
                "two blocks on a diagonal",
                "Both adapters sit on one layer, and share its inputs and outputs: A keeps `in` columns, B `out` rows.",
                wrong=(
                    lambda A1, B1, A2, B2, f: (
                        torch.block_diag(A1, A2), torch.block_diag(f[0] * B1, f[1] * B2),
                    ),
                ),
            ),
            Mistake(
                "updates instead of factors",
                "These are matrices of the weight's size. Hand back one A and one B, whose product is the sum.",
                wrong=(lambda A1, B1, A2, B2, f: (f[0] * B1 @ A1, f[1] * B2 @ A2),),
            ),
            Mistake(
                "put together along the wrong axis",
                "The new rank is the sum of both. It is counted along A's rows and along B's columns.",
                wrong=(
                    lambda A1, B1, A2, B2, f: (torch.cat([A1, A2]), torch.cat([f[0] * B1, f[1] * B2])),
                    lambda A1, B1, A2, B2, f: (torch.cat([A1, A2], dim=1), torch.cat([f[0] * B1, f[1] * B2])),
                    lambda A1, B1, A2, B2, f: (torch.cat([A1, A2], dim=1), torch.cat([f[0] * B1, f[1] * B2], dim=1)),
                ),
            ),
            Mistake(
                "B and A in the wrong order",
                "Hand back (A, B).",
                wrong=(lambda *inputs: stack_two(*inputs)[::-1],),
            ),
        ),
        hints=(
            "B·A is a sum over k of column k of B times row k of A. How do you write down a longer sum of this kind?",
            "Put the rows of both As below each other, and the columns of both Bs side by side. Where do factors go?",
            "torch.cat of the As along dim 0; torch.cat of the Bs, each times its factor, along dim 1.",
        ),
        reward="Exact, for adapters of any ranks; the ranks add up. peft calls this combination_type='cat'.",
    ),
)  # fmt: skip
