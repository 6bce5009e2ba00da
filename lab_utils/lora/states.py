"""The numbers of the adapters on a model: taken out as one dict, and put in, all of them or none."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import LabError
from ..finite import nonfinite_in_words
from .keys import PREFIX, canonical, parse
from .layers import LoRALinear
from .whole_model import adapted_layers


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all A and B, or of what a variant has in their place, under the names that peft gives them in a file.

    Returns
    -------
    dict, for instance "base_model.model.layers.0.q_proj.lora_A.weight" -> Tensor (rank, in)

    >>> from lab_utils.lora import inject
    >>> model = inject(nn.Sequential(nn.Linear(8, 4)), ["0"], rank=2, alpha=4)
    >>> {key: tuple(matrix.shape) for key, matrix in adapter_state(model).items()}
    {'base_model.model.0.lora_A.weight': (2, 8), 'base_model.model.0.lora_B.weight': (4, 2)}
    """
    return {key: matrix.detach().clone() for key, matrix in _saved(adapted_layers(model)).items()}


def _saved(layers: dict[str, LoRALinear]) -> dict[str, nn.Parameter]:
    """peft's name -> parameter, of all that belongs into a file."""
    if not all(layer.SAVED for layer in layers.values()):
        raise LabError("This variant moves the base weights: merge it and save the whole model.")
    return canonical(
        {
            f"{name}.{key}": getattr(layer, attribute)
            for name, layer in layers.items()
            for key, attribute in layer.SAVED.items()
        },
        "The model",
    )


def load_adapter(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give the adapters on `model` the weights in `state`, all or none. Returns the model.

    Every tensor of `state` is used, and every adapter on the model gets its tensors, or nothing is loaded.

    Parameters
    ----------
    model : nn.Module with adapters, unmerged, on the modules and of the rank that `state` is for
    state : dict as `adapter_state` returns it; names as `state_dict()` gives them, without peft's prefix or with an
        adapter's name, are understood too. A copy of a base weight, which peft writes beside adapted embeddings, must
        be equal to the model's own.

    Raises
    ------
    LabError
        Keys are missing, unexpected or of another shape; a tensor holds NaN, infinity or no floating-point numbers; a
        layer is merged; the base weights differ, or are not finite.
    """
    layers = adapted_layers(model)
    if any(layer.merged for layer in layers.values()):
        raise LabError("The adapter is merged: other weights now would make unmerging wrong. Call `unmerge` first.")
    ours, state = _saved(layers), canonical(state)
    bases = {_base_name(name): one for name, one in model.named_parameters(remove_duplicate=False)}
    problems = [f"missing {key}" for key in ours if key not in state]
    problems += filter(None, (_misfit(key, value, ours, bases) for key, value in state.items()))
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise LabError(f"This adapter does not fit the model: {'; '.join(problems[:6])}{more}.")
    _refuse_nonfinite(ours, state, bases)
    with torch.no_grad():
        for key, parameter in ours.items():
            parameter.copy_(state[key])
    return model


def _base_name(name: str) -> str:
    """A base weight's name without what adapters put into it."""
    return parse(name).saved.replace(".base_layer.", ".")


def _misfit(key: str, value: object, ours: dict, bases: dict) -> str | None:
    """Why a tensor cannot be loaded, None if it can."""
    if not isinstance(value, Tensor):
        return f"{key} is a {type(value).__name__} and no Tensor"
    if key in ours:
        if value.shape != ours[key].shape:
            return f"{key} has shape {tuple(value.shape)} and not {tuple(ours[key].shape)}"
        return None if value.is_floating_point() else f"{key} holds {value.dtype}, not floating-point numbers"
    base = bases.get(key.replace(".base_layer.", "."))
    if base is None or ".lora_" in key:
        return f"unexpected {key}"
    same = value.shape == base.shape and torch.equal(value.to(base), base)
    return None if same else f"{key} is not the model's own: it belongs to another base model, or was trained too"


def _refuse_nonfinite(ours: dict, state: Mapping[str, Tensor], bases: dict) -> None:
    """Raise a LabError that names the first NaN or infinity, in the adapter as it would be loaded or in the base."""
    for key, parameter in ours.items():
        problem = nonfinite_in_words(key, state[key].to(parameter.dtype))
        if problem:
            raise LabError(f"{problem}: the adapter is damaged, not the base. Take an earlier one, or train it again.")
    adapter = {id(parameter) for parameter in ours.values()}
    for name, parameter in bases.items():
        problem = None if id(parameter) in adapter else nonfinite_in_words(name.removeprefix(PREFIX), parameter)
        if problem:
            raise LabError(f"{problem}: the base model is damaged, not the adapter. Load the base again.")
