"""A model's shape from its transformers configuration, key by key: what it has is counted, not what its family has.

tests/library/test_configurations.py holds the totals against models that transformers builds from the same
configuration.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import LabError, flag, shown
from ..files import explain, read_json, user_path
from .architectures import Architecture
from .experts import EXPERT_TYPES
from .model_types import MODEL_TYPES, Keys

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def from_config(
    config: Mapping | str | Path | object, name: str | None = None, *, experts: bool = False
) -> Architecture:
    """The architecture that a transformers configuration describes.

    Parameters
    ----------
    config : dict; or path of a `config.json`, or of the folder that holds one; or a transformers configuration object;
        or a model's name on the Hugging Face hub ("owner/name"), of which this machine has the configuration or can
        get it. Keys that are missing have transformers' default, if it has one that fits every model.
    name : str, of the architecture; default is the one in the configuration, or else its model_type
    experts : bool, take a mixture of experts too: its weights and adapters are counted, each expert by itself. What
        one token reads, and so what a step costs, does not follow from these counts.

    Returns
    -------
    Architecture

    Raises
    ------
    LabError
        The file cannot be read; a key is missing or its value makes no sense, and is named; the model_type is none of
        `MODEL_TYPES`; the model is a mixture of experts and `experts` is not set, or is of another kind than
        `EXPERT_TYPES`; or it holds more than one network, as models that see do.

    A checkpoint can hold more than its configuration says, such as its own head under `tie_word_embeddings`.
    """
    keys = Keys(*_read(config))
    kind = keys.data.get("model_type")
    if kind is None:
        raise LabError(f"{keys.where}: the key model_type is missing. It says how the layers are named.")
    known = {**MODEL_TYPES, **EXPERT_TYPES} if flag("experts", experts) else MODEL_TYPES
    _refuse_others(keys, kind, known)
    own_name = keys.data.get("_name_or_path")
    default = own_name if isinstance(own_name, str) and own_name else kind
    try:
        return Architecture(name=default if name is None else name, **known[kind](keys))
    except LabError as error:
        text = str(error)
        raise LabError(text if text.startswith(keys.where) else f"{keys.where}: {text}") from None


def _read(config) -> tuple[dict, str]:
    """The configuration's keys, and what to call it in a message."""
    if isinstance(config, (str, Path)):
        path = user_path(config)
        try:
            path = path / "config.json" if path.is_dir() else path
            if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(config)) and path.suffix != ".json":
                path = _from_hub(str(config))
            config, where = read_json(path), str(path)
        except OSError as error:  # a name that no file can have
            raise LabError(f"{shown(config)} cannot be read: {explain(error)}") from error
        except ValueError as error:  # a number of thousands of digits
            raise LabError(f"{path} cannot be read: {error}.") from error
    else:
        where = "The configuration"
        if not isinstance(config, Mapping) and callable(getattr(config, "to_dict", None)):
            config = config.to_dict()
    if not isinstance(config, Mapping):
        raise LabError(f"{where}: {shown(config)} is not a table of keys and values, as a config.json is.")
    return dict(config), where


def _from_hub(name: str) -> Path:
    """The configuration of a model on the hub: as this machine keeps it, or else fetched."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise LabError(
            f"{shown(name)} is not a file here, and the hub gives no configuration of it ({type(error).__name__}). "
            "Save its config.json on this machine and give the path."
        ) from error


def _refuse_others(keys: Keys, kind: object, known: Mapping) -> None:
    """Raise a LabError for what cannot be counted here."""
    if isinstance(keys.data.get("text_config"), Mapping):
        raise LabError(f"{keys.where} describes several networks ({shown(kind)}). Pass its text_config alone.")
    experts = next((key for key in _EXPERTS if keys.data.get(key) not in (None, 0, 1)), None)
    kind_known = isinstance(kind, str) and kind in known
    named = isinstance(kind, str) and ("moe" in kind or kind.startswith("mixtral"))
    if not (kind_known and kind in EXPERT_TYPES) and (experts or named):
        what = f"{experts}={shown(keys.data[experts])}" if experts else f"model_type={kind!r}"
        raise LabError(
            f"{keys.where}: {what} is a mixture of experts. They are not counted here: only some of their weights are "
            f"read at each token. Choose a dense model, or to count weights alone, of {', '.join(EXPERT_TYPES)}, pass "
            "experts=True."
        )
    if not kind_known:
        raise LabError(
            f"{keys.where}: model_type={shown(kind)} is not known here. Known are {', '.join(known)}. "
            "Give the shape yourself: architectures.Architecture."
        )
    if keys.data.get("add_cross_attention"):
        raise LabError(f"{keys.where}: add_cross_attention has matrices that are not counted here.")
