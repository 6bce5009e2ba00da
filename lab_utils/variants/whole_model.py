"""Variants on whole models: put one on, group its parameters for an optimizer, do what it does around a step."""

import math
from collections.abc import Iterable

from torch import Tensor, nn

from ..errors import LabError, choose
from ..lora import LoRALinear
from ..lora import whole_model as lora
from ..lora.layers import check_settings
from .catalogue import VARIANTS
from .delta_lora import DeltaLoRALinear
from .lora_fa import LoRAFALinear
from .lora_plus import RATIO, lora_plus_groups
from .moves_weight import MovesWeight
from .vera import SharedMatrices, VeRALinear

LORA_LAYERS = ("lora", "rslora", "lora+")  # the layers are those of `lora.inject`

def inject(
    model: nn.Module, variant: str, target_modules: str | Iterable[str], rank: int, alpha: float, dropout: float = 0.0,
    **settings,
) -> nn.Module:  # fmt: skip
    """Put fresh adapters of a variant on layers of `model`, in place, and freeze everything else.

    `merge`, `unmerge`, `take_off`, `adapted_layers` and `trainable_parameters` of `lab_utils.lora` work on all of them.

    Parameters
    ----------
    model : nn.Module
    variant : str, a name in `VARIANTS`
    target_modules, rank, alpha, dropout : as for `lora.inject`. "lora", "rslora" and "lora+" adapt Conv1D and
        embeddings too, the others nn.Linear alone.
    settings : what this variant takes besides, `VARIANTS[variant].settings`: see its class

    Returns
    -------
    The same model

    Raises
    ------
    LabError
        The variant or a setting is unknown, or as for `lora.inject` and the variant's class. The model is unchanged
        then.
    """
    choose("variant", variant, VARIANTS)
    described = VARIANTS[variant]
    for name in settings:
        if name not in described.settings:
            there_is = ", ".join(described.settings) or "nothing besides rank, alpha and dropout"
            raise LabError(f"{described.title} has no setting {name!r}. It takes: {there_is}.")
    if variant in LORA_LAYERS:
        return lora.inject(model, target_modules, rank, alpha, dropout, use_rslora=variant == "rslora")
    check_settings(rank, alpha, dropout, use_rslora=False)
    kind = described.factory
    targets = lora.find_targets(
        model, target_modules, rank, lambda layer: kind if kind.sizes(layer) else None,
        f"{described.title} adapts nn.Linear alone, here.",
    )  # fmt: skip
    weights = [layer.weight for layer in targets.values()]
    if issubclass(kind, MovesWeight):
        lora.refuse_tied(model, weights, described.title)
    if issubclass(kind, VeRALinear):
        n_out, n_in = (max(sizes) for sizes in zip(*(kind.sizes(layer) for layer in targets.values()), strict=True))
        seed = settings.pop("seed", 0)
        settings["shared"] = SharedMatrices(n_out, n_in, rank, weights[0], seed)
    adapted: dict[str, LoRALinear] = {}
    try:
        for name, layer in targets.items():
            adapted[name] = kind(layer, rank, alpha, dropout, **settings)
    except BaseException:  # a keyboard interrupt too: PiSSA's singular values take their time
        for layer in adapted.values():
            layer.release()
        raise
    return lora.put_on(model, adapted)


def optimizer_groups(model: nn.Module, variant: str, learning_rate: float, *, ratio: float = RATIO) -> list[dict]:
    """What an optimizer should get: one group of all that is trained, or LoRA+'s groups.

    Parameters
    ----------
    model : nn.Module with the adapters of `variant`
    variant : str, a name in `VARIANTS`
    learning_rate : float > 0; with LoRA+ that of A
    ratio : float >= 1, with LoRA+ the learning rate of B over that of A

    Returns
    -------
    list of {"params": list, "lr": float}
    """
    choose("variant", variant, VARIANTS)
    number = isinstance(learning_rate, (int, float)) and not isinstance(learning_rate, bool)
    if not number or not 0 < learning_rate < math.inf:
        raise LabError(f"learning_rate={learning_rate!r} is out of range: a number above 0.")
    if variant == "lora+":
        return lora_plus_groups(model, learning_rate, ratio)
    lora.adapted_layers(model)  # raises if there are none
    return [{"params": lora.trainable_parameters(model), "lr": learning_rate}]


def before_step(model: nn.Module) -> None:
    """What some variant does between the backward pass and the optimizer's step: LoRA-FA's corrected gradients."""
    for layer in lora.adapted_layers(model).values():
        if isinstance(layer, LoRAFALinear):
            layer.before_step()


def after_step(model: nn.Module) -> None:
    """What some variant does after every optimizer step: Delta-LoRA moves W. The other variants do nothing."""
    for layer in lora.adapted_layers(model).values():
        if isinstance(layer, DeltaLoRALinear):
            layer.after_step()


def learned_update(layer: LoRALinear) -> Tensor:
    """How far a layer has gone from the weight that it was put on: W' − W, shape of W, float32 or float64.

    That is `delta_weight()`, but for PiSSA and Delta-LoRA, which have moved W besides.
    """
    return layer.learned_update() if isinstance(layer, MovesWeight) else layer.delta_weight()
