"""Exercises of page 10: several adapters on one base, added up, or stacked."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import ALPHA, Exercise, Mistake, sides, tensor_maker


def merge_two_spec(
    weight: Tensor,
    first_A: Tensor,
    first_B: Tensor,
    second_A: Tensor,
    second_B: Tensor,
    alpha: float,
    shares: tuple[float, float],
) -> Tensor:
    """To a copy of the weight, add each adapter's own update, times its share."""
    (out_features, in_features), merged = weight.shape, weight.clone()
    for A, B, share in ((first_A, first_B, shares[0]), (second_A, second_B, shares[1])):
        rank = len(A)
        for o in range(out_features):
            for i in range(in_features):
                update = sum(B[o, k] * A[k, i] for k in range(rank))
                merged[o, i] += share * alpha / rank * update
    return merged


def merge_two(
    weight: Tensor,
    first_A: Tensor,
    first_B: Tensor,
    second_A: Tensor,
    second_B: Tensor,
    alpha: float,
    shares: tuple[float, float],
) -> Tensor:
    first = alpha / len(first_A) * (first_B @ first_A)
    second = alpha / len(second_A) * (second_B @ second_A)
    return weight + shares[0] * first + shares[1] * second


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


def _merged(first, second, base=1.0):
    """merge_two with other factors before the two products, from (alpha, rank, other rank, share, other share)."""

    def wrong(weight, A1, B1, A2, B2, alpha, shares):
        r1, r2, (s1, s2) = len(A1), len(A2), shares
        amount = base(s1, s2) if callable(base) else base
        return amount * weight + first(alpha, r1, r2, s1, s2) * (B1 @ A1) + second(alpha, r2, r1, s2, s1) * (B2 @ A2)

    return wrong


def _both(factor, base=1.0):
    return _merged(factor, factor, base)


def _plain(alpha, rank, other_rank, share, other_share):
    return share * alpha / rank


def _added_factors(in_A=lambda share: share):
    """merge_two by B1 + B2 and A1 + A2, shares in both or in one; the As added first, or the Bs, as errors tell."""

    def sum_of_A(A1, A2, shares):
        return in_A(shares[0]) * A1 + in_A(shares[1]) * A2

    def sum_of_B(B1, B2, shares):
        return shares[0] * B1 + shares[1] * B2

    def A_first(weight, A1, B1, A2, B2, alpha, shares):
        A = sum_of_A(A1, A2, shares)
        return weight + alpha / len(A1) * (sum_of_B(B1, B2, shares) @ A)

    def B_first(weight, A1, B1, A2, B2, alpha, shares):
        return weight + alpha / len(A1) * (sum_of_B(B1, B2, shares) @ sum_of_A(A1, A2, shares))

    return A_first, B_first


def _with_products(product, scaling=lambda alpha, A, B: alpha / len(A)):
    """merge_two with another product of A and B, or another scaling."""

    def wrong(weight, A1, B1, A2, B2, alpha, shares):
        first, second = (scaling(alpha, A, B) * product(A, B) for A, B in ((A1, B1), (A2, B2)))
        return weight + shares[0] * first + shares[1] * second

    return wrong


def _update(A, B):
    return B @ A


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
def two_adapters(draw):
    """(make, (out, in), (A1, B1, A2, B2)): two adapters for one layer, about half of them of equal rank."""
    out_features, in_features = draw(sides())
    make, rank = tensor_maker(draw), draw(st.integers(1, 3))
    other = rank if draw(st.booleans()) else draw(st.integers(1, 3))
    factors = make(rank, in_features), make(out_features, rank), make(other, in_features), make(out_features, other)
    return make, (out_features, in_features), factors


@st.composite
def _to_merge(draw):
    make, shape, factors = draw(two_adapters())
    shares = draw(st.sampled_from([(1.0, 0.5), (0.7, 0.3), (0.5, -0.25), (1.5, 1.0), (2.0, -1.0)]))
    return make(*shape), *factors, draw(ALPHA), shares


@st.composite
def _to_stack(draw):
    *_, factors = draw(two_adapters())
    return *factors, draw(st.sampled_from([(2.0, 0.5), (0.7, 0.3), (2.0, -2.0), (1.5, 3.0)]))


_W = torch.tensor([[1.0, 0, 2], [0, 1, 0]])
_A1, _B1 = torch.tensor([[1.0, 2, 0]]), torch.tensor([[1.0], [-1]])
_A2, _B2 = torch.tensor([[1.0, 0, 0], [0, 0, 1]]), torch.tensor([[0.0, 1], [2, 0]])

EXERCISES = (
    Exercise(
        name="merge_two", page=10, title="Two adapters in one weight",
        spec=merge_two_spec, solution=merge_two, inputs=_to_merge(), demo=(_W, _A1, _B1, _A2, _B2, 4, (0.5, 1.5)),
        picture=lambda merged: merged,
        mistakes=(
            Mistake(
                "As and Bs added",
                "(B1 + B2)·(A1 + A2) holds B1·A2 and B2·A1 besides, in which the two adapters mix. Multiply first: "
                "what adds up are the updates.",
                wrong=(*_added_factors(), *_added_factors(in_A=_one)),
            ),
            Mistake(
                "one rank for both",
                "Each adapter has its own rank, so alpha / rank may differ: use len(first_A) and len(second_A).",
                wrong=(
                    _merged(_plain, lambda alpha, r, other, s, _: s * alpha / other),
                    _merged(lambda alpha, r, other, s, _: s * alpha / other, _plain),
                    _both(lambda alpha, r, other, s, _: s * alpha / (r + other)),
                ),
            ),
            Mistake(
                "A·B instead of B·A",
                "A is (rank, in) and B is (out, rank): the update is B @ A, of the weight's shape (out, in).",
                wrong=(_with_products(lambda A, B: A @ B), _with_products(lambda A, B: A.T @ B.T)),
            ),
            Mistake(
                "the layer's size taken for the rank",
                "The rank is the side that A and B share: A.shape[0], which is B.shape[1].",
                wrong=(
                    _with_products(_update, lambda alpha, A, B: alpha / B.shape[0]),
                    _with_products(_update, lambda alpha, A, B: alpha / A.shape[1]),
                ),
            ),
            Mistake(
                "alpha / √rank",
                "That is rsLoRA's scaling. These adapters were trained with alpha / rank.",
                wrong=(_both(lambda alpha, r, other, s, _: s * alpha / r**0.5),),
            ),
            Mistake(
                "raw alpha instead of alpha / rank",
                "Divide alpha by the adapter's rank, as in the forward pass.",
                wrong=(_both(lambda alpha, r, other, s, _: s * alpha),),
            ),
            Mistake(
                "the scaling left out",
                "A share tells how much of an adapter is used; alpha / rank still belongs to it.",
                wrong=(_both(lambda alpha, r, other, s, _: s),),
            ),
            Mistake(
                "the shares left out",
                "Multiply each update by its own share.",
                wrong=(
                    _both(lambda alpha, r, other, s, _: alpha / r), _both(lambda alpha, r, other, s, _: alpha / r / 2),
                ),
            ),
            Mistake(
                "the shares made to add up to 1",
                "Use the shares as they are. They may add up to anything; a negative one takes an adapter away.",
                wrong=(_both(lambda alpha, r, other, s, t: s / (s + t) * alpha / r),),
            ),
            Mistake(
                "the shares swapped",
                "shares[0] is the first adapter's.",
                wrong=(_both(lambda alpha, r, other, s, t: t * alpha / r),),
            ),
            Mistake(
                "the base added more than once, or scaled",
                "The weight is there once, whatever the shares are. Only the updates are multiplied by them.",
                wrong=(_both(_plain, 2.0), _both(_plain, lambda s, t: s + t), _both(_plain, lambda s, t: s * t)),
            ),
            Mistake(
                "the base forgotten",
                "These are the two updates. Add them to weight.",
                wrong=(_both(_plain, 0.0),),
            ),
            Mistake(
                "one adapter only",
                "Both updates are added to the one weight.",
                wrong=(_merged(_plain, lambda *_: 0.0), _merged(lambda *_: 0.0, _plain)),
            ),
        ),
        hints=(
            "What is the full-size update of one adapter? And what may be added to a weight of (out, in)?",
            "For each adapter: its share, times alpha over its own rank, times its B·A. Add both to the weight.",
            "weight + shares[0] * alpha / len(first_A) * first_B @ first_A, and the same for the second.",
        ),
        reward="Updates add up, factors do not. A negative share takes away what was learned.",
    ),
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
                wrong=(_stacked(turned=True), _stacked(lambda f: f, _one, turned=True)),
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
