"""The exercise of page 03 on how an adapter starts."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from ..comparing import compare
from ..exercise import Exercise, Mistake

SMALLEST, LARGEST = 1e-4, 10.0  # root mean square of A


def initial_adapter_spec(lora_A: Tensor, lora_B: Tensor, out_features: int, in_features: int, rank: int) -> bool:
    """What must be true of (A, B), tried on every pair of an input and an output."""
    if lora_A.shape != (rank, in_features) or lora_B.shape != (out_features, rank):
        return False
    changes, gradients = 0, 0
    for o in range(out_features):
        for i in range(in_features):
            changes += sum(lora_B[o, k] * lora_A[k, i] for k in range(rank)) != 0  # of W by B·A
            gradients += any(lora_A[k, i] != 0 for k in range(rank))  # B learns through A, not the other way
    independent = int(torch.linalg.matrix_rank(lora_A)) == rank  # equal rows would learn the same, all of them
    return changes == 0 and gradients > 0 and independent  # and another A with every call


def initial_adapter(out_features: int, in_features: int, rank: int) -> tuple[Tensor, Tensor]:
    lora_A = torch.empty(rank, in_features)
    torch.nn.init.kaiming_uniform_(lora_A, a=5**0.5)  # uniform between ±1/√in_features, as peft does
    lora_B = torch.zeros(out_features, rank)
    return lora_A, lora_B


@st.composite
def _adapter_shape(draw):
    out_features, in_features = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    return out_features, in_features, draw(st.integers(1, min(out_features, in_features)))


def _judge_start(inputs, results) -> dict[str, str | None]:
    """The laws of a fresh adapter; three calls have been made."""
    out_features, in_features, rank = inputs
    form = compare((torch.zeros(rank, in_features), torch.zeros(out_features, rank)), results[0])
    found = {aspect: form.get(aspect) for aspect in ("kind", "shape") if aspect in form}
    if any(found.values()):
        return found
    (A, B), (again, _), _ = results
    exact = A.is_floating_point() and B.is_floating_point()
    found["dtype"] = None if exact else f"The data types are {A.dtype} and {B.dtype}; floats can be trained."
    finite = bool(A.isfinite().all() and B.isfinite().all())
    found["values"] = None if finite else "There are numbers that are not finite (inf or nan)."
    found["B"], found["A"] = _zeros(A, B)
    if A.any() and exact and finite:
        found["random"] = "A is the same on every call." if torch.equal(A, again) else None
        size = float(A.double().square().mean().sqrt())
        near = SMALLEST <= size <= LARGEST
        usual = f"1/√in is {in_features**-0.5:.1g}"
        found["size"] = None if near else f"The numbers of A are about {size:.1g} in size; {usual}."
        if rank > 1 and in_features >= 4:  # a smaller A of few different numbers may repeat a row by chance
            found["rank"] = f"A has rank {_rank(A)}, not {rank}: rows repeat each other." if _repeats(results) else None
    return found


def _zeros(A: Tensor, B: Tensor) -> tuple[str | None, str | None]:
    """What is wrong with B and with A as to which of the two is zero."""
    if A.any() and B.any():
        return "B is not zero, so the adapter changes the model before it has learned anything.", None
    if A.any():
        return None, None
    if B.any():
        return "B is random and A is zero: LoRA has it the other way round.", "A is all zero, the same on every call."
    return None, "A is all zero. With B zero too, both gradients are zero, forever."


def _rank(A: Tensor) -> int:
    """How many independent rows A has."""
    return int(torch.linalg.matrix_rank(A.double()))


def _repeats(results) -> bool:
    """Whether A falls short of its rank in every call."""
    return all(_rank(A) < len(A) for A, _ in results)


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


STARTING = Exercise(
    name="initial_adapter", page=3, title="How an adapter starts",
    spec=initial_adapter_spec, solution=initial_adapter, inputs=_adapter_shape(), demo=(5, 6, 2), calls=3,
    judge=_judge_start, picture=_stacked,
    aspects={
        "values": "All numbers are finite.",
        "B": "B is zero, so that the adapter starts as no change at all.",
        "A": "A is not zero, so that B gets a gradient.",
        "random": "A is drawn again on every call.",
        "size": "A is of a size to learn with.",
        "rank": "The rows of A are independent: every direction can learn something different.",
    },
    mistakes=(
        Mistake(
            "A zero and B random",
            "It starts harmless and could learn, A first. But A is then the same on every call. In LoRA B is the zero "
            "one, and A is drawn at random.",
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
            "equal rows",
            "Equal rows of A, with a B of zeros, get equal gradients, and stay equal: the adapter never reaches its "
            "rank. Draw every entry by itself.",
            when=lambda inputs, results: _start(lambda *_: inputs[2] == 1 or _repeats(results))(inputs, results),
        ),
        Mistake(
            "A too small",
            "B's gradient is built from A and starts as small. Plain gradient descent would never leave; Adam, "
            "which divides by the gradient's size, loses its first steps. Take about 1/√in_features.",
            when=_start(lambda A, B, again: 0 < A.double().square().mean().sqrt() < SMALLEST),
        ),
        Mistake(
            "A too large",
            "The first step of B then throws the outputs far away. Take a size near 1/√in_features.",
            when=_start(lambda A, B, again: A.double().square().mean().sqrt() > LARGEST),
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
        "If one factor is zero, B·A is zero. The other must not be, or neither moves. Which is which in LoRA?",
        "torch.zeros(out_features, rank) for B; for A, (rank, in_features) random numbers, such as torch.randn "
        "divided by √in_features.",
    ),
    reward="A fresh adapter changes nothing and can learn at once. With both factors zero both gradients would be "
    "zero: each has the other factor in it.",
)  # fmt: skip
