"""LoRA on whole models: put adapters on, freeze the rest, merge, unmerge, take the adapters off.

The layers are in `layers`; their numbers are taken out and put in by `states`, and saved in peft's layout by `files`.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping

from torch import nn

from ..errors import LabError
from .layers import SUPPORTED, LoRAConv1D, LoRAEmbedding, LoRALinear, check_layer, check_settings, kind_for
from .targets import check_complete, is_all_linear, matches

__all__ = [
    "LoRAConv1D", "LoRAEmbedding", "LoRALinear", "adapted_layers", "find_targets", "freeze", "inject", "insert_layers",
    "merge", "refuse_tied", "take_off", "trainable_parameters", "unmerge",
]
KindFor = Callable[[nn.Module], type[LoRALinear] | None]


def inject(
    model: nn.Module, target_modules: str | Iterable[str], rank: int, alpha: float, dropout: float = 0.0,
    use_rslora: bool = False, named_by: Mapping | None = None,
) -> nn.Module:  # fmt: skip
    """Put fresh adapters on layers of `model`, in place, and freeze everything else.

    Parameters
    ----------
    model : nn.Module
    target_modules : list of names, of which each is a module's whole name or its end after a dot ("q_proj"); or
        "all-linear", every linear layer but a transformers model's output head; or any other str, a regular expression
        for the whole name
    rank, alpha, dropout, use_rslora : as for LoRALinear
    named_by : dict, optional
        Fields of an adapter's config that choose layers. `read_adapter` gives them where they could mean more layers
        than the file has tensors for.

    Returns
    -------
    The same model

    Raises
    ------
    LabError
        A target matches nothing (the message lists what there is) or a module that cannot be adapted; a layer is
        smaller than the rank; a value is out of its range; the model has adapters already; or `named_by` means a layer
        that is not a target. The model is unchanged then.

    >>> model = inject(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), ["0"], rank=2, alpha=4)
    >>> {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    {'0.lora_A': (2, 8), '0.lora_B': (4, 2)}
    """
    check_settings(rank, alpha, dropout, use_rslora)
    targets = find_targets(model, target_modules, rank)
    if named_by:
        check_complete(model, named_by, _adaptable(model), targets, "This adapter")
    adapted = {name: kind_for(layer)(layer, rank, alpha, dropout, use_rslora) for name, layer in targets.items()}
    return insert_layers(model, adapted)


def find_targets(
    model: nn.Module, target_modules: str | Iterable[str], rank: int, kind_for: KindFor = kind_for,
    supported: str = SUPPORTED,
) -> dict[str, nn.Module]:  # fmt: skip
    """name -> layer of what `target_modules` means, each fit to be adapted by the class that `kind_for` names.

    Raises
    ------
    LabError
        As `inject`. `supported` says which layers could be adapted.
    """
    if any(hasattr(module, "lora_A") for module in model.modules()):
        raise LabError(
            "This model has adapters already: injecting again would adapt the adapters. `take_off(model)` removes "
            "them, `load_adapter(model, state)` gives them other weights."
        )
    targets = _targets(model, target_modules)
    for name, layer in targets.items():
        kind = kind_for(layer)
        if kind is None:
            raise LabError(f"target_modules: {name} is a {type(layer).__name__}, which LoRA cannot adapt. {supported}")
        check_layer(kind, layer, rank, name)
    return targets


def insert_layers(model: nn.Module, adapted: dict[str, LoRALinear]) -> nn.Module:
    """Put adapted layers in the place of their base layers, each in its mode; freeze the rest. Returns the model."""
    for name, layer in adapted.items():
        model.set_submodule(name, layer.train(layer.base_layer.training))
    return freeze(model)


def _targets(model: nn.Module, target_modules: str | Iterable[str]) -> dict[str, nn.Module]:
    """name -> module of what `target_modules` means, in the model's order."""
    modules = {name: module for name, module in model.named_modules() if name}
    known = sorted({name.rpartition(".")[2] for name, module in modules.items() if kind_for(module)})
    there_is = f"It has: {', '.join(known) or 'none'}."
    if is_all_linear(target_modules):
        found = {name: modules[name] for name, linear in _adaptable(model).items() if linear}
        if not found:
            raise LabError(f"target_modules='all-linear': the model has no linear layer inside. {there_is}")
        return found
    if isinstance(target_modules, str):
        wanted = [target_modules]
        hint = f" A string is a pattern for the whole name; for names write a list: [{target_modules!r}]."
    else:
        wanted, hint = list(target_modules), ""
    if not wanted or not all(isinstance(target, str) and target for target in wanted):
        raise LabError(f"target_modules={target_modules!r} is out of range: 'all-linear' or a list of names.")
    for target in wanted:
        if not any(matches(name, target if hint else [target]) for name in modules):
            raise LabError(f"target_modules: the model has no layer {target!r}. {there_is}{hint}")
    return {name: m for name, m in modules.items() if matches(name, target_modules if hint else wanted)}


def _adaptable(model: nn.Module) -> dict[str, bool]:
    """Name of each layer that LoRA can adapt -> whether "all-linear" means it: it is linear, and not the head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    kinds = {name: (kind_for(module), module) for name, module in model.named_modules() if name}
    return {
        name: kind in (LoRALinear, LoRAConv1D) and module is not head for name, (kind, module) in kinds.items() if kind
    }


def adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """name -> adapted layer, in the model's order.

    Raises
    ------
    LabError
        There is none.
    """
    found = {name: module for name, module in model.named_modules() if name and isinstance(module, LoRALinear)}
    if not found:
        raise LabError("This model has no adapters: `inject(model, target_modules, rank, alpha)` puts them on.")
    return found


def freeze(model: nn.Module) -> nn.Module:
    """Let what every adapter trains (A and B, in LoRA) be trained, and nothing else. Returns the model."""
    model.requires_grad_(False)
    for layer in adapted_layers(model).values():
        for name in layer.TRAINED:
            getattr(layer, name).requires_grad_(True)
    return model


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer should get."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def merge(model: nn.Module) -> int:
    """Merge every adapter that is not merged yet; if there is none, a warning says so and nothing happens.

    Returns
    -------
    int, layers merged by this call

    Raises
    ------
    LabError
        A layer cannot be merged (see LoRALinear.merge), or shares its weight with another module (tied embeddings),
        which would change too. The model is unchanged then.

    >>> model = inject(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), ["0", "1"], rank=2, alpha=4)
    >>> merge(model), unmerge(model)
    (2, 2)
    """
    waiting = {name: layer for name, layer in adapted_layers(model).items() if not layer.merged}
    if not waiting:
        warnings.warn("All adapters are merged already: nothing was done.", stacklevel=2)
    refuse_tied(model, [layer.base_layer.weight for layer in waiting.values()], "merging")
    for name, layer in waiting.items():
        try:
            layer.merged_weight()  # raises before anything is changed
        except LabError as error:
            raise LabError(f"{name}: {error}") from error
    for layer in waiting.values():
        layer.merge()
    return len(waiting)


def refuse_tied(model: nn.Module, weights: list[nn.Parameter], doing: str) -> None:
    """Raise a LabError if one of `weights` is another module's too, for `doing` would change both."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for weight in weights:
        holders = names[id(weight)]
        if len(holders) > 1:
            raise LabError(f"{' and '.join(holders)} are one tensor: {doing} would change both. Untie them first.")


def unmerge(model: nn.Module) -> int:
    """Unmerge every adapter that is merged; if there is none, a warning says so and nothing happens.

    Returns
    -------
    int, layers unmerged by this call
    """
    merged = [layer for layer in adapted_layers(model).values() if layer.merged]
    if not merged:
        warnings.warn("No adapter is merged: nothing was done.", stacklevel=2)
    for layer in merged:
        layer.unmerge()
    return len(merged)


def take_off(model: nn.Module) -> nn.Module:
    """Put the base layers back, in place, and return the model. What is merged stays in their weights; all stay frozen.
    """
    for name, layer in adapted_layers(model).items():
        model.set_submodule(name, layer.release())
    return model
