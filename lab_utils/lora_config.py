"""What an adapter_config.json of peft says about the numbers, held against the tensors beside it.

Most of a LoraConfig tells how the adapter was made: how A and B began, on which layers, with which settings of the
training. None of that changes what the saved tensors compute, so it is accepted whatever its value. `FIELDS` decides
each field of peft's LoraConfig; what is left is rank, alpha and the scaling rule of each layer (`read_facts`).
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from .errors import LabError
from .lora import matches
from .lora_keys import MATRICES, PARTNER, Key, parse
from .lora_layers import check_settings

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
TRAINING_ONLY = re.compile(r"\.lora_(velora|monteclora)_")  # state of the backward pass, and of sampling while training


class Layer(NamedTuple):
    """What one layer's adapter is."""

    rank: int
    alpha: float


class Facts(NamedTuple):
    """What a saved adapter computes.

    Attributes
    ----------
    layers : dict, the adapted module's name -> Layer
    state : dict, peft's name -> Tensor, of A, B and DoRA's magnitudes
    whole : dict, name in the base model -> Tensor: copies of weights that the base model has itself
    dropout : float
    use_rslora, use_dora, lora_bias : bool
    """

    layers: dict[str, Layer]
    state: dict[str, Tensor]
    whole: dict[str, Tensor]
    dropout: float
    use_rslora: bool
    use_dora: bool
    lora_bias: bool

    def scaling(self, module: str) -> float:
        """What B·A is multiplied by."""
        rank, alpha = self.layers[module]
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_facts(config: object, state: Mapping[str, Tensor], where: str) -> Facts:
    """Hold a config against its tensors.

    Parameters
    ----------
    config : what adapter_config.json holds
    state : dict, peft's name -> Tensor, as `lora_keys.canonical` returns it
    where : str, the file of the config, for messages

    Raises
    ------
    LabError
        It is no LoRA; a value has the wrong type; an option changes what is computed in a way that is not known here,
        or changes the base model; or config and tensors contradict each other. Field, value and file are named.
    """
    _check_kind(config, where)
    _check_options(config, where)
    parts, whole = _parts(state, where)
    ranks = _ranks(parts, where)
    _check_targets(config, ranks, where)
    _check_blocks(config, ranks, where)
    flags = {name: _flag(config, name, where) for name in ("use_rslora", "use_dora", "lora_bias")}
    _check_parts(flags, parts, ranks, where)
    alpha, dropout = config.get("lora_alpha"), config.get("lora_dropout") or 0.0
    layers = {}
    for module, rank in ranks.items():
        _check_rank(config, module, rank, where)
        layers[module] = Layer(rank, _by_pattern(config, "alpha_pattern", module, alpha, where)[0])
        try:
            check_settings(*layers[module], dropout, flags["use_rslora"])
        except LabError as error:
            raise LabError(f"{where}, for layer {module}: {error}") from error
    return Facts(layers, {key.saved: one for key, one in parts.items()}, whole, float(dropout), **flags)


def _check_kind(config: object, where: str) -> None:
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


def _check_options(config: dict, where: str) -> None:
    """Raise a LabError that names the options which change what is computed and are not known here."""
    refused = {}
    for key, value in config.items():
        if FIELDS.get(key, CHANGES) == CHANGES and value:
            refused[key] = WHY.get(key, "What it does is not known here.")
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


def _parts(state: Mapping[str, Tensor], where: str) -> tuple[dict[Key, Tensor], dict[str, Tensor]]:
    """(A, B and magnitudes by key, copies of the base's own weights by name); what is for training only is left out."""
    parts, whole = {}, {}
    for name, tensor in state.items():
        key = parse(name)
        if key.part:
            parts[key] = tensor
        elif ".lora_" in name and not TRAINING_ONLY.search(name):
            raise LabError(f"The tensors beside {where} have {name}, which no layer of LoRA uses. Load it with peft.")
        elif ".lora_" not in name:
            whole[key.module.replace(".base_layer.", ".")] = tensor
    return parts, whole


def _ranks(parts: Mapping[Key, Tensor], where: str) -> dict[str, int]:
    """The adapted modules' ranks, by the shapes of A and B."""
    ranks = {}
    for key, tensor in parts.items():
        if key.part not in MATRICES or key.bias:
            continue
        partner = key._replace(part=PARTNER[key.part])
        if partner not in parts:
            raise LabError(
                f"The tensors beside {where} are damaged: they have {key.saved} but not {partner.saved}. Copy it again."
            )
        is_a = key.part.endswith("A")
        rank, other = tensor.shape[0 if is_a else 1], parts[partner].shape[1 if is_a else 0]
        if rank != other:
            raise LabError(
                f"The tensors beside {where} are damaged: {key.saved} {tuple(tensor.shape)} has rank {rank} and "
                f"{partner.saved} {tuple(parts[partner].shape)} has rank {other}. Copy it again."
            )
        ranks[key.module] = rank
    if not ranks:
        raise LabError(f"The tensors beside {where} hold no lora_A and no lora_B: {', '.join([*parts][:3]) or 'none'}.")
    return ranks


def _check_targets(config: dict, ranks: Mapping[str, int], where: str) -> None:
    """Raise a LabError if the file adapts a layer that the config leaves out: peft would pass over its tensors."""
    targets = _names(config, "target_modules", where) or []
    if config.get("ensure_weight_tying") or (isinstance(targets, str) and targets.lower() == "all-linear"):
        unnamed = None
    else:
        unnamed = next((module for module in ranks if not _is_named(module, targets, where)), None)
    if unnamed and config.get("target_parameters"):
        raise LabError(
            f"{where} uses options that this library does not have: target_parameters={config['target_parameters']!r}. "
            f"{unnamed} is not a layer with one weight. Load it with peft."
        )
    excluded, field = _names(config, "exclude_modules", where), "target_modules"
    if not unnamed and excluded:
        unnamed, field = next((one for one in ranks if _is_named(one, excluded, where)), None), "exclude_modules"
    chosen = config.get("layers_to_transform")
    if not unnamed and chosen not in (None, []):
        numbers = {str(one) for one in (chosen if isinstance(chosen, list) else [chosen])}
        unnamed = next((module for module in ranks if not numbers.intersection(module.split("."))), None)
        field = "layers_to_transform"
    if unnamed:
        raise LabError(
            f"{where} says {field}={config[field]!r}, which leaves out {unnamed}, and the tensors beside it adapt that "
            "layer. The two files do not belong together: copy both again from where the adapter was trained."
        )


def _is_named(module: str, names: str | list[str], where: str) -> bool:
    """`lora.matches`, with the file in the message."""
    try:
        return matches(module, names)
    except LabError as error:
        raise LabError(f"{where}: {error}") from error


def _names(config: dict, field: str, where: str) -> str | list[str] | None:
    """A field that is a list of names, or a pattern."""
    value = config.get(field)
    names = value if isinstance(value, list) else []
    if not isinstance(value, (str, list, type(None))) or not all(isinstance(name, str) for name in names):
        raise LabError(f"{where}: {field}={value!r} is out of range: a list of names, or a pattern.")
    return value


def _check_blocks(config: dict, ranks: Mapping[str, int], where: str) -> None:
    """Raise a LabError if A or B of a layer is stored as the blocks of a block-diagonal matrix."""
    blocks = config.get("use_bdlora") or {}
    if not isinstance(blocks, dict):
        raise LabError(f"{where}: use_bdlora={blocks!r} is out of range: null or an object.")
    words = [*(blocks.get("target_modules_bd_a") or []), *(blocks.get("target_modules_bd_b") or [])]
    if blocks.get("nblocks", 1) != 1 and any(word in module for word in words for module in ranks):
        raise LabError(
            f"{where} uses options that this library does not have: use_bdlora={blocks!r}. A or B is stored as blocks. "
            "Load it with peft."
        )


def _flag(config: dict, name: str, where: str) -> bool:
    """A field that is true or false; false without it."""
    value = config.get(name) or False
    if not isinstance(value, bool):
        raise LabError(f"{where}: {name}={value!r} is out of range: true or false.")
    return value


def _check_parts(flags: dict[str, bool], parts: Mapping[Key, Tensor], ranks: Mapping[str, int], where: str) -> None:
    """Raise a LabError unless all layers or none have what DoRA (a magnitude) and lora_bias (a bias of B) add."""
    magnitudes = {key.module for key in parts if key.part == "lora_magnitude_vector"}
    biases = {key.module for key in parts if key.bias}
    for name, found, what in (
        ("use_dora", magnitudes, "lora_magnitude_vector"), ("lora_bias", biases, "a bias of lora_B"),
    ):  # fmt: skip
        wrong = found ^ set(ranks) if flags[name] else found
        if wrong:
            has = "has" if sorted(wrong)[0] in found else "lacks"
            raise LabError(
                f"{where} says {name}={flags[name]}, and the tensors beside it contradict that: {sorted(wrong)[0]} "
                f"{has} {what}. The two files do not belong together: copy both again."
            )


def _check_rank(config: dict, module: str, rank: int, where: str) -> None:
    """Raise a LabError if the config gives a layer another rank than its tensors have: alpha / rank would be wrong."""
    said, field = _by_pattern(config, "rank_pattern", module, config["r"], where)
    if said == rank and not isinstance(said, bool):
        return
    source = f"rank_pattern={config['rank_pattern']!r}" if field else f"r={said!r}"
    raise LabError(
        f"{where} says {source}, and lora_A and lora_B of {module} have rank {rank}. The scaling alpha / rank depends "
        "on it: copy both files again from where the adapter was trained."
    )


def _by_pattern(config: dict, name: str, module: str, default: object, where: str) -> tuple[object, bool]:
    """(the value that applies to a module by peft's rule, whether it comes from the pattern)."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise LabError(f"{where}: {name}={patterns!r} is out of range: an object of names and numbers.")
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value, True
        except re.error as error:
            raise LabError(f"{where}: {name} has {pattern!r}, which is no regular expression ({error}).") from error
    return default, False


def plain_settings(facts: Facts, config: dict, where: str) -> dict:
    """What `lora.inject` needs for layers of plain LoRA: target_modules, rank, alpha, dropout and use_rslora.

    Raises
    ------
    LabError
        It is DoRA, has biases, its layers differ in rank or alpha, or other weights were trained too.
    """
    settings = {(layer.rank, layer.alpha) for layer in facts.layers.values()}
    trained = [name for name in facts.whole if name.endswith(".bias")] if config.get("bias") != "none" else []
    options = {
        "use_dora": facts.use_dora, "lora_bias": facts.lora_bias, "bias": bool(trained),
        "modules_to_save": bool(config.get("modules_to_save")),
        "trainable_token_indices": bool(config.get("trainable_token_indices")),
        "rank_pattern": len({rank for rank, _ in settings}) > 1,
        "alpha_pattern": len({alpha for _, alpha in settings}) > 1,
    }  # fmt: skip
    refused = {name: config.get(name) for name, is_on in options.items() if is_on}
    if refused:
        raise LabError(
            f"{where} uses options that this library does not have: "
            f"{', '.join(f'{name}={value!r}' for name, value in refused.items())}. {whole_in_words(refused)}"
            "Load it with peft: PeftModel.from_pretrained(base, folder)."
        )
    [(rank, alpha)] = settings
    return {
        "target_modules": _targets(config, facts.layers), "rank": rank, "alpha": alpha, "dropout": facts.dropout,
        "use_rslora": facts.use_rslora,
    }  # fmt: skip


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


def _targets(config: dict, layers: Mapping[str, Layer]) -> str | list[str]:
    """target_modules for `inject`: as the config has it, or all layers by name where other fields narrow it."""
    narrowed = ("exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying")
    targets = config["target_modules"]
    if any(config.get(name) not in (None, False) for name in narrowed):
        return sorted(layers)
    if isinstance(targets, str):
        return targets
    return [target for target in targets if any(matches(module, [target]) for module in layers)]  # peft may name more
