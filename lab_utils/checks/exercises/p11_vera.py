"""Exercises of page 11: what a VeRA layer computes, and how little it trains."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import SIZE, Exercise, Mistake, sides, tensor_maker


def vera_forward_spec(x: Tensor, weight: Tensor, shared_A: Tensor, shared_B: Tensor, d: Tensor, b: Tensor) -> Tensor:
    """Beside the base: x through A, number k times d[k], through B, number o times b[o]."""
    (out_features, rank), y = shared_B.shape, torch.zeros(len(x), len(weight), dtype=x.dtype)
    for n in range(len(x)):
        inside = [d[k] * (shared_A[k] * x[n]).sum() for k in range(rank)]
        for o in range(out_features):
            y[n, o] = (weight[o] * x[n]).sum() + b[o] * sum(shared_B[o, k] * inside[k] for k in range(rank))
    return y


def vera_forward(x: Tensor, weight: Tensor, shared_A: Tensor, shared_B: Tensor, d: Tensor, b: Tensor) -> Tensor:
    inside = x @ shared_A.T * d
    return x @ weight.T + inside @ shared_B.T * b


def vera_parameters_spec(shapes: dict[str, tuple[int, int]], n_layers: int, rank: int) -> int:
    """Each matrix of each layer has its own d, with `rank` numbers, and its own b, with `out`. A and B are frozen."""
    count = 0
    for _layer in range(n_layers):
        for out_features, _in_features in shapes.values():
            count += rank
            count += out_features
    return count


def vera_parameters(shapes: dict[str, tuple[int, int]], n_layers: int, rank: int) -> int:
    return n_layers * sum(rank + out_features for out_features, _ in shapes.values())


def _vera(inside=lambda h, d, b: h * d, outside=lambda y, d, b: y * b, base=lambda y: y):
    """vera_forward with other factors inside and outside, or another base."""
    return lambda x, W, A, B, d, b: base(x @ W.T) + outside(inside(x @ A.T, d, b) @ B.T, d, b)


def _as_it_is(numbers, d, b):
    return numbers


def _vera_whole(x, W, A, B, d, b):
    return (x @ W.T + x @ A.T * d @ B.T) * b


def _counts(each, layers=lambda n: n, more=lambda shapes, r: 0):
    """vera_parameters with another count of a matrix, or of layers, and something else."""
    return lambda shapes, n_layers, rank: (
        layers(n_layers) * sum(each(*shape, rank) for shape in shapes.values()) + more(shapes, rank)
    )


def _shared(shapes, rank):
    return rank * (max(o for o, _ in shapes.values()) + max(i for _, i in shapes.values()))


@st.composite
def _vera_layer(draw):
    out_features, in_features = draw(sides())
    make, rank = tensor_maker(draw), draw(st.integers(1, 5))
    return (
        make(draw(SIZE), in_features), make(out_features, in_features), make(rank, in_features),
        make(out_features, rank), make(rank) / 4, make(out_features),
    )  # fmt: skip


_SHAPES = st.dictionaries(
    st.sampled_from(["q_proj", "v_proj", "up_proj", "down_proj"]), st.tuples(st.integers(1, 9), st.integers(1, 9)),
    min_size=1,
)  # fmt: skip
_DEMO = tensor_maker(lambda _: 6, torch.float32)
_X, _W, _A, _B = _DEMO(4, 6), _DEMO(5, 6), _DEMO(3, 6), _DEMO(5, 3)

EXERCISES = (
    Exercise(
        name="vera_forward", page=11, title="VeRA: shared matrices, small vectors",
        spec=vera_forward_spec, solution=vera_forward, inputs=_vera_layer(), picture=lambda y: y,
        demo=(_X, _W, _A, _B, _DEMO(3) / 4, _DEMO(5)),
        mistakes=(
            Mistake(
                "d and b swapped",
                "d has `rank` numbers and acts between A and B; b has `out` numbers and acts at the end.",
                wrong=(_vera(lambda h, d, b: h * b, lambda y, d, b: y * d),),
            ),
            Mistake("d forgotten", "What comes out of A is multiplied by d.", wrong=(_vera(_as_it_is),)),
            Mistake("b forgotten", "What comes out of B is multiplied by b.", wrong=(_vera(outside=_as_it_is),)),
            Mistake(
                "neither d nor b",
                "Without d and b nothing here is trained.",
                wrong=(_vera(_as_it_is, _as_it_is),),
            ),
            Mistake(
                "the base scaled too",
                "b belongs to the update. The base goes on as it was.",
                wrong=(_vera_whole,),
            ),
            Mistake("base forgotten", "Add x·Wᵀ.", wrong=(_vera(base=lambda y: 0 * y),)),
            Mistake(
                "added instead of multiplied",
                "d and b are diagonals: they multiply, number by number.",
                wrong=(
                    _vera(lambda h, d, b: h + d, lambda y, d, b: y + b), _vera(lambda h, d, b: h + d),
                    _vera(outside=lambda y, d, b: y + b),
                ),
            ),
            Mistake(
                "d and b along the wrong axis",
                "x lies in rows, so d and b multiply columns: (batch, rank) times (rank,) fits as it is.",
                wrong=(
                    _vera(lambda h, d, b: h * d[:, None], lambda y, d, b: y * b[:, None]),
                    _vera(outside=lambda y, d, b: y * b[:, None]), _vera(lambda h, d, b: h * d[:, None]),
                ),
            ),
            Mistake(
                "wrong axis: a transpose is missing",
                "shared_A is (rank, in), shared_B (out, rank), weight (out, in), and x lies in rows.",
                wrong=(
                    lambda x, W, A, B, d, b: x @ W.T + x @ A * d @ B * b,
                    lambda x, W, A, B, d, b: x @ W + x @ A * d @ B * b,
                    lambda x, W, A, B, d, b: x @ W.T + x @ A.T * d @ B * b,
                ),
            ),
        ),
        hints=(
            "Follow the shapes: x is (batch, in). After A it is (batch, rank). Which vector fits there?",
            "It is the adapter you know, with a factor for each number after A, and one for each number after B.",
            "x @ shared_A.T, times d, @ shared_B.T, times b; and x @ weight.T too.",
        ),
        reward="A and B stay random and are the same for all layers: only d and b are trained, and stored.",
    ),
    Exercise(
        name="vera_parameters", page=11, title="How few parameters does VeRA train?",
        spec=vera_parameters_spec, solution=vera_parameters,
        demo=({"q_proj": (576, 576), "v_proj": (192, 576)}, 30, 256),
        inputs=st.tuples(_SHAPES, st.integers(1, 5), st.integers(1, 9)),
        mistakes=(
            Mistake(
                "LoRA's count",
                "A and B are random, frozen and shared: they are not trained. Each matrix trains rank + out numbers.",
                wrong=(_counts(lambda o, i, r: r * (o + i)),),
            ),
            Mistake(
                "the shared matrices counted",
                "They are not trained, and a seed is enough to make them again.",
                wrong=(_counts(lambda o, i, r: r + o, more=_shared),),
            ),
            Mistake(
                "in instead of out",
                "b comes after B, where there are `out` numbers.",
                wrong=(_counts(lambda o, i, r: r + i), _counts(lambda o, i, r: r + o + i)),
            ),
            Mistake(
                "rank · out",
                "d and b are two vectors, not a matrix: rank + out.",
                wrong=(_counts(lambda o, i, r: r * o), _counts(lambda o, i, r: r * (o + 1))),
            ),
            Mistake(
                "one of the two vectors",
                "d has `rank` numbers, and b has `out`.",
                wrong=(_counts(lambda o, i, r: o), _counts(lambda o, i, r: r)),
            ),
            Mistake(
                "one d per layer",
                "A is shared, and d is not: every matrix of every layer has its own d and b.",
                wrong=(
                    lambda shapes, n_layers, rank: n_layers * (rank + sum(o for o, _ in shapes.values())),
                    lambda shapes, n_layers, rank: rank + n_layers * sum(o for o, _ in shapes.values()),
                    lambda shapes, n_layers, rank: len(shapes) * rank + n_layers * sum(o for o, _ in shapes.values()),
                ),
            ),
            Mistake(
                "one b per layer",
                "Every matrix has its own b, as long as its output.",
                wrong=(lambda shapes, n, rank: n * (rank * len(shapes) + max(o for o, _ in shapes.values())),),
            ),
            Mistake(
                "layers forgotten",
                "A and B are shared by all layers; d and b are not.",
                wrong=(_counts(lambda o, i, r: r + o, layers=lambda n: 1),),
            ),
        ),
        hints=(
            "Which of W, A, B, d and b are trained? How many numbers has each of those?",
            "Each adapted matrix of each layer has its own d (rank numbers) and b (out numbers).",
            "n_layers times the sum of rank + out over the matrices.",
        ),
        reward="The first example has 38,400 at rank 256. LoRA at rank 1 already has 57,600 there.",
    ),
)  # fmt: skip
