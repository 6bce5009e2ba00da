"""What the fields of peft's LoraConfig do to the numbers of a saved adapter.

Most of a LoraConfig tells how the adapter was made: how A and B began, on which layers, with which settings of the
training. None of that changes what the saved tensors compute, so it is accepted whatever its value. `FIELDS` decides
each field; `lora_facts` holds what is left against the tensors.
"""

import re
import warnings
from collections.abc import Mapping

from ..errors import LabError, shown
from .targets import kept_layers, matches

READ = "it sets rank, alpha, dropout or the scaling rule"
NOTE = "it says where the adapter comes from or how it was trained; no saved tensor computes otherwise for it"
TENSORS = "it says which layers have tensors; the tensors say that too, and are counted"
CHANGES = "it changes what is computed, unless it is empty"
OTHERS = "it trains other tensors than A and B, and those are in the file or not"
INIT = "it says how A and B began; some ways take the start out of the base weights, which the file does not hold"

FIELDS = {  # each field of peft's LoraConfig, by what it does to a saved adapter
    "alora_invocation_tokens": CHANGES, "alpha_pattern": READ, "arrow_config": CHANGES, "auto_mapping": NOTE,
    "base_model_name_or_path": NOTE, "bias": OTHERS, "corda_config": NOTE, "ensure_weight_tying": TENSORS,
    "eva_config": NOTE, "exclude_modules": TENSORS, "fan_in_fan_out": NOTE, "inference_mode": NOTE,
    "init_lora_weights": INIT, "kasa_config": CHANGES, "layer_replication": CHANGES, "layers_pattern": TENSORS,
    "layers_to_transform": TENSORS, "loftq_config": NOTE, "lora_alpha": READ, "lora_bias": READ, "lora_dropout": READ,
    "lora_ga_config": NOTE, "megatron_config": NOTE, "megatron_core": NOTE, "modules_to_save": OTHERS,
    "monteclora_config": NOTE, "peft_type": READ, "peft_version": NOTE, "qalora_group_size": NOTE, "r": READ,
    "rank_pattern": READ, "revision": NOTE, "runtime_config": NOTE, "target_modules": TENSORS,
    "target_parameters": TENSORS, "task_type": NOTE, "trainable_token_indices": OTHERS, "use_bdlora": TENSORS,
    "use_dora": READ, "use_qalora": TENSORS, "use_rslora": READ, "velora_config": NOTE,
}  # fmt: skip
KEEPS_BASE = ("true", "false", "gaussian", "orthogonal", "eva", "mica")  # values of init_lora_weights


def check_kind(config: object, where: str) -> None:
    """Raise a LabError unless the config is one of LoRA, and says what none can do without."""
    if not isinstance(config, dict):
        raise LabError(f"{where} holds a {type(config).__name__} and not 'LORA' settings: a JSON object is needed.")
    kind = config.get("peft_type")
    if kind is None:
        raise LabError(
            f"{where} does not say peft_type, so peft did not write it. Only what peft or this library saved is an "
            "adapter here."
        )
    if kind != "LORA":
        raise LabError(f"{where} describes peft_type={kind!r} and not 'LORA'. Load it with peft.")
    needed = ("lora_alpha", "r", *(() if config.get("target_parameters") else ("target_modules",)))
    missing = [key for key in needed if config.get(key) in (None, "", [])]
    if missing:
        raise LabError(f"{where} does not say {', '.join(missing)}. Copy it again from where the adapter was trained.")


def check_options(config: dict, where: str) -> None:
    """Raise a LabError that names the options which change what is computed and are not known here.

    Keys that the installed peft does not know either are passed over, as peft does; a warning names those with a value.
    """
    refused = {}
    for key, value in config.items():
        changes = FIELDS.get(key) == CHANGES and value
        if changes and (key != "layer_replication" or kept_layers(value) is None):
            refused[key] = WHY.get(key, "What it does is not known here.")
    unknown = sorted(key for key, value in config.items() if key not in FIELDS and value and not key.startswith("_"))
    if unknown:
        names = ", ".join(f"{key}={shown(config[key])}" for key in unknown)
        warnings.warn(f"{where} has {names}: peft does not know that, and passes over it.", stacklevel=2)
    init = config.get("init_lora_weights", True)
    if init is not None and str(init).lower() not in KEEPS_BASE:
        refused["init_lora_weights"] = WHY["init_lora_weights"]
    if refused:
        options = ", ".join(f"{key}={config[key]!r}" for key in sorted(refused))
        why = " ".join(dict.fromkeys(refused.values()))
        raise LabError(f"{where} uses options that this library does not have: {options}. {why} Load it with peft.")


WHY = {
    "init_lora_weights": "With it the training began by taking a part out of the base weights, so A and B alone do not "
    "fit the base. peft converts such an adapter into a plain one: "
    "save_pretrained(folder, path_initial_model_for_weight_conversion=…).",
    "kasa_config": "It changes the base weights too.",
    "layer_replication": "It repeats layers of the base model.",
    "alora_invocation_tokens": "Its update applies only from certain tokens on.",
    "arrow_config": "It chooses among adapters for each token.",
}


def whole_in_words(config: Mapping[str, object]) -> str:
    """What it means that an adapter trained other weights than A and B, and the way out; "" if it did not."""
    what = []
    if config.get("modules_to_save"):
        modules = config["modules_to_save"]
        names = ", ".join(map(str, modules)) if isinstance(modules, list) else str(modules)
        what.append(
            f"modules_to_save means that {names} was trained as a whole beside the low-rank update, and that the file "
            "holds all its weights. Train without modules_to_save (target_modules can name the layer instead), or let "
            "peft make one model of base and adapter, `merge_and_unload()`, and use that as the base."
        )
    if config.get("bias") not in (None, "none"):
        what.append("The base's biases were trained too.")
    if config.get("trainable_token_indices"):
        what.append("Rows of the embedding were trained too.")
    return "".join(f"{sentence} " for sentence in what)


def names_of(config: dict, field: str, where: str) -> str | list[str] | None:
    """A field that is a list of names, or a pattern."""
    value = config.get(field)
    names = value if isinstance(value, list) else []
    if not isinstance(value, (str, list, type(None))) or not all(isinstance(name, str) for name in names):
        raise LabError(f"{where}: {field}={value!r} is out of range: a list of names, or a pattern.")
    return value


def is_named(module: str, names: str | list[str], where: str) -> bool:
    """`lora.matches`, with the file in the message."""
    try:
        return matches(module, names)
    except LabError as error:
        raise LabError(f"{where}: {error}") from error


def by_pattern(config: dict, name: str, module: str, default: object, where: str) -> tuple[object, bool]:
    """(the value that applies to a module by peft's rule, whether it comes from the pattern)."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise LabError(f"{where}: {name}={patterns!r} is out of range: an object of names and numbers.")
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value, True
        except re.error as error:
            raise LabError(f"{where}: {name} has {pattern!r}, which is not a regular expression ({error}).") from error
    return default, False


def flag(config: dict, name: str, where: str) -> bool:
    """A field that is true or false; false without it."""
    value = config.get(name) or False
    if not isinstance(value, bool):
        raise LabError(f"{where}: {name}={value!r} is out of range: true or false.")
    return value
