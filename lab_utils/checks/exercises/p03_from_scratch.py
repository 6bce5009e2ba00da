"""Exercises of page 03: the layer, how it starts, and how it is merged."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from ..comparing import compare
from ..exercise import ALPHA, SIZE, Exercise, Mistake, sides, tensor_maker


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


def initial_adapter_spec(lora_A: Tensor, lora_B: Tensor, out_features: int, in_features: int, rank: int) -> bool:
    """What must be true of (A, B), tried on every pair of an input and an output."""
    if lora_A.shape != (rank, in_features) or lora_B.shape != (out_features, rank):
        return False
    changes, gradients = 0, 0
    for o in range(out_features):
        for i in range(in_features):
            changes += sum(lora_B[o, k] * lora_A[k, i] for k in range(rank)) != 0  # of W by B·A
            gradients += any(lora_A[k, i] != 0 for k in range(rank))  # B learns through A, not the other way
    return changes == 0 and gradients > 0  # and another A with every call


def initial_adapter(out_features: int, in_features: int, rank: int) -> tuple[Tensor, Tensor]:
    lora_A = torch.empty(rank, in_features)
    torch.nn.init.kaiming_uniform_(lora_A, a=5**0.5)  # uniform between ±1/√in_features, as peft does
    lora_B = torch.zeros(out_features, rank)
    return lora_A, lora_B


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


@st.composite
def _adapter_shape(draw):
    out_features, in_features = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    return out_features, in_features, draw(st.integers(1, min(out_features, in_features)))


def _judge_start(inputs, results) -> dict[str, str | None]:
    """The laws of a fresh adapter; two calls have been made."""
    out_features, in_features, rank = inputs
    form = compare((torch.zeros(rank, in_features), torch.zeros(out_features, rank)), results[0])
    found = {aspect: form.get(aspect) for aspect in ("kind", "shape") if aspect in form}
    if any(found.values()):
        return found
    (A, B), (again, _) = results
    exact = A.is_floating_point() and B.is_floating_point()
    found["dtype"] = None if exact else f"The data types are {A.dtype} and {B.dtype}; floats can be trained."
    finite = bool(A.isfinite().all() and B.isfinite().all())
    found["values"] = None if finite else "There are numbers that are not finite (inf or nan)."
    found["B"] = "B is not zero, so the adapter changes the model before it has learned anything." if B.any() else None
    found["A"] = None if A.any() else "A is all zero. With B zero too, both gradients are zero, for ever."
    if A.any():
        found["random"] = "A is the same on every call." if torch.equal(A, again) else None
    return found


def _start(law):
    """A condition on inputs and results from one on A, B and A of the second call."""
    return lambda inputs, results: (
        results[0][0].shape == (inputs[2], inputs[1]) and results[0][1].shape == (inputs[0], inputs[2])
        and law(*results[0], results[1][0])
    )  # fmt: skip


def _stacked(factors) -> Tensor:
    """A above B in one picture, with a blank line between them."""
    A, B = factors
    width = max(A.shape[1], B.shape[1])
    rows = [F.pad(part, (0, width - part.shape[1]), value=float("nan")) for part in (A, B)]
    return torch.cat([rows[0], torch.full((1, width), float("nan")), rows[1]])


_DEMO = tensor_maker(lambda _: 3, torch.float32)
_X, _W, _A, _B = _DEMO(4, 6), _DEMO(5, 6), _DEMO(2, 6), _DEMO(5, 2)

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
                "The frozen weight goes on working: add x·Wᵀ to the adapter's part.",
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
                ),
            ),
            Mistake(
                "wrong axis: a transpose is missing",
                "weight is (out, in), A is (rank, in), B is (out, rank), and x lies in rows: it meets each of them "
                "transposed, as in torch.nn.Linear.",
                wrong=(
                    lambda x, W, A, B, alpha: x @ W,
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
        reward="This one line is LoRA. What page 08 trains is this, once for each adapted matrix.",
    ),
    Exercise(
        name="initial_adapter", page=3, title="How an adapter starts",
        spec=initial_adapter_spec, solution=initial_adapter, inputs=_adapter_shape(), demo=(5, 6, 2), calls=2,
        judge=_judge_start, picture=_stacked,
        aspects={
            "values": "All numbers are finite.",
            "B": "B is zero, so that the adapter starts as no change at all.",
            "A": "A is not zero, so that B gets a gradient.",
            "random": "A is drawn again on every call.",
        },
        mistakes=(
            Mistake(
                "A zero and B random",
                "One of them must be zero, and in LoRA that is B. A is drawn at random.",
                when=_start(lambda A, B, again: B.any() and not A.any()),
            ),
            Mistake(
                "both zero",
                "The gradient of B is built from A and that of A from B: with both zero nothing ever moves. Draw A.",
                when=_start(lambda A, B, again: not A.any() and not B.any()),
            ),
            Mistake(
                "B not zero",
                "Begin with torch.zeros for B: the model then starts exactly as it was.",
                when=_start(lambda A, B, again: A.any() and B.any()),
            ),
            Mistake(
                "A the same on every call",
                "No fixed numbers and no seed in here: every layer needs its own directions.",
                when=_start(lambda A, B, again: A.any() and torch.equal(A, again)),
            ),
            Mistake(
                "A and B in the wrong order",
                "Hand back (A, B): first (rank, in), then (out, rank).",
                when=lambda inputs, results: results[0][0].shape == (inputs[0], inputs[2])
                and results[0][1].shape == (inputs[2], inputs[1]),
            ),
            Mistake(
                "shapes swapped",
                "A is (rank, in) and B is (out, rank), so that B·A is (out, in) like the weight.",
                when=lambda inputs, results: results[0][0].shape == (inputs[1], inputs[2])
                or results[0][1].shape == (inputs[2], inputs[0])
                or results[0][0].shape == (inputs[2], inputs[0]),
            ),
        ),
        hints=(
            "On step 0 the model should do what it did before. And yet there must be a gradient to start from.",
            "If one factor is zero, B·A is zero. The other must not be, or both stand still. Which is which in LoRA?",
            "torch.zeros(out_features, rank) for B; for A, (rank, in_features) random numbers, such as torch.randn "
            "divided by √in_features.",
        ),
        reward="A fresh adapter changes nothing and can learn at once: you have seen why exactly one factor is zero.",
    ),
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
                "weight is (out, in), and so is B·A as it stands: no transpose is needed.",
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
            "x·Wᵀ + (α/r)·x·Aᵀ·Bᵀ = x·(…)ᵀ. What stands in the brackets? Check its shape: (out, in).",
            "weight plus alpha / rank times the product of lora_B and lora_A, in this order, as a new tensor.",
        ),
        reward="After merging there is no adapter left to wait for: the layer is as fast as it was without one.",
    ),
)  # fmt: skip
