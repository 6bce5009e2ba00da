"""A saved adapter's config held against its tensors: what is left is rank, alpha and scaling of each layer."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import LabError, shown
from .keys import MATRICES, PARTNER, Key, parse
from .layers import check_settings
from .peft_config import by_pattern, check_kind, check_options, flag, is_named, names_of, whole_in_words
from .targets import NAMING, NARROWING, is_all_linear, matches

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
    check_kind(config, where)
    check_options(config, where)
    parts, whole = _parts(state, where)
    ranks = _ranks(parts, where)
    _check_targets(config, ranks, where)
    _check_blocks(config, ranks, where)
    flags = {name: flag(config, name, where) for name in ("use_rslora", "use_dora", "lora_bias")}
    _check_parts(flags, parts, ranks, where)
    alpha, dropout = config.get("lora_alpha"), config.get("lora_dropout") or 0.0
    layers = {}
    for module, rank in ranks.items():
        _check_rank(config, module, rank, where)
        layers[module] = Layer(rank, by_pattern(config, "alpha_pattern", module, alpha, where)[0])
        try:
            check_settings(*layers[module], dropout, flags["use_rslora"])
        except LabError as error:
            raise LabError(f"{where}, for layer {module}: {error}") from error
    return Facts(layers, {key.saved: one for key, one in parts.items()}, whole, float(dropout), **flags)


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
    targets = names_of(config, "target_modules", where) or []
    if config.get("ensure_weight_tying") or is_all_linear(targets):
        unnamed = None
    else:
        unnamed = next((module for module in ranks if not is_named(module, targets, where)), None)
    if unnamed and config.get("target_parameters"):
        raise LabError(
            f"{where} uses options that this library does not have: target_parameters={config['target_parameters']!r}. "
            f"{unnamed} is not a layer with one weight. Load it with peft."
        )
    excluded, field = names_of(config, "exclude_modules", where), "target_modules"
    if not unnamed and excluded:
        unnamed, field = next((one for one in ranks if is_named(one, excluded, where)), None), "exclude_modules"
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


def _check_blocks(config: dict, ranks: Mapping[str, int], where: str) -> None:
    """Raise a LabError if A or B of a layer is stored as the blocks of a block-diagonal matrix."""
    blocks = config.get("use_bdlora") or {}
    if not isinstance(blocks, dict):
        raise LabError(f"{where}: use_bdlora={shown(blocks)} is out of range: null or an object.")
    words = []
    for field in ("target_modules_bd_a", "target_modules_bd_b"):
        names = blocks.get(field) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise LabError(f"{where}: {field}={shown(names)} in use_bdlora is out of range: null or a list of names.")
        words += names
    if blocks.get("nblocks", 1) != 1 and any(word in module for word in words for module in ranks):
        raise LabError(
            f"{where} uses options that this library does not have: use_bdlora={blocks!r}. A or B is stored as blocks. "
            "Load it with peft."
        )


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
    said, field = by_pattern(config, "rank_pattern", module, config["r"], where)
    if said == rank and not isinstance(said, bool):
        return
    source = f"rank_pattern={config['rank_pattern']!r}" if field else f"r={said!r}"
    raise LabError(
        f"{where} says {source}, and lora_A and lora_B of {module} have rank {rank}. The scaling alpha / rank depends "
        "on it: copy both files again from where the adapter was trained."
    )


def plain_settings(facts: Facts, config: dict, where: str) -> dict:
    """What `lora.inject` needs for layers of plain LoRA: target_modules, rank, alpha, dropout and use_rslora.

    And `named_by`, where the config may mean layers of the base that have no tensors here.

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
    targets = _targets(config, facts.layers)
    found = {
        "target_modules": targets, "rank": rank, "alpha": alpha, "dropout": facts.dropout,
        "use_rslora": facts.use_rslora,
    }  # fmt: skip
    if targets != config["target_modules"] or config.get("layer_replication"):  # the config may mean more layers
        found["named_by"] = {field: config[field] for field in NAMING if _says(config, field)}
    return found


def _says(config: dict, field: str) -> bool:
    """Does a config say something by a field? The number 0 is something: the first layer."""
    value = config.get(field)
    return value is not None and value is not False and value != [] and value != ""


def _targets(config: dict, layers: Mapping[str, Layer]) -> str | list[str]:
    """target_modules for `inject`: as the config has it, or all layers by name where other fields narrow it."""
    targets = config["target_modules"]
    if any(_says(config, name) for name in NARROWING):
        return sorted(layers)
    if isinstance(targets, str):
        return targets
    return [target for target in targets if any(matches(module, [target]) for module in layers)]  # peft may name more
