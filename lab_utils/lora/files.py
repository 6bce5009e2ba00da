"""Adapters on disk in peft's layout: `adapter_model.safetensors` and `adapter_config.json`.

peft loads what we save, and we load what peft saved.
"""

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from .. import files
from ..errors import LabError
from ..finite import nonfinite_in_words
from .facts import plain_settings, read_facts
from .folders import CONFIG, WEIGHTS, read_files
from .keys import parse
from .states import adapter_state
from .targets import matches
from .whole_model import LoRAConv1D, adapted_layers

__all__ = ["CONFIG", "WEIGHTS", "SavedAdapter", "read_adapter", "save_adapter"]


class SavedAdapter(NamedTuple):
    """What a folder holds: `inject(model, **settings)`, then `load_adapter(model, state)`."""

    state: dict[str, Tensor]  # as `adapter_state` returns it
    settings: dict  # rank, alpha, dropout, use_rslora, target_modules


def save_adapter(model: nn.Module, folder: str | Path) -> Path:
    """Write the adapters on `model` as peft would: `PeftModel.from_pretrained(base, folder)` loads them.

    Both files are moved into the folder when they are complete; whatever else is in it stays. Of adapted embeddings
    only A and B are written, without the copy of the base table that peft adds.

    Returns
    -------
    Path, the folder

    Raises
    ------
    LabError
        The model has no adapters, or they are not plain LoRA; its layers differ in rank, alpha, dropout or scaling
        rule; a tensor holds NaN or infinity; or the disk refuses. The folder is unchanged then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = files.user_path(folder)
    config = json.dumps(_config(model), indent=2, sort_keys=True)
    state = {key: matrix.cpu().contiguous() for key, matrix in adapter_state(model).items()}
    for key, matrix in state.items():
        if problem := nonfinite_in_words(key, matrix):
            raise LabError(
                f"{problem}: the adapter is damaged, and nothing was written to {folder}. Take an earlier checkpoint, "
                "or train again with a lower learning rate."
            )
    try:
        with files.replacing_files(folder) as new:
            (new / CONFIG).write_text(config, encoding="utf-8")
            save_file(state, new / WEIGHTS, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise LabError(f"No adapter could be written to {folder}: {files.explain(error)}") from error
    return folder


def read_adapter(folder: str | Path) -> SavedAdapter:
    """Read an adapter that `save_adapter` or peft has written.

    Parameters
    ----------
    folder : path, `~` allowed

    Returns
    -------
    SavedAdapter; beside A and B its state may hold copies of base weights, which `lora.load_adapter` compares

    Raises
    ------
    LabError
        A file is missing or damaged, holds NaN or infinity, or is not in peft's layout; it is no LoRA; config and
        tensors contradict each other; or it uses options of peft that change what is computed and that this library
        does not have (DoRA, several ranks, trained biases, …): they are named.
    """
    found = read_files(folder)
    facts = read_facts(found.config, found.state, found.where)
    settings = plain_settings(facts, found.config, found.where)
    copies = {key: one for key, one in found.state.items() if ".lora_" not in key}
    return SavedAdapter({**facts.state, **copies}, settings)


def _config(model: nn.Module) -> dict:
    """The adapter_config.json of the adapters on `model`."""
    layers = adapted_layers(model)
    other = next((type(layer).__name__ for layer in layers.values() if not layer.PLAIN), None)
    if other:
        raise LabError(f"Only plain LoRA is written as a file, and {other} is more than A and B. Merge it instead.")
    settings = {(la.rank, la.alpha, getattr(la.dropout, "p", 0.0), la.use_rslora) for la in layers.values()}
    if len(settings) > 1:
        raise LabError(
            "The layers differ in (rank, alpha, dropout, use_rslora): "
            f"{', '.join(map(str, sorted(settings)))}. One file holds one setting for all."
        )
    [(rank, alpha, dropout, use_rslora)] = settings
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "use_rslora": use_rslora, "bias": "none",
        "fan_in_fan_out": any(isinstance(layer, LoRAConv1D) for layer in layers.values()),
        "init_lora_weights": True, "target_modules": _target_modules(model),
    }  # fmt: skip


def _target_modules(model: nn.Module) -> list[str]:
    """The adapted layers by the ends of their names ("q_proj"), or by whole names if an end means another one too."""
    layers = adapted_layers(model)
    ends = sorted({name.rpartition(".")[2] for name in layers})
    inside = tuple(f"{name}." for name in layers)
    others = (name for name, _ in model.named_modules() if name not in layers and not name.startswith(inside))
    if any(matches(name, ends) for name in others):
        return sorted(parse(name).module for name in layers)  # without what torch.compile and FSDP put before it
    return ends
