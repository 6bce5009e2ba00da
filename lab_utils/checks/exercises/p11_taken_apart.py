"""Exercises of page 11: a weight taken apart, by DoRA into direction and length, by PiSSA into strong and weak."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, sides, tensor_maker, weights


def dora_weight_spec(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float, magnitude: Tensor) -> Tensor:
    """Row by row: add the update, make the row 1 long, and stretch it to its own magnitude."""
    (out_features, in_features), rank = weight.shape, len(lora_A)
    new = torch.zeros(out_features, in_features, dtype=weight.dtype)
    for o in range(out_features):
        row = [
            weight[o, i] + scaling * sum(lora_B[o, k] * lora_A[k, i] for k in range(rank)) for i in range(in_features)
        ]
        length = sum(value**2 for value in row) ** 0.5
        for i in range(in_features):
            new[o, i] = magnitude[o] * row[i] / length
    return new


def dora_weight(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float, magnitude: Tensor) -> Tensor:
    direction = weight + scaling * (lora_B @ lora_A)
    return magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)


def pissa_init_spec(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Take off the strongest directions one by one, each split evenly between a column of B and a row of A."""
    rest, rows, columns = weight.double(), [], []
    for _ in range(rank):
        right = rest[rest.norm(dim=1).argmax()]
        for _ in range(200):  # the strongest direction: there and back again until it no longer changes
            right = rest.T @ (rest @ right)
            right = right / right.norm()
        strength = (rest @ right).norm()
        left = rest @ right / strength
        columns.append(strength**0.5 * left)
        rows.append(strength**0.5 * right)
        rest = rest - strength * left[:, None] * right[None, :]
    return rest.to(weight.dtype), torch.stack(rows).to(weight.dtype), torch.stack(columns, dim=1).to(weight.dtype)


def pissa_init(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    root = S[:rank].sqrt()
    lora_A, lora_B = root[:, None] * Vh[:rank], U[:, :rank] * root
    return weight - lora_B @ lora_A, lora_A, lora_B


def _dora(over, of=lambda W, update: W + update, scaled=True):
    """dora_weight with another length in the denominator, and of another direction."""

    def wrong(W, A, B, scaling, magnitude):
        update = (scaling if scaled else 1) * (B @ A)
        return magnitude[:, None] * of(W, update) / over(W, of(W, update))

    return wrong


def _rows(W, direction):
    return direction.norm(dim=1, keepdim=True)


def _columns(W, A, B, scaling, magnitude):
    direction = W + scaling * (B @ A)
    return magnitude * direction / direction.norm(dim=0)


def _split(power_A=0.5, power_B=0.5, last=False, residual=lambda weight, B, A: weight - B @ A, v_for_vh=False):
    """pissa_init with other powers of the singular values, other directions, another residual."""

    def wrong(weight, rank):
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        if v_for_vh:
            Vh = torch.linalg.svd(weight)[2].T
        keep = slice(len(S) - rank, None) if last else slice(rank)
        A, B = S[keep, None] ** power_A * Vh[keep], U[:, keep] * S[keep] ** power_B
        return residual(weight, B, A), A, B

    return wrong


def _columns_of_vh(weight, rank):
    """The first columns of Vᵀ where its first rows are needed; where V is square, that fits."""
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    A, B = S[:rank, None].sqrt() * Vh[:, :rank].T, U[:, :rank] * S[:rank].sqrt()
    return weight - B @ A, A, B


def _untouched(weight, B, A):
    return weight


def _true_rest(weight, B, A):
    return pissa_init(weight, len(A))[0]


def _order(*order):
    """pissa_init with its results in another order."""
    return lambda weight, rank: tuple(pissa_init(weight, rank)[n] for n in order)


def _whole(result) -> tuple[Tensor, ...]:
    """What fixes residual, A and B but for the signs of directions: their product, and how long the factors are."""
    residual, A, B = result
    return residual, B @ A, A @ A.T, B.T @ B


def _residual_and_product(result) -> Tensor:
    """The residual above B·A, with a blank line between them."""
    residual, A, B = result
    return torch.cat([residual, torch.full((1, A.shape[1]), float("nan")), B @ A])


@st.composite
def _dora_layer(draw):
    """A layer in which no row and no column becomes zero, and magnitudes that are all positive."""
    out_features, in_features = draw(sides())
    make, rank = tensor_maker(draw), draw(st.integers(1, min(out_features, in_features)))
    scaling = draw(st.sampled_from([2.0, 0.5, 0.25]))
    while True:
        W, A, B = make(out_features, in_features), make(rank, in_features), make(out_features, rank)
        summed = [W + scaling * (B @ A), W + B @ A, B @ A, W]
        if all(bool((part.norm(dim=dim) > 0).all()) for part in summed for dim in (0, 1)):
            return W, A, B, scaling, make(out_features).abs()


@st.composite
def _fit(draw):
    """A weight, and a rank that leaves something over."""
    weight = draw(weights().filter(lambda weight: min(weight.shape) > 1))
    return weight, draw(st.integers(1, min(weight.shape) - 1))


_DEMO = tensor_maker(lambda _: 6, torch.float32)
_W, _A, _B = _DEMO(5, 6), _DEMO(3, 6), _DEMO(5, 3)

EXERCISES = (
    Exercise(
        name="dora_weight", page=11, title="DoRA: direction and magnitude apart",
        spec=dora_weight_spec, solution=dora_weight, inputs=_dora_layer(), demo=(_W, _A, _B, 0.5, _DEMO(5).abs()),
        picture=lambda weight: weight,
        mistakes=(
            Mistake(
                "the norm over the wrong axis",
                "Each output has one magnitude, and its row of (out, in) is made 1 long: norm(dim=1, keepdim=True).",
                wrong=(
                    _dora(lambda W, direction: direction.norm(dim=0)), _columns,
                    _dora(lambda W, direction: direction.norm(dim=1)),
                ),
            ),
            Mistake(
                "magnitude along the wrong axis",
                "magnitude[o] belongs to row o: magnitude[:, None] makes a column of it.",
                wrong=(
                    lambda W, A, B, s, m: m * F.normalize(W + s * (B @ A), dim=1),
                    lambda W, A, B, s, m: m / (W + s * (B @ A)).norm(dim=1) * (W + s * (B @ A)),
                ),
            ),
            Mistake(
                "one norm for the whole matrix",
                "Every row is made 1 long by itself.",
                wrong=(_dora(lambda W, direction: direction.norm()),),
            ),
            Mistake(
                "the norm of the old weight",
                "Once the update has been added, a row has another length: take the norm of the sum.",
                wrong=(_dora(lambda W, direction: W.norm(dim=1, keepdim=True)),),
            ),
            Mistake(
                "not made 1 long",
                "Divide each row by its length before you multiply it by its magnitude.",
                wrong=(_dora(lambda W, direction: 1),),
            ),
            Mistake(
                "magnitude forgotten",
                "Rows that are 1 long are only the directions. Multiply row o by magnitude[o].",
                wrong=(
                    lambda W, A, B, s, m: F.normalize(W + s * (B @ A), dim=1), lambda W, A, B, s, m: W + s * (B @ A),
                ),
            ),
            Mistake(
                "only the update made 1 long",
                "The direction is that of weight and update together.",
                wrong=(
                    _dora(_rows, of=lambda W, update: update),
                    lambda W, A, B, s, m: W + m[:, None] * F.normalize(s * (B @ A), dim=1),
                ),
            ),
            Mistake(
                "only the old weight made 1 long",
                "Add the update first: it is the sum of weight and update that is made 1 long.",
                wrong=(
                    lambda W, A, B, s, m: m[:, None] * F.normalize(W, dim=1) + s * (B @ A),
                    lambda W, A, B, s, m: m[:, None] * (F.normalize(W, dim=1) + s * (B @ A)),
                ),
            ),
            Mistake(
                "update forgotten",
                "The direction is that of weight + scaling · B·A.",
                wrong=(lambda W, A, B, s, m: m[:, None] * F.normalize(W, dim=1),),
            ),
            Mistake(
                "the norm squared",
                "A length is the root of the sum of squares.",
                wrong=(_dora(lambda W, direction: direction.square().sum(dim=1, keepdim=True)),),
            ),
            Mistake(
                "another norm",
                "The length of a row is the root of the sum of squares, not the sum of sizes, nor the largest.",
                wrong=(
                    _dora(lambda W, direction: direction.abs().sum(dim=1, keepdim=True)),
                    _dora(lambda W, direction: direction.abs().amax(dim=1, keepdim=True)),
                ),
            ),
            Mistake("scaling left out", "Multiply B·A by scaling.", wrong=(_dora(_rows, scaled=False),)),
        ),
        hints=(
            "What does a row of the weight compute? How do you take the length out of it, and put another one in?",
            "Add the update, divide each row by its norm (keep the dimension), multiply it by its own magnitude.",
            "V = weight + scaling * lora_B @ lora_A; then magnitude[:, None] * V / V.norm(dim=1, keepdim=True).",
        ),
        reward="With the old row lengths as magnitudes and B = 0 nothing changes: that is how DoRA starts.",
    ),
    Exercise(
        name="pissa_init", page=11, title="PiSSA: start with what is strongest",
        spec=pissa_init_spec, solution=pissa_init, inputs=_fit(), demo=(_W / 4, 2), view=_whole,
        picture=_residual_and_product,
        mistakes=(
            Mistake(
                "the weight left as it is",
                "Then the model starts with the strongest directions twice. Take B·A off what is frozen.",
                wrong=(_split(residual=_untouched), _split(residual=lambda weight, B, A: weight + B @ A)),
            ),
            Mistake(
                "B·A instead of what is left",
                "The frozen part is the weight minus B·A.",
                wrong=(
                    _split(residual=lambda weight, B, A: B @ A), _split(residual=lambda weight, B, A: B @ A - weight),
                ),
            ),
            Mistake(
                "all of a singular value on one side",
                "The product is right, but A and B would learn at very different paces. Give √σ to each.",
                wrong=(
                    _split(1.0, 0.0), _split(0.0, 1.0),
                    _split(1.0, 0.0, residual=_untouched), _split(0.0, 1.0, residual=_untouched),
                ),
            ),
            Mistake(
                "σ on both sides",
                "B·A then holds σ². Each side gets the square root.",
                wrong=(_split(1.0, 1.0), _split(1.0, 1.0, residual=_true_rest)),
            ),
            Mistake(
                "singular values left out",
                "The directions alone are all of length 1. Multiply each side by √σ.",
                wrong=(_split(0.0, 0.0), _split(0.0, 0.0, residual=_true_rest)),
            ),
            Mistake(
                "the weakest directions",
                "Singular values come in descending order: take the first ones.",
                wrong=(_split(last=True),),
            ),
            Mistake(
                "V used where Vᵀ is needed",
                "torch.linalg.svd hands back Vᵀ: its rows are the directions.",
                wrong=(_split(v_for_vh=True), _split(v_for_vh=True, residual=_true_rest), _columns_of_vh),
            ),
            Mistake(
                "results in the wrong order",
                "Hand back the residual (out, in), then A (rank, in), then B (out, rank).",
                wrong=(_order(0, 2, 1), _order(1, 2, 0), _order(2, 1, 0)),
            ),
        ),
        hints=(
            "B·A should be the best fit of this rank, and the model must not change. What is left for the frozen part?",
            "torch.linalg.svd gives U, S, Vᵀ. The first `rank` of each; √S goes to either side; subtract the product.",
            "A = √S times rows of Vᵀ, B = columns of U times √S, residual = weight - B @ A.",
        ),
        reward="The same model at the start, but what is trained is the strongest part of W instead of nothing.",
    ),
)  # fmt: skip
