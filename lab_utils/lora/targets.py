"""Which layers an adapter's config means: peft's rules for names, patterns, excluded and numbered layers."""

import re
from collections.abc import Collection, Iterable, Mapping

from torch import nn

from ..errors import LabError

NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying")
NAMING = ("target_modules", "modules_to_save", "layer_replication", *NARROWING)  # the fields that choose layers
STACKS = ("layers", "h", "encoder.layer", "bert.encoder.layer")  # where peft looks for a model's numbered layers


def matches(name: str, target_modules: str | Iterable[str]) -> bool:
    """peft's rule: a list holds whole names or their ends after a dot; a string is a pattern for the whole name.

    Raises
    ------
    LabError
        The string is not a regular expression.
    """
    if isinstance(target_modules, str):
        try:
            return re.fullmatch(target_modules, name) is not None
        except re.error as error:
            raise LabError(f"The pattern {target_modules!r} is not a regular expression: {error}.") from error
    return any(name == target or name.endswith(f".{target}") for target in target_modules)


def is_all_linear(target_modules: object) -> bool:
    """Is it peft's word for every linear layer but the output head?"""
    return isinstance(target_modules, str) and target_modules.lower() == "all-linear"


def adapts(config: Mapping, module: str, linear: bool) -> bool:
    """peft's rule: does a config put an adapter on the module of that name?

    Parameters
    ----------
    config : the fields of an adapter's config, of the right types
    module : str, its name in the base model
    linear : bool, is it one of the layers that "all-linear" means?

    Raises
    ------
    LabError
        A pattern is not a regular expression.
    """
    targets, whole = config.get("target_modules") or [], config.get("modules_to_save") or []
    if matches(module, config.get("exclude_modules") or []):
        return False
    if any(f".{one}." in f".{module}." for one in ([whole] if isinstance(whole, str) else whole)):
        return False
    if is_all_linear(targets):
        return linear
    if isinstance(targets, str) or module in targets:
        return matches(module, targets)
    return matches(module, targets) and _is_numbered(config, module)


def _is_numbered(config: Mapping, module: str) -> bool:
    """Is the module in one of the layers that layers_to_transform numbers? Without numbers every module is."""
    numbers = config.get("layers_to_transform")
    if numbers in (None, []):
        return True
    patterns = config.get("layers_pattern") or r"[^.]*"
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            found = re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module)
        except (re.error, TypeError) as error:
            raise LabError(f"layers_pattern has {pattern!r}, which is not a regular expression ({error}).") from error
        if found:
            return int(found[1]) in (numbers if isinstance(numbers, list) else [numbers])
    return False


def check_complete(
    model: nn.Module, config: Mapping, adaptable: Mapping[str, bool], adapted: Collection[str], what: str
) -> None:
    """Raise a LabError that names the first layer of `model` that a config means and that no tensors came for.

    A list may name modules that the model does not have.

    Parameters
    ----------
    model : the base model
    config : the fields of the adapter's config
    adaptable : dict name -> bool, the model's layers that LoRA can adapt, and whether "all-linear" means them
    adapted : names of the layers that have tensors
    what : str, the adapter, for the message
    """
    kept = kept_layers(config.get("layer_replication"))
    if kept is not None and kept != (found := _count_layers(model)):
        has = f"has {found} layers" if found else "has no list of layers that peft would find"
        raise LabError(
            f"{what} says layer_replication={config['layer_replication']!r}, which makes a model of {kept} layers, and "
            f"this base {has}. Load it with peft."
        )
    for name, linear in adaptable.items():
        if name in adapted or (config.get("ensure_weight_tying") and not linear):
            continue
        if adapts(config, name, linear):
            raise LabError(
                f"{what} is incomplete: its config says target_modules={config.get('target_modules')!r}, which means "
                f"{name} of this base too, and there are no tensors for that layer. Copy both files again from where "
                "the adapter was trained, or take the base that it was trained on."
            )


def kept_layers(replication: object) -> int | None:
    """n if layer_replication leaves a model of n layers as it is, as [[0, 2], [2, 4]] does with n = 4; else None."""
    if not replication or not isinstance(replication, list):
        return None
    end = 0
    for pair in replication:
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(number) is int for number in pair):
            return None
        if pair[0] != end or pair[1] < end:
            return None
        end = pair[1]
    return end


def _count_layers(model: nn.Module) -> int | None:
    """How many numbered layers a model has, in the list that peft would replicate; None without one."""
    while isinstance(getattr(model, "model", None), nn.Module):
        model = model.model
    stacks = [found for path in STACKS if isinstance(found := dict(model.named_modules()).get(path), nn.ModuleList)]
    return len(stacks[0]) if stacks else None
