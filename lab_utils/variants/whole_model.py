"""Variants on whole models: put one on, group its parameters for an optimizer, do its work around a step."""

from collections.abc import Iterable

from torch import Tensor, nn

from ..errors import LabError, choose, real
from ..lora import LoRALinear
from ..lora import whole_model as lora
from ..lora.layers import check_settings
from .catalogue import VARIANTS
from .delta_lora import DeltaLoRALinear
from .lora_fa import LoRAFALinear
from .lora_plus import RATIO, lora_plus_groups
from .moves_weight import MovesWeight
from .vera import SharedMatrices, VeRALinear

LORA_LAYERS = ("lora", "rslora", "lora+")  # their layers are those of `lora.inject`


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
        embeddings too, the others only nn.Linear.
    settings : further settings of this variant, `VARIANTS[variant].settings`: see its class

    Returns
    -------
    The same model

    Raises
    ------
    LabError
        The variant or a setting is unknown, or as for `lora.inject` and the variant's class; then the model is
        unchanged.

    >>> model = inject(nn.Sequential(nn.Linear(8, 4)), "dora", ["0"], rank=2, alpha=4)
    >>> {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    {'0.lora_A': (2, 8), '0.lora_B': (4, 2), '0.magnitude': (4,)}
    """
    choose("variant", variant, VARIANTS)
    described = VARIANTS[variant]
    for name in settings:
        if name not in described.settings:
            there_is = ", ".join(described.settings) or "nothing but rank, alpha and dropout"
            raise LabError(f"{described.title} has no setting {name!r}. It takes: {there_is}.")
    if variant in LORA_LAYERS:
        return lora.inject(model, target_modules, rank, alpha, dropout, use_rslora=variant == "rslora")
    check_settings(rank, alpha, dropout, use_rslora=False)
    kind = described.factory
    targets = lora.find_targets(
        model, target_modules, rank, lambda layer: kind if kind.sizes(layer) else None,
        f"{described.title} adapts only nn.Linear here.",
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
    except BaseException:  # a keyboard interrupt too: PiSSA's singular values can take minutes
        for layer in adapted.values():
            layer.release()
        raise
    return lora.insert_layers(model, adapted)


def optimizer_groups(model: nn.Module, variant: str, learning_rate: float, *, ratio: float = RATIO) -> list[dict]:
    """The parameter groups for an optimizer: one of all that is trained, or LoRA+'s groups.

    Parameters
    ----------
    model : nn.Module with the adapters of `variant`
    variant : str, a name in `VARIANTS`
    learning_rate : float > 0; with LoRA+ that of A
    ratio : float >= 1, with LoRA+ the learning rate of B over that of A

    Returns
    -------
    list of {"params": list, "lr": float}

    >>> model = inject(nn.Sequential(nn.Linear(8, 4)), "lora", ["0"], rank=2, alpha=4)
    >>> [(len(group["params"]), group["lr"]) for group in optimizer_groups(model, "lora", learning_rate=0.01)]
    [(2, 0.01)]
    """
    choose("variant", variant, VARIANTS)
    learning_rate = real("learning_rate", learning_rate)
    if variant == "lora+":
        return lora_plus_groups(model, learning_rate, ratio)
    lora.adapted_layers(model)  # raises if there are none
    return [{"params": lora.trainable_parameters(model), "lr": learning_rate}]


def before_step(model: nn.Module) -> None:
    """Work before every optimizer step: LoRA-FA corrects gradients, the other variants do nothing."""
    for layer in lora.adapted_layers(model).values():
        if isinstance(layer, LoRAFALinear):
            layer.before_step()


def after_step(model: nn.Module) -> None:
    """Work after every optimizer step: Delta-LoRA moves W, the other variants do nothing."""
    for layer in lora.adapted_layers(model).values():
        if isinstance(layer, DeltaLoRALinear):
            layer.after_step()


def learned_update(layer: LoRALinear) -> Tensor:
    """How far a layer has moved from the weight that it was put on: W' − W, shape of W, float32 or float64.

    This is `delta_weight()`, except for PiSSA and Delta-LoRA, which have moved W too.
    """
    return layer.learned_update() if isinstance(layer, MovesWeight) else layer.delta_weight()
