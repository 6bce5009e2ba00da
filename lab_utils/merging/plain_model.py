"""What a file is written from: a plain transformers model, all of whose numbers are finite and as its config says.

A program that loads the file builds the model from the config and puts the tensors in. So a config that says something
else than the tensors gives another model there, most often without a word: a head that is dropped, a layer of random
weights, rows of attention split into other heads.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import LabError
from ..finite import nonfinite_in_words

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HARMLESS = {  # attributes of a module that change no answer
    "training", "layer_idx", "padding_idx", "attention_dropout", "gradient_checkpointing", "name_or_path", "loss_type",
    "max_seq_len_cached", "original_max_seq_len", "vocab_size",
}  # fmt: skip
LOAD_AGAIN = "The config was changed after the model was built, or a module was exchanged: make them agree."


def require_plain(model) -> None:
    """Raise a LabError unless this is a transformers model on plain weights: no adapters, nothing quantized.

    Parameters
    ----------
    model : any object
    """
    if not all(hasattr(model, name) for name in ("config", "state_dict", "save_pretrained", "get_input_embeddings")):
        raise LabError(f"This is a {type(model).__name__}, and only transformers models can be exported.")
    kinds = {f"{type(module).__module__}.{type(module).__name__}" for module in model.modules()}
    foreign = sorted(kind for kind in kinds if kind.startswith(("peft.", "bitsandbytes.", "lab_utils.")))
    if foreign:
        ours = foreign[0].startswith("lab_utils.")
        how = "lora.merge(model), then lora.take_off(model)" if ours else "merging.merge(model, probe)"
        raise LabError(f"The model is not plain: it holds {', '.join(foreign[:3])}. Merge it first, {how}.")
    if getattr(model.config, "quantization_config", None) is not None:
        raise LabError("The model's config says that it is quantized: merge it first, merging.merge(model, probe).")
    for name, parameter in model.named_parameters():
        kind = type(parameter.data).__name__
        if parameter.is_meta:
            raise LabError(f"{name} is not in memory (it is on the device 'meta'): load the model without offloading.")
        if kind != "Tensor":
            raise LabError(f"{name} is a {kind}, not a plain tensor: gather or dequantize the model first.")
        if parameter.dtype not in DTYPES:
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise LabError(f"{name} is {dtype}, which only means something to what quantized it: dequantize it first.")


def require_own_forward(model) -> None:
    """Raise a LabError if a module has a forward hook, or a `forward` of another maker: no file could hold either.

    What transformers, peft, accelerate and torch put on a model themselves (to place layers on devices, to collect
    hidden states) changes no answer. A `forward` that was exchanged in the module's class is not seen.
    """
    for name, module in model.named_modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        replaced = [vars(module)["forward"]] if "forward" in vars(module) else []
        for function in (*replaced, *hooks):
            if _maker(function).partition(".")[0] in ("transformers", "peft", "accelerate", "torch"):
                continue
            what, way_out = (
                ("another forward", "`del module.forward` takes it off") if function in replaced
                else ("a forward hook", "remove it with its handle, `handle.remove()`")
            )  # fmt: skip
            raise LabError(
                f"{name or 'The model'} has {what} ({getattr(function, '__qualname__', type(function).__name__)}), "
                f"which no file can hold: the exported model would give other answers. First {way_out}."
            )


def _maker(function) -> str:
    """The module in which a function was written, whatever functools.wraps made of its attributes."""
    while hasattr(function, "func"):
        function = function.func  # functools.partial
    function = getattr(function, "__func__", function)
    return getattr(function, "__globals__", {}).get("__name__") or type(function).__module__


def require_rows(tokenizer, rows: int) -> None:
    """Raise a LabError that names the tokenizer's last token if the model's embedding has no row for it."""
    try:
        vocabulary = tokenizer.get_vocab()
    except NotImplementedError:  # a tokenizer that keeps no list
        return
    last = max(vocabulary, key=vocabulary.get, default=None)
    if last is not None and vocabulary[last] >= rows:
        raise LabError(
            f"The tokenizer's token {vocabulary[last]}, {last!r}, has no row in the model's embedding of {rows} rows: "
            "model.resize_token_embeddings(len(tokenizer)) adds it, or take the tokenizer that belongs to it."
        )


def require_finite(model) -> None:
    """Raise a LabError that names the first tensor and place, or field of a config, that is nan or infinite.

    A config may say infinity where its class does so by itself (Mamba's time steps have no upper limit).
    """
    for kind in ("config", "generation_config"):
        found = getattr(model, kind, None)
        if found is None:
            continue
        allowed = dict(_numbers(_defaults(type(found))))
        for field, value in _numbers(found.to_dict()):
            if not math.isfinite(value) and allowed.get(field) != value:
                raise LabError(
                    f"{kind}.{field} is {value}, which is not a number that a model can compute with, and no JSON: set "
                    "it to the value that the model was trained with."
                )
    for name, tensor in model.state_dict().items():
        if place := nonfinite_in_words(name, tensor):
            raise LabError(
                f"{place}: the model is damaged, and nothing was written. Load it again. If it was merged, look for "
                "such a value in the adapter, or merge into a dtype with a wider range (float32)."
            )


def is_tied(model) -> bool | None:
    """Is the head's matrix the embedding itself, whatever the config says? None for a model without a head."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embedding is None:
        return None
    return _identity(head.weight) == _identity(embedding.weight)


def _identity(tensor) -> tuple:
    """Equal for two names of one tensor, also if they are two Python objects that share the memory."""
    if tensor.is_meta:
        return (id(tensor),)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride()


def _numbers(value, field: str = "") -> Iterator[tuple[str, float]]:
    """(field, value) of every float in a config, as "rope_parameters.rope_theta" or "limits[1]"."""
    if isinstance(value, float):
        yield field, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, f"{field}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _numbers(one, f"{field}[{number}]")


def _defaults(kind: type) -> dict:
    """What a config of that class says by itself; {} if it cannot be made without being told more."""
    try:
        return kind().to_dict()
    except Exception:  # whatever such a class asks for
        return {}


@contextmanager
def honest_config(model):
    """Inside, the model's config says whether the head is tied as the tensors do."""
    tied = is_tied(model)
    configs = {id(one): one for one in (model.config, model.config.get_text_config())}.values()
    before = [(one, one.tie_word_embeddings) for one in configs if hasattr(one, "tie_word_embeddings")]
    try:
        for one, _ in before:
            if tied is not None:
                one.tie_word_embeddings = tied
        yield
    finally:
        for one, value in before:
            one.tie_word_embeddings = value


def require_as_configured(model) -> None:
    """Raise a LabError unless the config builds this very model: its tensors, their shapes, and what is done with them.

    The model is built from its config once more, without weights, and the two are compared: names and shapes of all
    tensors, which of them are one and the same, the numbers that modules compute with (heads, epsilon, scaling), the
    activation functions, and the rotary frequencies. Whether the head is tied is taken from the tensors.
    """
    with honest_config(model):
        try:
            with torch.device("meta"):
                built = type(model)(copy.deepcopy(model.config))
        except Exception as error:  # whatever a config that does not fit makes a model's code raise
            raise LabError(f"No model can be built from this config: {error}. {LOAD_AGAIN}") from error
        _compare_tensors(model, built)
        _compare_modules(model, built)


def _compare_tensors(model, built) -> None:
    """The two have tensors of the same names and shapes, shared in the same way."""
    have, say = ({name: tuple(one.shape) for name, one in each.state_dict().items()} for each in (model, built))
    for name in {**say, **have}:
        if name not in say:
            raise LabError(f"The model has a tensor {name}, of which its config knows nothing. {LOAD_AGAIN}")
        if name not in have:
            raise LabError(f"The config asks for a tensor {name}, which the model does not have. {LOAD_AGAIN}")
        if have[name] != say[name]:
            raise LabError(f"{name} has shape {have[name]}, and the config says {say[name]}. {LOAD_AGAIN}")
    allowed = _shared(built)
    for name, others in sorted(_shared(model).items()):
        if not others <= allowed.get(name, set()):
            [other, *_] = sorted(others - allowed.get(name, set()))
            raise LabError(
                f"{name} and {other} are one tensor, and only one of them would be written. Give the model a copy, "
                "parameter.clone()."
            )


def _shared(model) -> dict[str, set[str]]:
    """For each parameter that has several names, its other names."""
    names: dict[tuple, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(_identity(parameter), set()).add(name)
    return {name: group - {name} for group in names.values() if len(group) > 1 for name in group}


def _compare_modules(model, built) -> None:
    """The two compute with the same numbers and functions."""
    modules = dict(model.named_modules())
    for name, wanted in built.named_modules():
        where = f"{name}." if name else ""
        found = modules.get(name)
        if type(found) is not type(wanted):
            raise LabError(
                f"{name} is {type(found).__name__}, and the config says {type(wanted).__name__}. {LOAD_AGAIN}"
            )
        for key, value in _settings(wanted).items():
            if key in (mine := _settings(found)) and mine[key] != value:
                raise LabError(f"{where}{key} is {mine[key]}, and the config says {value}. {LOAD_AGAIN}")
        _compare_frequencies(name, found)


def _settings(module) -> dict:
    """The numbers and words that a module keeps beside its tensors."""
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
        return {}
    return {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str)) and not key.startswith("_") and key not in HARMLESS
    }


def _compare_frequencies(name: str, module) -> None:
    """A rotary embedding turns by the frequencies that its config gives."""
    names = [key for key, _ in module.named_buffers(recurse=False) if key.endswith("inv_freq")]
    names = [key for key in names if "original" in key] or names  # the others change with the length of a text
    if not names or not hasattr(module, "config"):
        return
    try:
        fresh = dict(type(module)(copy.deepcopy(module.config)).named_buffers())
        wanted = {key: fresh[key] for key in names}
    except (KeyError, TypeError):  # it is built from more than a config
        return
    for key, value in wanted.items():
        found = getattr(module, key).cpu().float()
        tolerance = 1e-4 if getattr(module, key).dtype == torch.float32 else 1e-2  # rounded to half precision
        if value.shape != found.shape or not torch.allclose(value, found, rtol=tolerance, atol=0):
            raise LabError(
                f"{name}.{key}: the model turns q and k by other frequencies than its config says "
                f"(rope_parameters={module.config.rope_parameters}). {LOAD_AGAIN}"
            )
