"""Adapters from a folder onto a peft model, tensor by tensor: all that the file holds, and all that the model has.

peft's own `from_pretrained` passes over tensors whose names it does not expect, and lets others overwrite the base
model, which all adapters share. Here both are refused.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import LabError
from ..finite import nonfinite_in_words
from ..lora.facts import Facts, read_facts
from ..lora.folders import AdapterFiles
from ..lora.keys import MATRICES, Key, canonical, parse
from ..lora.peft_config import whole_in_words
from ..lora.targets import check_complete
from ..models.registry import base_model
from ..quiet import quiet
from .adapter import sides_of

PARTS = (*MATRICES, "lora_magnitude_vector")


def facts_for(base, found: AdapterFiles) -> Facts:
    """What an adapter's files say, held against a base model: it fits, and leaves the base as it is.

    Parameters
    ----------
    base : transformers model, with peft's layers in it or not
    found : AdapterFiles, as `lora.folders.read_files` returns it

    Raises
    ------
    LabError
        The adapter has a layer that the base lacks, or another shape (both are named), no tensors for a layer of the
        base that its config means, or its own weights in place of the base's; or as `lora.facts.read_facts`.
    """
    facts = read_facts(found.config, found.state, found.where)
    trained_on = found.config.get("base_model_name_or_path")
    source = f" It was trained on {trained_on}." if isinstance(trained_on, str) and trained_on else ""
    modules = dict(base.named_modules())
    for name, tensor in facts.state.items():  # a magnitude's shape is compared when it is loaded
        _check_shape(parse(name), tensor, modules, f"The adapter in {found.folder}", source)
    check_complete(base, found.config, _adaptable(base, modules), facts.layers, f"The adapter in {found.folder}")
    _check_whole(base, facts, found)
    return facts


def _adaptable(base, modules: Mapping) -> dict[str, bool]:
    """Name of each layer that LoRA can adapt -> whether "all-linear" means it. What is inside of one is not listed."""
    head, found = base.get_output_embeddings(), {}
    for name, layer in modules.items():
        if ".base_layer" in name or ".lora_" in name or _sizes(layer) is None:
            continue
        found[name] = layer is not head and not isinstance(getattr(layer, "base_layer", layer), torch.nn.Embedding)
    return found


def _check_shape(key: Key, tensor: Tensor, modules: Mapping, what: str, source: str) -> None:
    """Raise a LabError unless the base has the layer, and the tensor the layer's size."""
    layer = modules.get(key.module)
    if layer is None:
        raise LabError(f"{what} does not fit this base, which has no layer {key.module}: take its own base.{source}")
    sizes = _sizes(layer)
    if sizes is None:
        kind = type(layer).__name__
        raise LabError(f"{what} does not fit this base: {key.module} is a {kind}, which LoRA cannot adapt.{source}")
    side = 1 if key.part.endswith("A") else 0  # A is rank × in, B is out × rank and may have a bias
    if key.part in MATRICES and tensor.shape[side] != sizes[side]:
        raise LabError(
            f"{what} does not fit this base: {key.part} of {key.module} is {'×'.join(map(str, tensor.shape))}, and the "
            f"layer is {sizes[0]}×{sizes[1]}. It was trained on another model.{source}"
        )


def _sizes(layer) -> tuple[int, int] | None:
    """(out, in) of a layer that LoRA can adapt, peft's layers included; None for any other."""
    if isinstance(layer, torch.nn.Embedding):
        return layer.embedding_dim, layer.num_embeddings
    sides = sides_of(layer)
    return sides and sides[::-1]


def _check_whole(base, facts: Facts, found: AdapterFiles) -> None:
    """Raise a LabError if the adapter has other weights than the base's in their place; equal copies do no harm."""
    own = {name.replace(".base_layer.", "."): one for name, one in base.named_parameters(remove_duplicate=False)}
    trained = found.config.get("modules_to_save") or []
    named = trained if isinstance(trained, list) else [trained]
    lost = [one for one in named if _has(own, one) and not _has(facts.whole, one)]
    if lost:
        raise LabError(
            f"{found.where} says modules_to_save={trained!r}, and the tensors beside it do not have that module. "
            f"{whole_in_words(found.config)}Copy both files again."
        )
    for name, tensor in facts.whole.items():
        if name in own and own[name].shape == tensor.shape and torch.equal(tensor.to(own[name]), own[name]):
            continue
        has = "has other numbers" if name in own else "has no tensor of that name"
        why = whole_in_words(found.config) or (
            "It was saved with its own tables, as after training them or changing the vocabulary. "
        )
        raise LabError(
            f"The adapter in {found.folder} holds {name} ({'×'.join(map(str, tensor.shape))}), and this base {has}. "
            f"{why}Adapters that share a base cannot change it."
        )


def _has(tensors: Mapping[str, Tensor], module: object) -> bool:
    """Does a module that modules_to_save names have tensors here?"""
    return any(f".{name}".rpartition(".")[0].endswith(f".{module}") for name in tensors)


def attach(model, name: str, facts: Facts):
    """Put an adapter on a base model, or beside those on a peft model; returns the peft model, frozen.

    Raises
    ------
    LabError
        A tensor of the file or of the model is left over (`load_tensors`).
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    rank, alpha = next(iter(facts.layers.values()))
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=facts.dropout, use_rslora=facts.use_rslora, use_dora=facts.use_dora,
        lora_bias=facts.lora_bias, inference_mode=True, task_type="CAUSAL_LM", target_modules=sorted(facts.layers),
        rank_pattern={re.escape(one): layer.rank for one, layer in facts.layers.items() if layer.rank != rank},
        alpha_pattern={re.escape(one): layer.alpha for one, layer in facts.layers.items() if layer.alpha != alpha},
    )  # fmt: skip
    with quiet():
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
    load_tensors(model, facts.state, name)
    return model


def adapter_tensors(model, name: str = "default") -> dict[str, torch.nn.Parameter]:
    """The parameters of one adapter in a peft model, under the names that peft gives them in a file."""
    found = {}
    for module_name, module in base_model(model).named_modules():
        for part in PARTS:
            parts = getattr(module, part, {})
            held = parts[name] if hasattr(module, "lora_A") and name in parts else None
            weight = held.weight if isinstance(held, torch.nn.Module) else held
            if weight is not None:
                found[Key(module_name, part).saved] = weight
            if part == "lora_B" and getattr(held, "bias", None) is not None:
                found[Key(module_name, part, True).saved] = held.bias
    return found


def load_tensors(model, state: Mapping[str, Tensor], name: str = "default", where: str = "This adapter") -> None:
    """Copy tensors into an adapter of a peft model: every one of the file, and for every one of the model, or none.

    Parameters
    ----------
    model : peft model with an adapter of that name
    state : dict name -> Tensor, as `lora.folders.read_tensors` returns it
    name : str, the adapter
    where : str, the file, for messages

    Raises
    ------
    LabError
        A tensor is left over in the file or in the model, or has another shape; or is not finite in the model's dtype.
        Nothing was loaded then.
    """
    parameters, state = adapter_tensors(model, name), canonical(state, where)
    _refuse(_left_over(parameters, state), parameters, state, where)
    for key, parameter in parameters.items():
        problem = nonfinite_in_words(key, state[key].to(parameter.dtype))
        if problem:
            raise LabError(f"{where}: {problem}. The adapter is damaged, not the base.")
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(state[key])


def _left_over(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What the file or the model has for itself, or in another shape."""
    return [
        *(f"the model has {key} and the file does not" for key in parameters if key not in state),
        *(f"the file has {key} and the model does not" for key in state if key not in parameters),
        *(
            f"{key} is {tuple(state[key].shape)} in the file and {tuple(one.shape)} in the model"
            for key, one in parameters.items() if key in state and one.shape != state[key].shape
        ),
    ]  # fmt: skip


def _refuse(problems: list[str], parameters: Mapping, state: Mapping, where: str) -> None:
    """Raise a LabError that names the first problems, if there is one."""
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise LabError(
            f"{where} does not fit the model: {'; '.join(problems[:3])}{more}. The file has {len(state)} tensors, the "
            f"model's adapter {len(parameters)}."
        )
