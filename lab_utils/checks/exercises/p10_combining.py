"""Exercise of page 10: two adapters of one base added up in one weight."""

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
                "(B1 + B2)·(A1 + A2) also holds B1·A2 and B2·A1, in which the two adapters mix. Multiply first: "
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
                "the mean instead of the sum",
                "The shares say how much of each is added; nothing is divided by the number of adapters.",
                wrong=(_both(lambda alpha, r, other, s, _: s * alpha / r / 2),),
            ),
            Mistake(
                "the sign of a share lost",
                "√|share| in A and in B multiplies to |share|, which adds where a negative share takes away.",
                wrong=(_both(lambda alpha, r, other, s, _: abs(s) * alpha / r),),
            ),
            Mistake(
                "rank / alpha",
                "The other way round: an update is multiplied by alpha and divided by its rank.",
                wrong=(_both(lambda alpha, r, other, s, _: s * r / alpha),),
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
)  # fmt: skip
