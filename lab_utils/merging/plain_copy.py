"""Copies of a model on plain weights, its adapters merged or not: what `merging` is made of.

A copy is put together layer by layer: peft's LoRA layers and 4-bit layers are replaced, all else is shared or cast.
peft's own rules merge a layer (DoRA's too), after it has been put on plain float32 weights.
"""

import copy
from contextlib import contextmanager

import torch

from ..errors import LabError
from ..models.registry import base_model

MERGEABLE = ("peft.tuners.lora.layer.Linear", "peft.tuners.lora.bnb.Linear4bit")


def is_four_bit(module) -> bool:
    """Is it bitsandbytes' own 4-bit layer, not peft's around one?"""
    return type(module).__name__ == "Linear4bit" and hasattr(module, "weight") and not hasattr(module, "base_layer")


def is_mergeable(model) -> bool:
    """Are all adapters on a model of a kind that can be merged here? Those around a mixture's experts are not."""
    kinds = [type(module) for module in base_model(model).modules() if hasattr(module, "lora_A")]
    return all(f"{kind.__module__}.{kind.__name__}" in MERGEABLE for kind in kinds)


def replaced_layers(base) -> dict:
    """The layers that a plain copy replaces, by name: peft's LoRA layers, and 4-bit layers without an adapter."""
    found, inside = {}, None
    for name, module in base.named_modules():
        if inside and name.startswith(inside):  # what a layer holds follows it at once
            continue
        kind = f"{type(module).__module__}.{type(module).__name__}"
        if kind in MERGEABLE:
            if module.merged:
                raise LabError(f"The adapter on {name} is merged already. Call `model.unmerge_adapter()` first.")
            found[name], inside = module, f"{name}."
        elif kind.endswith(".ModulesToSaveWrapper"):
            raise LabError(
                f"{name} was trained as a whole beside the adapter (modules_to_save, a ModulesToSaveWrapper in peft), "
                "which cannot be merged here. Let peft make one model, `merge_and_unload()` on an unquantized base, or "
                "train the layer through target_modules. For an output head, set `config.tie_word_embeddings = False` "
                "before saving."
            )
        elif kind.startswith("peft."):
            raise LabError(
                f"{name} has an adapter of peft's kind {kind.removeprefix('peft.')}, which cannot be merged here: only "
                "LoRA, rsLoRA and DoRA on linear layers can, in 4 bits or unquantized. Serve it unmerged."
            )
        elif is_four_bit(module):
            found[name] = module
    return found


def plain_layer(layer, dtype: torch.dtype, weight=None):
    """A linear layer with own, plain weights in `dtype`: those of `layer`, or `weight`."""
    from ..finetune.fourbit import dequantize

    if weight is None:
        weight = dequantize(layer.weight, torch.float32) if is_four_bit(layer) else layer.weight
    if is_four_bit(layer):
        plain = torch.nn.Linear(1, 1, bias=layer.bias is not None, device="meta")
        plain.out_features, plain.in_features = weight.shape
    else:
        plain = copy.copy(layer)
        plain._parameters = dict(layer._parameters)
    plain.weight = torch.nn.Parameter(weight.detach().to(dtype, copy=True), requires_grad=False)
    if layer.bias is not None:
        plain.bias = torch.nn.Parameter(layer.bias.detach().to(dtype, copy=True), requires_grad=False)
    return plain


def _twin(module, made: dict):
    """A copy of a module and all in it, with own weights; `made` says by id what to put in instead of a module."""
    twin = copy.copy(module)
    twin.__dict__ |= {key: copy.copy(one) for key, one in module.__dict__.items() if isinstance(one, (dict, list, set))}
    for name, one in module._parameters.items():
        if one is not None:
            twin._parameters[name] = torch.nn.Parameter(one.detach().clone(), requires_grad=False)
    for name, one in module._modules.items():
        twin._modules[name] = made[id(one)] if id(one) in made else _twin(one, made)
    return twin


def unmerged_layer(module, dtype: torch.dtype, weight=None):
    """A copy of a peft layer over plain weights, its adapters in `dtype` too; of a bare layer, a plain one."""
    if not hasattr(module, "base_layer"):
        return plain_layer(module, dtype, weight)
    twin = _twin(module, {id(module.base_layer): plain_layer(module.base_layer, dtype, weight)})
    twin.__dict__.pop("forward", None)  # fourbit.speed_up's, which computes with the 4-bit weights
    return twin.to(dtype)


def merged_layer(module, dtype: torch.dtype, weight=None):
    """A plain layer with the module's active adapters merged in."""
    twin = unmerged_layer(module, torch.float32, weight)
    if hasattr(twin, "base_layer"):
        from peft.tuners.lora import Linear

        if not twin.disable_adapters:
            Linear.merge(twin, safe_merge=True)  # peft's rule for plain weights, whatever layer these came from
        twin = twin.base_layer
    inner = getattr(module, "base_layer", module)
    return (_transposed(twin) if was_transposed(inner) else twin).to(dtype)


def was_transposed(layer) -> bool:
    """Was it a layer of GPT-2, which has its matrix as (in, out), before it became a 4-bit layer with (out, in)?"""
    return is_four_bit(layer) and getattr(getattr(layer, "source_cls", None), "__name__", "") == "Conv1D"


def _transposed(layer):
    """A plain linear layer as GPT-2 has it."""
    from transformers.pytorch_utils import Conv1D

    plain = Conv1D(1, 1)
    plain.nf, plain.nx = layer.weight.shape
    plain.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous(), requires_grad=False)
    bias = layer.weight.new_zeros(plain.nf) if layer.bias is None else layer.bias.detach()
    plain.bias = torch.nn.Parameter(bias, requires_grad=False)
    return plain


def copy_of(model, build, dtype: torch.dtype, *, original=None, share: bool = False):
    """A plain copy of the base, or of `original`, with the layers that `build` makes; the rest is shared or cast."""
    base = base_model(model)
    source = base if original is None else original
    layers = replaced_layers(base)
    theirs = {name: _counterpart(original, name, layer) if original else layer for name, layer in layers.items()}
    # deepcopy takes what the memo holds as already copied: so no weight is copied, and no 4-bit layer either.
    tensors = (*source.parameters(), *source.buffers())
    try:
        plain = copy.deepcopy(source, {id(one): one for one in (*tensors, *theirs.values())})
    except (RuntimeError, TypeError) as error:  # a state that the model keeps from its last step
        raise LabError(
            f"This {type(source).__name__} keeps what cannot be copied ({error}). Load base and adapter again."
        ) from error
    for note in ("peft_config", "_hf_peft_config_loaded", "quantization_method"):
        plain.__dict__.pop(note, None)
    for name, layer in layers.items():
        try:
            plain.set_submodule(name, build(layer, dtype, _weight_of(theirs[name], layer) if original else None))
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise LabError(f"peft cannot merge this adapter, on {name}: {error}") from error
    if not share:
        _own_tensors(plain, {plain.get_submodule(name) for name in layers}, dtype)
    plain.hf_quantizer, plain.is_quantized = None, False
    if hasattr(plain.config, "quantization_config"):
        del plain.config.quantization_config
    head = plain.get_output_embeddings()
    if head is not None and head.weight is not plain.get_input_embeddings().weight:
        plain.config.tie_word_embeddings = False
    return plain.eval()


def _weight_of(theirs, layer):
    """The matrix of a layer's counterpart, as (out, in)."""
    return theirs.weight.T if was_transposed(getattr(layer, "base_layer", layer)) else theirs.weight


def _own_tensors(plain, done: set, dtype: torch.dtype) -> None:
    """Give a copy its own parameters in `dtype` and its own buffers, but for the layers in `done`; ties stay ties."""
    own = {}
    done = {inner for layer in done for inner in layer.modules()}
    for module in set(plain.modules()) - done:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in own:
                    own[id(parameter)] = torch.nn.Parameter(parameter.detach().to(dtype, copy=True), False)
                module._parameters[name] = own[id(parameter)]
        for name, buffer in module._buffers.items():  # rotary frequencies: float32 whatever the weights are
            module._buffers[name] = None if buffer is None else buffer.clone()


def _counterpart(original, name: str, layer):
    """The module of that name in `original`, of the same shape as an adapted or 4-bit layer."""
    try:
        found = original.get_submodule(name)
    except AttributeError:
        found = None
    inner = getattr(layer, "base_layer", layer)
    shape = tuple(inner.weight.quant_state.shape) if is_four_bit(inner) else tuple(inner.weight.shape)
    shape = shape[::-1] if was_transposed(inner) else shape
    if found is None or tuple(found.weight.shape) != shape:
        there = "has no such layer" if found is None else f"has {tuple(found.weight.shape)} there"
        raise LabError(f"`original` is another model: {name} is {shape} in the adapted model, and `original` {there}.")
    return found


def whole_copy(model):
    """A deep copy of a 4-bit peft model that answers by peft's own layers and keeps no tie to the model."""
    memo = {id(module.forward): "left out" for module in model.modules() if "forward" in module.__dict__}
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        module.__dict__.pop("forward", None)
        if is_four_bit(module):
            module.weight.module = module  # copied as a reference to the old layer, which a new weight would write to
            module.quant_state = module.weight.quant_state
    return twin


@contextmanager
def not_repacking(model):
    """Inside, no forward repacks 4-bit weights, however the model was loaded."""
    layers = [layer for layer in base_model(model).modules() if is_four_bit(layer)]
    before = [layer.support_avx512bf16_for_cpu for layer in layers]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    try:
        yield
    finally:
        for layer, flag in zip(layers, before, strict=True):
            layer.support_avx512bf16_for_cpu = flag
