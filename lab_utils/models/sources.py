"""Where a base model is: a name in `MODELS`, a folder on this machine, or a repository on the Hugging Face hub."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError, shown
from ..files import user_path
from .catalogue import MODELS

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)  # owner/name


@dataclass(frozen=True)
class Source:
    """Where a base model is.

    Attributes
    ----------
    name : str, as `model_name` gives it
    where : str, folder or hub repository
    kind : "embedded", "folder" (somebody's own) or "hub"
    gated : bool, the hub is known to ask for an accepted license
    note : str, what a reader should know
    """

    name: str
    where: str
    kind: str
    gated: bool = False
    note: str = ""


def model_name(value: object) -> str:
    """What a person wrote for a model, as a recipe keeps it.

    Parameters
    ----------
    value : str or Path: a name in `MODELS`, "auto", a folder, or owner/name on the hub. What could be both is a folder
        if there is one.

    Returns
    -------
    str; a folder with its full path, so that it is found again from another one. It need not exist.

    Raises
    ------
    LabError
        `value` is none of these.

    >>> model_name("smollm2-360m"), model_name("Qwen/Qwen3-0.6B")
    ('smollm2-360m', 'Qwen/Qwen3-0.6B')
    """
    if isinstance(value, str) and (value == "auto" or value in MODELS):
        return str(value)
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        path = user_path(value)
        if path.is_file():
            raise LabError(f"The model {value} is a file. Name the folder that it is in, with its config.json.")
        if path.is_dir() or isinstance(value, os.PathLike) or _is_written_as_path(value, path):
            return str(path.resolve())
        if HUB_NAME.fullmatch(value):
            return str(value)
    raise LabError(
        f"Unknown model {shown(value)}. Choose one of: {', '.join(MODELS)}; or name a folder with a model in it, or a "
        "model on the Hugging Face hub as owner/name."
    )


def _is_written_as_path(text: str, path: Path) -> bool:
    """Can a text be nothing but a path: /models/mine, ./mine, ~/mine, or three names and more?"""
    return path.is_absolute() or text.startswith((".", "~")) or len(path.parts) > 2


def find_source(value: object) -> Source:
    """Where a model is; the embedded one is made first, if need be.

    Raises
    ------
    LabError
        `value` names no model, or a folder that is not there.
    """
    name = model_name(value)
    if name in MODELS:
        one = MODELS[name]
        if one.source != "embedded":
            return Source(name, one.source, "hub", one.gated, one.note)
        from .embedded import embedded_folder

        return Source(name, str(embedded_folder()), "embedded", one.gated, one.note)
    if name == "auto":
        raise LabError("model='auto' names no model yet: name one of MODELS, a folder, or owner/name on the hub.")
    if not Path(name).is_absolute():
        return Source(name, name, "hub")
    if not Path(name).is_dir():
        raise LabError(f"There is no model folder {name}. Name the folder that holds the model's config.json.")
    return Source(name, name, "folder")


def base_model(model):
    """The transformers model itself, whether or not peft wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def name_of(model) -> str | None:
    """The name under which a base model was loaded, as `model_name` gives it; None of one that was built in memory.

    Parameters
    ----------
    model : transformers model, or a peft model
    """
    from .embedded import FOLDER

    base = base_model(model)
    if name := getattr(base, "lab_model", None):
        return name
    path = str(getattr(base, "name_or_path", "") or "")
    if not path:
        return None
    for name, one in MODELS.items():
        if path == one.source or (one.source == "embedded" and Path(path).name == FOLDER):
            return name
    try:
        return model_name(path)
    except LabError:
        return None
