"""Exercises of page 03: the layer, how it starts (`p03_starting`), and how it is merged."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import ALPHA, SIZE, Exercise, Mistake, sides, tensor_maker
from .p03_starting import STARTING


def lora_forward_spec(x: Tensor, weight: Tensor, lora_A: Tensor, lora_B: Tensor, alpha: float) -> Tensor:
    """Each output: what the frozen weight says, plus α/r times what goes through A and then B."""
    batch, (out_features, in_features), rank = len(x), weight.shape, len(lora_A)
    y = torch.zeros(batch, out_features, dtype=x.dtype)
    for n in range(batch):
        for o in range(out_features):
            for i in range(in_features):
                y[n, o] += weight[o, i] * x[n, i]
            for k in range(rank):
                inside = sum(lora_A[k, i] * x[n, i] for i in range(in_features))
                y[n, o] += alpha / rank * lora_B[o, k] * inside
    return y


def lora_forward(x: Tensor, weight: Tensor, lora_A: Tensor, lora_B: Tensor, alpha: float) -> Tensor:
    rank = lora_A.shape[0]
    return x @ weight.T + alpha / rank * (x @ lora_A.T @ lora_B.T)


def merge_spec(weight: Tensor, lora_A: Tensor, lora_B: Tensor, alpha: float) -> Tensor:
    """A new weight: to each entry of a copy, add α/r times that entry of B·A."""
    (out_features, in_features), rank = weight.shape, len(lora_A)
    merged = weight.clone()
    for o in range(out_features):
        for i in range(in_features):
            for k in range(rank):
                merged[o, i] += alpha / rank * lora_B[o, k] * lora_A[k, i]
    return merged


def merge(weight: Tensor, lora_A: Tensor, lora_B: Tensor, alpha: float) -> Tensor:
    rank = lora_A.shape[0]
    return weight + alpha / rank * (lora_B @ lora_A)


def _scaled(scale):
    """lora_forward with another factor before the adapter."""
    return lambda x, W, A, B, alpha: x @ W.T + scale(alpha, len(A)) * (x @ A.T @ B.T)


def _merged(scale):
    """merge with another factor before B·A."""
    return lambda W, A, B, alpha: W + scale(alpha, len(A)) * (B @ A)


def _other(adapter, base=lambda x, W: x @ W.T):
    """lora_forward with another way through the adapter, or through the base."""
    return lambda x, W, A, B, alpha: base(x, W) + alpha / len(A) * adapter(x, A, B)


@st.composite
def _layer(draw):
    """x, weight, A, B, alpha; sometimes square, and of full rank, where even a wrong product fits."""
    out_features, in_features = draw(sides())
    rank, make = draw(st.integers(1, min(out_features, in_features))), tensor_maker(draw)
    return (
        make(draw(SIZE), in_features), make(out_features, in_features), make(rank, in_features),
        make(out_features, rank), draw(ALPHA),
    )  # fmt: skip


_DEMO = tensor_maker(lambda _: 3, torch.float32)
_X, _W, _A, _B = _DEMO(3, 4), _DEMO(5, 4), _DEMO(2, 4), _DEMO(5, 2)

EXERCISES = (
    Exercise(
        name="lora_forward", page=3, title="What a LoRA layer computes",
        spec=lora_forward_spec, solution=lora_forward, inputs=_layer(), demo=(_X, _W, _A, _B, 4),
        picture=lambda y: y,
        mistakes=(
            Mistake(
                "raw alpha instead of α/r",
                "Divide alpha by the rank, lora_A.shape[0]; then the size of the update depends less on the rank.",
                wrong=(_scaled(lambda alpha, r: alpha),),
            ),
            Mistake(
                "alpha times the rank",
                "alpha is divided by the rank: with more directions each counts for less.",
                wrong=(_scaled(lambda alpha, r: alpha * r),),
            ),
            Mistake(
                "the rank read from the wrong side",
                "A is (rank, in): the rank is lora_A.shape[0], or lora_B.shape[1].",
                wrong=(
                    lambda x, W, A, B, alpha: x @ W.T + alpha / A.shape[1] * (x @ A.T @ B.T),
                    lambda x, W, A, B, alpha: x @ W.T + alpha / B.shape[0] * (x @ A.T @ B.T),
                ),
            ),
            Mistake(
                "r/α instead of α/r",
                "The fraction is upside down: a larger alpha makes the adapter's part larger.",
                wrong=(_scaled(lambda alpha, r: r / alpha),),
            ),
            Mistake("scaling left out", "Multiply the adapter's part by α/r.", wrong=(_scaled(lambda alpha, r: 1),)),
            Mistake(
                "√r instead of r",
                "α/√r is the scaling of rsLoRA, on page 04. Plain LoRA divides by the rank.",
                wrong=(_scaled(lambda alpha, r: alpha / r**0.5),),
            ),
            Mistake(
                "base forgotten",
                "The frozen weight still works: add x·Wᵀ to the adapter's part.",
                wrong=(lambda x, W, A, B, alpha: alpha / len(A) * (x @ A.T @ B.T),),
            ),
            Mistake("adapter forgotten", "Add the adapter's part to x·Wᵀ.", wrong=(lambda x, W, A, B, alpha: x @ W.T,)),
            Mistake(
                "base scaled too",
                "Only the adapter's part is multiplied by α/r. Mind the brackets.",
                wrong=(lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T),),
            ),
            Mistake(
                "A and B swapped",
                "x goes through A first (in → rank), then through B (rank → out).",
                wrong=(
                    _other(lambda x, A, B: x @ B.T @ A.T), _other(lambda x, A, B: x @ (A @ B).T),
                    _other(lambda x, A, B: x @ B @ A), _other(lambda x, A, B: F.linear(F.linear(x, B), A)),
                    lambda x, W, A, B, alpha: x @ (W + alpha / len(A) * (A @ B)).T,
                ),
            ),
            Mistake(
                "wrong axis: a transpose is missing",
                "weight is (out, in), A is (rank, in), B is (out, rank), and x lies in rows: it meets each of them "
                "transposed, as in torch.nn.Linear.",
                wrong=(
                    lambda x, W, A, B, alpha: x @ W,
                    lambda x, W, A, B, alpha: W @ x + alpha / len(A) * (B @ (A @ x)),
                    lambda x, W, A, B, alpha: W @ x + alpha / len(A) * (B @ A) @ x,
                    lambda x, W, A, B, alpha: (W + alpha / len(A) * (B @ A)) @ x,
                    _other(lambda x, A, B: B @ (A @ x)),
                    _other(lambda x, A, B: x @ A @ B), _other(lambda x, A, B: x @ A @ B, base=lambda x, W: x @ W),
                    _other(lambda x, A, B: x @ A.T @ B.T, base=lambda x, W: x @ W),
                    _other(lambda x, A, B: x @ A.T @ B), _other(lambda x, A, B: x @ A @ B.T),
                    _other(lambda x, A, B: x @ (B @ A)), _other(lambda x, A, B: x @ B @ A, base=lambda x, W: x @ W),
                    _other(lambda x, A, B: x @ (B @ A), base=lambda x, W: x @ W),
                ),
            ),
        ),
        hints=(
            "There are two ways through the layer: through the frozen weight, and through A and B. They are added.",
            "Follow the shapes: x is (batch, in). Which of A and B can it meet first, and does that need a transpose?",
            "The base is x @ weight.T. The detour is x through lora_A.T, then lora_B.T, times alpha / rank.",
        ),
        reward="This one line is LoRA. What page 08 trains is this, once for each adapted matrix. x has its inputs in "
        "rows, so W, A and B all meet it transposed.",
    ),
    STARTING,
    Exercise(
        name="merge", page=3, title="Merging an adapter into its weight",
        spec=merge_spec, solution=merge, inputs=_layer().map(lambda layer: layer[1:]), demo=(_W, _A, _B, 4),
        picture=lambda merged: merged,
        mistakes=(
            Mistake(
                "raw alpha instead of α/r",
                "Use the same factor as in the forward pass, alpha / rank, or the merged model is another one.",
                wrong=(_merged(lambda alpha, r: alpha),),
            ),
            Mistake(
                "alpha times the rank",
                "alpha is divided by the rank: with more directions each counts for less.",
                wrong=(_merged(lambda alpha, r: alpha * r),),
            ),
            Mistake(
                "the rank read from the wrong side",
                "A is (rank, in): the rank is lora_A.shape[0], or lora_B.shape[1].",
                wrong=(
                    lambda W, A, B, alpha: W + alpha / A.shape[1] * (B @ A),
                    lambda W, A, B, alpha: W + alpha / B.shape[0] * (B @ A),
                ),
            ),
            Mistake("r/α instead of α/r", "The fraction is upside down.", wrong=(_merged(lambda alpha, r: r / alpha),)),
            Mistake("scaling left out", "Multiply B·A by α/r.", wrong=(_merged(lambda alpha, r: 1),)),
            Mistake(
                "subtracted",
                "Merging adds the update. Subtracting it is how a merged weight is unmerged.",
                wrong=(_merged(lambda alpha, r: -alpha / r),),
            ),
            Mistake(
                "A·B instead of B·A",
                "(rank, in) times (out, rank) does not fit, or gives (rank, rank). B (out, rank) comes first.",
                wrong=(lambda W, A, B, alpha: W + alpha / len(A) * (A @ B),),
            ),
            Mistake(
                "transposed",
                "weight is (out, in), and so is B·A: no transpose is needed.",
                wrong=(
                    lambda W, A, B, alpha: W + alpha / len(A) * (B @ A).T,
                    lambda W, A, B, alpha: W + alpha / len(A) * (A.T @ B.T),
                ),
            ),
            Mistake(
                "weight forgotten",
                "This is only the update. Add it to weight.",
                wrong=(lambda W, A, B, alpha: alpha / len(A) * (B @ A),),
            ),
        ),
        hints=(
            "Two ways through a layer that are added can become one: which single matrix does the same to every x?",
            "x·Wᵀ + (α/r)·x·Aᵀ·Bᵀ = x·(…)ᵀ. What belongs in the brackets? Check its shape: (out, in).",
            "weight plus alpha / rank times the product of lora_B and lora_A, in this order, as a new tensor.",
        ),
        reward="After merging there is no adapter left to wait for: the layer is as fast as it was without one. With "
        "`weight += …` the caller's weight would change too, and a second merge would add the update twice.",
    ),
)  # fmt: skip
