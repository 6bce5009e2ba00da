"""The towers of a vision-language model: what each holds, what of it a choice of targets hits, adapters for that."""

import math
import re
from dataclasses import dataclass

from ..errors import LabError, at_least
from ..finetune import take_off_adapter
from ..finetune.adapter import put_on
from ..quiet import quiet

LANGUAGE_ONLY = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class Tower:
    """One part of the model.

    Attributes
    ----------
    name : "vision", "merger" or "language"
    parameters : int, as without quantization
    layers : int, linear layers (the head, which no adapter gets by default, is one of the language model's)
    adapted : int, layers that get an adapter
    adapter_parameters : int, numbers in those adapters
    """

    name: str
    parameters: int
    layers: int
    adapted: int
    adapter_parameters: int


def tower_of(name: str) -> str:
    """The tower that a module or parameter belongs to, by its name: "vision", "merger" or "language"."""
    if "visual.merger." in name or "visual.deepstack_merger_list." in name:  # the second is Qwen3-VL's
        return "merger"
    return "vision" if "visual." in name else "language"


def layers(model) -> dict:
    """The layers with a matrix that an adapter could be added to.

    Returns
    -------
    dict name -> torch module: the linear layers, and the vision tower's first layer, a convolution
    """
    from torch import nn

    return {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv3d))}


def targeted(model, target_modules) -> list[str]:
    """Names of the layers that peft gives an adapter for `target_modules`: "all-linear", a list of endings, a pattern.

    peft compares a list's words with a name's end, after a dot; a string is a regular expression for the whole name.
    `model` has no adapters yet.

    Raises
    ------
    LabError
        Nothing is selected, or something without a matrix; or it is neither a list of names nor a pattern.
    """
    from torch import nn

    with quiet():  # importing peft imports bitsandbytes
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists
    found, head = layers(model), model.get_output_embeddings()
    if target_modules == "all-linear":
        return [name for name, layer in found.items() if isinstance(layer, nn.Linear) and layer is not head]
    _check_names(target_modules)
    config = LoraConfig(target_modules=target_modules)
    chosen = {name: one for name, one in model.named_modules() if name and check_target_module_exists(config, name)}
    for name, one in chosen.items():
        if name not in found:
            kind = type(one).__name__
            raise LabError(f"target_modules={target_modules!r} selects {name} too, a {kind}. Select layers only.")
    if not chosen:
        ends = sorted({name.rpartition(".")[2] for name in found})
        raise LabError(f"target_modules={target_modules!r} selects no layer. Names end with: {', '.join(ends)}.")
    return list(chosen)


def _check_names(target_modules) -> None:
    """Raise a LabError unless it is a regular expression, or a list of names."""
    if isinstance(target_modules, str):
        try:
            re.compile(target_modules)
        except re.error as error:
            raise LabError(f"target_modules={target_modules!r} is not a regular expression: {error}.") from error
    elif not isinstance(target_modules, (list, tuple, set)) or not all(isinstance(one, str) for one in target_modules):
        raise LabError(f"target_modules={target_modules!r} is neither a list of names nor a pattern.")


def towers(model, target_modules=LANGUAGE_ONLY, rank: int = 8) -> list[Tower]:
    """What each tower holds, and what of it `target_modules` selects.

    Parameters
    ----------
    model : Qwen2.5-VL or Qwen3-VL, of `tiny_model`, `load_sighted`, `real_shape` or `newer_shape`, without adapters
    target_modules : as in `targeted`
    rank : int >= 1, of the adapters that are counted

    Returns
    -------
    list of Tower: vision, merger, language

    Raises
    ------
    LabError
        As `targeted`, or `rank` is out of range.
    """
    from torch import nn

    at_least(1, rank=rank)

    found, chosen = layers(model), set(targeted(model, target_modules))
    numbers = dict.fromkeys(("vision", "merger", "language"), 0)
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        numbers[tower_of(name)] += math.prod(state.shape) if state else parameter.numel()
    table = []
    for tower, parameters in numbers.items():
        here = {name: layer for name, layer in found.items() if tower_of(name) == tower}
        adapted = [layer for name, layer in here.items() if name in chosen]
        linear = sum(isinstance(layer, nn.Linear) for layer in here.values())
        count = sum(rank * sum(_sides(layer)) for layer in adapted)
        table.append(Tower(tower, parameters, linear, len(adapted), count))
    return table


def _sides(layer) -> tuple[int, int]:
    """Inputs and outputs of a layer as a matrix; a convolution's inputs are all numbers of one patch."""
    if hasattr(layer, "in_features"):
        return layer.in_features, layer.out_features
    return layer.in_channels * math.prod(layer.kernel_size), layer.out_channels


def add_adapters(model, target_modules=LANGUAGE_ONLY, *, rank: int = 8, alpha: float = 16.0, seed: int = 0):
    """Freeze the model and put fresh LoRA adapters on what `target_modules` selects; older ones are taken off.

    Parameters
    ----------
    model : Qwen2.5-VL, or a peft model around it
    target_modules : as in `targeted`
    rank, alpha : the update is scaled by alpha / rank
    seed : int, of A

    Returns
    -------
    peft model in training mode; A and B are float32

    Raises
    ------
    LabError
        As `targeted`, or `rank` or `alpha` is out of range.

    Source: Dettmers et al. 2023 (QLoRA). https://arxiv.org/abs/2305.14314
    """
    import torch

    at_least(1, rank=rank)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise LabError(f"alpha={alpha!r} is out of range: a number above 0.")
    with quiet():
        from peft import LoraConfig
    model = take_off_adapter(model)
    targeted(model, target_modules)  # says what is wrong with them, if anything is
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=target_modules, task_type="CAUSAL_LM")
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return put_on(model, config)
