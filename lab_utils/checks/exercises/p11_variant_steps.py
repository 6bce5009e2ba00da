"""Exercises of page 11: how LoRA+ and Delta-LoRA take a step."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import SIZE, Exercise, Mistake, sides, tensor_maker


def learning_rates_spec(names: list[str], learning_rate: float, ratio: float) -> Tensor:
    """One for each tensor of the model: A's as given, B's that many times as large, none for what is frozen."""
    rates = []
    for name in names:
        parts = name.split(".")
        if "lora_B" in parts:
            rates.append(ratio * learning_rate)
        elif "lora_A" in parts:
            rates.append(learning_rate)
        else:
            rates.append(0.0)
    return torch.tensor(rates)


def learning_rates(names: list[str], learning_rate: float, ratio: float) -> Tensor:
    factors = [ratio if "lora_B" in name else 1.0 if "lora_A" in name else 0.0 for name in names]
    return learning_rate * torch.tensor(factors)


def delta_lora_weight_spec(
    weight: Tensor, old_A: Tensor, old_B: Tensor, new_A: Tensor, new_B: Tensor, scaling: float, strength: float
) -> Tensor:
    """Every entry of W follows the same entry of the product: by its change, times scaling and strength."""
    moved = weight.clone()
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            before = sum(old_B[o, k] * old_A[k, i] for k in range(len(old_A)))
            after = sum(new_B[o, k] * new_A[k, i] for k in range(len(new_A)))
            moved[o, i] += strength * scaling * (after - before)
    return moved


def delta_lora_weight(
    weight: Tensor, old_A: Tensor, old_B: Tensor, new_A: Tensor, new_B: Tensor, scaling: float, strength: float
) -> Tensor:
    return weight + strength * scaling * (new_B @ new_A - old_B @ old_A)


def _rates(for_A=lambda ratio: 1.0, for_B=lambda ratio: ratio, rest=0.0, is_B=lambda name: "lora_B" in name):
    """learning_rates with other factors for A, B and the rest."""
    return lambda names, rate, ratio: rate * torch.tensor(
        [float(for_B(ratio) if is_B(name) else for_A(ratio) if "lora_A" in name else rest) for name in names]
    )


def _ratio_alone(names, learning_rate, ratio):
    return torch.where(learning_rates(names, 1.0, 2.0) == 2.0, ratio, learning_rates(names, learning_rate, 1.0))


def _delta(change, factor=lambda scaling, strength: scaling * strength, base=1):
    """delta_lora_weight with another change of the product, or another factor."""
    return lambda W, A, B, A2, B2, s, strength: base * W + factor(s, strength) * change(A, B, A2, B2)


def _change(A, B, A2, B2):
    return B2 @ A2 - B @ A


@st.composite
def _names(draw):
    """Names of tensors, some with a `b` or `B` that is not lora_B."""
    kinds = ("base_layer.weight", "lora_A.weight", "lora_B.weight")
    modules = ("q_proj", "v_proj", "b_proj", "B_proj")
    layers = [f"layers.{n}.{module}.{kind}" for n in range(2) for module in modules for kind in kinds]
    names = draw(st.lists(st.sampled_from([*layers, "embed_tokens.weight", "norm.weight"]), min_size=1, max_size=6))
    return names, draw(st.sampled_from([1e-3, 2e-3, 1e-2])), draw(st.sampled_from([1.0, 2.0, 4.0, 16.0]))


@st.composite
def _step(draw):
    """A weight and its adapter before and after a step, which is far from small."""
    (out_features, in_features), rank, make = draw(sides()), draw(SIZE), tensor_maker(draw)
    A, B, A2, B2 = (make(*shape) for shape in 2 * ((rank, in_features), (out_features, rank)))
    return (
        make(out_features, in_features), A, B, A2, B2, draw(st.sampled_from([2.0, 0.5, 4.0])),
        draw(st.sampled_from([2.0, 0.5, 1.0])),
    )  # fmt: skip


_DEMO = tensor_maker(lambda _: 7, torch.float32)
_W, _A, _B = _DEMO(5, 6), _DEMO(2, 6), _DEMO(5, 2)
_LAYER = [f"layers.0.q_proj.{kind}.weight" for kind in ("base_layer", "lora_A", "lora_B")]

EXERCISES = (
    Exercise(
        name="learning_rates", page=11, title="LoRA+: a learning rate for each",
        spec=learning_rates_spec, solution=learning_rates, inputs=_names(), demo=(_LAYER, 2e-3, 16.0), any_width=True,
        picture=lambda rates: rates,
        mistakes=(
            Mistake(
                "A and B swapped",
                "B starts at zero and has to go far: it is B that gets the larger learning rate.",
                wrong=(_rates(lambda ratio: ratio, lambda ratio: 1.0),),
            ),
            Mistake(
                "the ratio for both",
                "A keeps the learning rate as it is. Only B's is multiplied.",
                wrong=(_rates(lambda ratio: ratio),),
            ),
            Mistake("the ratio forgotten", "B's is ratio times as large.", wrong=(_rates(for_B=lambda ratio: 1.0),)),
            Mistake(
                "divided by the ratio",
                "ratio is B's learning rate over A's, and A's is given.",
                wrong=(
                    _rates(for_B=lambda ratio: 1 / ratio), _rates(lambda ratio: 1 / ratio, lambda ratio: 1.0),
                ),
            ),
            Mistake(
                "frozen weights trained",
                "Only lora_A and lora_B are trained. All other tensors get 0.",
                wrong=(_rates(rest=1.0), _rates(is_B=lambda name: "lora_A" not in name)),
            ),
            Mistake(
                "any B taken for lora_B",
                "Other names may hold a b as well. Look for lora_B.",
                wrong=(
                    _rates(is_B=lambda name: "B" in name), _rates(is_B=lambda name: "b" in name.lower()),
                    _rates(is_B=lambda name: "lora_A" not in name and "b" in name.lower()),
                ),
            ),
            Mistake(
                "the end of the name",
                "The names end with .weight: look for lora_A and lora_B inside of them.",
                wrong=(lambda names, rate, ratio: torch.zeros(len(names)),),
            ),
            Mistake(
                "the ratio instead of a learning rate",
                "B's learning rate is ratio · learning_rate.",
                wrong=(lambda names, rate, ratio: _rates()(names, 1.0, ratio), _ratio_alone),
            ),
        ),
        hints=(
            "Which tensors are trained at all? And which of these starts at zero?",
            "Look for lora_A and lora_B in each name. What has neither is frozen.",
            "ratio * learning_rate for lora_B, learning_rate for lora_A, 0 for all others, in a tensor.",
        ),
        reward="LoRA+ costs nothing: two groups in the optimizer. With Adam it is the same as a larger alpha.",
    ),
    Exercise(
        name="delta_lora_weight", page=11, title="Delta-LoRA: the weight follows",
        spec=delta_lora_weight_spec, solution=delta_lora_weight, inputs=_step(), picture=lambda weight: weight,
        demo=(_W, _A, _B, _A + _DEMO(2, 6) / 8, _B + _DEMO(5, 2) / 8, 2.0, 0.5),
        mistakes=(
            Mistake(
                "the change of B times the change of A",
                "Multiply first, subtract then: the product changes even where only one of them moves.",
                wrong=(_delta(lambda A, B, A2, B2: (B2 - B) @ (A2 - A)),),
            ),
            Mistake(
                "the new product as a whole",
                "A step adds only what has changed since the step before, or the same would be added over and over.",
                wrong=(_delta(lambda A, B, A2, B2: B2 @ A2), _delta(lambda A, B, A2, B2: B2 @ A2 + B @ A)),
            ),
            Mistake(
                "the old product as a whole",
                "It is the change that counts: the new product minus the old one.",
                wrong=(_delta(lambda A, B, A2, B2: B @ A),),
            ),
            Mistake(
                "old minus new",
                "The weight moves in the direction in which the product has moved.",
                wrong=(_delta(lambda A, B, A2, B2: B @ A - B2 @ A2),),
            ),
            Mistake(
                "only one of the two moved",
                "Both A and B have been updated: B'·A' minus B·A.",
                wrong=(
                    _delta(lambda A, B, A2, B2: (B2 - B) @ A), _delta(lambda A, B, A2, B2: B @ (A2 - A)),
                    _delta(lambda A, B, A2, B2: (B2 - B) @ A2), _delta(lambda A, B, A2, B2: B2 @ (A2 - A)),
                    _delta(lambda A, B, A2, B2: (B2 - B) @ A + B @ (A2 - A)),
                ),
            ),
            Mistake(
                "a factor left out",
                "Multiply the change by scaling, and by strength.",
                wrong=(
                    _delta(_change, lambda s, strength: s), _delta(_change, lambda s, strength: strength),
                    _delta(_change, lambda s, strength: 1),
                ),
            ),
            Mistake("weight forgotten", "This is the step. Add it to weight.", wrong=(_delta(_change, base=0),)),
            Mistake("the weight does not move", "In Delta-LoRA W moves, too.", wrong=(_delta(_change, lambda *_: 0),)),
        ),
        hints=(
            "The full product B·A is free to look at, before and after a step. What has the step done to it?",
            "new_B @ new_A minus old_B @ old_A is the change. W takes a step that is a multiple of it.",
            "weight plus strength · scaling · (new product minus old product), as a new tensor.",
        ),
        reward="W learns without a gradient and without Adam's numbers. The price: the checkpoint is all of W.",
    ),
)  # fmt: skip
