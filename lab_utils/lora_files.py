"""Adapters on disk in peft's layout: `adapter_model.safetensors` and `adapter_config.json`.

peft loads what we save, and we load what peft saved.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from .errors import LabError
from .lora import PREFIX, LoRAConv1D, adapted_layers, adapter_state, matches

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
HARMLESS = {  # entries of peft's config that do not change what the adapter computes
    "auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "task_type",
}  # fmt: skip
READ = {"lora_alpha", "lora_dropout", "peft_type", "r", "target_modules", "use_rslora"}
INITS = (True, False, "gaussian", "orthogonal", "eva")  # the other ones change the base weights too


class SavedAdapter(NamedTuple):
    """What a folder holds: `inject(model, **settings)`, then `load_adapter(model, state)`."""

    state: dict[str, Tensor]  # as `adapter_state` returns it
    settings: dict  # rank, alpha, dropout, use_rslora, target_modules


def save_adapter(model: nn.Module, folder: str | Path) -> Path:
    """Write the adapters on `model` as peft would: `PeftModel.from_pretrained(base, folder)` loads them.

    Both files are written beside the folder and moved in when they are complete. Of adapted embeddings only A and B are
    written, without the copy of the base table that peft adds.

    Returns
    -------
    Path, the folder

    Raises
    ------
    LabError
        The model has no adapters, or they are no plain LoRA; its layers differ in rank, alpha, dropout or scaling
        rule; or the disk refuses. The folder is unchanged then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    config = json.dumps(_config(model), indent=2, sort_keys=True)
    state = {key: matrix.cpu().contiguous() for key, matrix in adapter_state(model).items()}
    folder = Path(folder)
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        save_file(state, scratch / WEIGHTS, metadata={"format": "pt"})
        (scratch / CONFIG).write_text(config)
        for name in (WEIGHTS, CONFIG):
            with open(scratch / name, "rb") as file:
                os.fsync(file.fileno())
        folder.mkdir(exist_ok=True)
        for name in (WEIGHTS, CONFIG):
            os.replace(scratch / name, folder / name)
    except (OSError, SafetensorError) as error:
        raise LabError(f"No adapter could be written to {folder}: {error}. Choose another folder.") from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def read_adapter(folder: str | Path) -> SavedAdapter:
    """Read an adapter that `save_adapter` or peft has written.

    Raises
    ------
    LabError
        A file is missing or damaged; it is no LoRA; or it uses options of peft that change what is computed and that
        this library does not have (DoRA, ranks by pattern, trained biases, …): they are named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise LabError(f"There is no {name} in {folder}. An adapter is a folder with {CONFIG} and {WEIGHTS}.")
    try:
        config = json.loads((folder / CONFIG).read_text())
        state = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise LabError(f"The adapter in {folder} is damaged: {error}. Save or copy it again.") from error
    settings = _settings(config)
    if not isinstance(settings["target_modules"], str):  # peft lets a list name modules that the model does not have
        modules = {key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in state if ".lora_" in key}
        wanted = settings["target_modules"]
        settings["target_modules"] = [t for t in wanted if any(matches(module, [t]) for module in modules)]
    return SavedAdapter(state, settings)


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
    return sorted(layers) if any(matches(name, ends) for name in others) else ends


def _settings(config: dict) -> dict:
    """What `inject` needs, from peft's config; a LabError names what cannot be honoured."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise LabError(f"{CONFIG} describes {kind!r} and not 'LORA'.")
    unknown = {key: value for key, value in config.items() if value and key not in HARMLESS | READ}
    if unknown.get("bias") == "none":
        del unknown["bias"]
    if unknown.get("init_lora_weights") in INITS:
        del unknown["init_lora_weights"]
    if unknown:
        options = ", ".join(f"{key}={value!r}" for key, value in sorted(unknown.items()))
        raise LabError(f"This adapter uses options that this library does not have: {options}. Load it with peft.")
    missing = [key for key in ("lora_alpha", "r", "target_modules") if not config.get(key)]
    if missing:
        raise LabError(f"{CONFIG} does not say {', '.join(missing)}.")
    return {
        "target_modules": config["target_modules"], "rank": config["r"], "alpha": config["lora_alpha"],
        "dropout": config.get("lora_dropout", 0.0), "use_rslora": config.get("use_rslora", False),
    }  # fmt: skip
