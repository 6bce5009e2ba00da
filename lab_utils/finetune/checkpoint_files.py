"""Is a checkpoint whole? Every file is read and compared with what was written, before anything is taken from it."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import LabError
from ..files import explain, read_json, user_path
from ..finite import nonfinite_in_words
from ..models.weights import refuse_nonfinite, tensors_in
from .identity_differences import is_identity, is_number

ADAPTER, CONFIG, STATE, RECORD = "adapter_model.safetensors", "adapter_config.json", "state.pt", "record.json"
PIECE = 2**20  # bytes that are read at a time
SOMETIMES = {"skipped", "validation_loss"}  # of a history's rows: not of every run, or not of every step


class Damaged(Exception):
    """A checkpoint cannot be used: the text names the file and what is wrong with it."""


def sums_of(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file in a folder that a run needs, by name; peft's README.md is not one of them."""
    return {path.name: _sum(path) for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".md"}


def _sum(path: Path) -> list[int]:
    size = checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return [size, checksum]


def read_checkpoint(folder: Path) -> tuple[dict, dict]:
    """A checkpoint's record and its state, if every file in it is whole.

    Parameters
    ----------
    folder : Path, as `checkpoint.save_checkpoint` writes it; one that an earlier version wrote, without "files" in its
        record, has its adapter held against the optimizer's moments

    Returns
    -------
    (record, state) : two dicts

    Raises
    ------
    Damaged
        Names the file that is missing, cannot be read, or is not what was written.
    """
    record = _record(folder)
    sums = record.get("files", {})
    for name in [*sums, *([] if sums else (ADAPTER, CONFIG))]:
        _check_file(folder / name, sums.get(name))
    state = _state(folder / STATE)
    shapes = _adapter(folder / ADAPTER) if (folder / ADAPTER).exists() else None
    if not sums:
        _check_unsummed(folder, state, shapes)
    return record, state


def _record(folder: Path) -> dict:
    """`record.json`, if it is what `save_checkpoint` writes."""
    try:
        record = read_json(folder / RECORD)
    except LabError as error:
        raise Damaged(str(error)) from error
    kinds = {"step": int, "fingerprint": str, "recipe": dict, "history": list}
    for name, kind in kinds.items():
        if not isinstance(record, dict) or not isinstance(record.get(name), kind):
            raise Damaged(f"{RECORD} has no {name!r}, or not as it was written")
    step, history = record["step"], record["history"]
    if f"checkpoint-{step:06d}" != folder.name:
        raise Damaged(f"{RECORD} says step {step}")
    if len(history) != step:
        raise Damaged(f"{RECORD} has a history of {len(history)} steps instead of {step}")
    for number, row in enumerate(history, 1):
        if not _is_row(row) or row.keys() - SOMETIMES != history[0].keys() - SOMETIMES:
            raise Damaged(f"{RECORD}: step {number} of its history is not as it was written")
    identity = record.get("identity", {})
    if not isinstance(identity, dict) or not is_identity(identity):
        raise Damaged(f"{RECORD}: 'identity' is not as it was written")
    if "files" in record and not _are_sums(record["files"]):
        raise Damaged(f"{RECORD}: 'files' is not as it was written")
    return record


def _is_row(row: object) -> bool:
    """Is it a step of a history: numbers by name, the loss among them?"""
    if not isinstance(row, dict) or "loss" not in row:
        return False
    return all(map(is_number, row.values()))


def _are_sums(files: object) -> bool:
    """Is it what `sums_of` gives for a checkpoint: size and checksum of each file by its name, of those needed too?"""
    if not isinstance(files, dict) or not files.keys() >= {ADAPTER, STATE}:
        return False
    return all(_is_name(name) and _is_sum(one) for name, one in files.items())


def _is_name(name: str) -> bool:
    """Can a file in a folder have this name?"""
    try:
        return user_path(name).name == name not in ("", "..")
    except LabError:
        return False


def _is_sum(one: object) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(type(number) is int for number in one)


def _check_file(path: Path, written: list[int] | None) -> None:
    """Raise Damaged unless a file is there, can be read, and has the bytes that were written, if those are known."""
    try:
        found = _sum(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise Damaged(f"{path.name} is missing" if missing else f"{path.name}: {explain(error)}") from error
    if written and found != written:
        sizes = f"{found[0]:,} bytes of {written[0]:,}" if found[0] != written[0] else "other bytes"
        raise Damaged(f"{path.name} is not the file that was written: {sizes}")
    if not found[0]:
        raise Damaged(f"{path.name} is empty")


def _state(path: Path) -> dict:
    """`state.pt`, if it can be read and its numbers are finite."""
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch, pickle and zipfile raise a dozen types
        raise Damaged(f"{path.name} cannot be read: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise Damaged(f"{path.name} holds a {type(state).__name__} instead of a dict")
    if wrong := [name for name, is_right in PARTS.items() if name not in state or not is_right(state[name])]:
        raise Damaged(f"{path.name} has no {wrong[0]!r}, or not as it was written")
    for name, tensor in _moments(state):
        if problem := nonfinite_in_words(name, tensor):
            raise Damaged(f"{path.name}: {problem}")
    return state


def _are_random_states(states: object) -> bool:
    """Is it a list of what torch keeps of its random numbers, one for each process?"""
    import torch

    return isinstance(states, list) and all(
        isinstance(one, torch.Tensor) and one.dtype == torch.uint8 and one.dim() == 1 for one in states
    )


PARTS = {  # of a state, and what each must be
    "optimizer": lambda one: isinstance(one, dict) and isinstance(one.get("state"), dict) and "param_groups" in one,
    "random": lambda one: _are_random_states(one) and len(one) > 0,
    "random_cuda": _are_random_states,
    "scaler": lambda one: one is None or isinstance(one, dict),
}


def _first_line(error: Exception) -> str:
    """What a library says, without the rest of the page."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _moments(state: dict) -> Iterator[tuple[str, object]]:
    """The optimizer's tensors."""
    import torch

    optimizer = state.get("optimizer")
    for index, one in _items(optimizer.get("state") if isinstance(optimizer, dict) else None):
        for name, tensor in _items(one):
            if isinstance(tensor, torch.Tensor):
                yield f"{name} of parameter {index}", tensor


def _items(found: object) -> list[tuple]:
    """What a dict holds; nothing if a damaged file has something else in its place."""
    return list(found.items()) if isinstance(found, dict) else []


def _adapter(path: Path) -> list[tuple[int, ...]]:
    """The shapes of the adapter's tensors, if the file can be read and they are finite."""
    shapes = []
    try:
        for name, tensor in tensors_in(path):
            refuse_nonfinite([(name, tensor)], path.name, "")
            shapes.append(tuple(tensor.shape))
    except LabError as error:
        raise Damaged(str(error).strip(". ")) from error
    except Exception as error:  # a SafetensorError, or what an odd header leads to
        raise Damaged(f"{path.name} cannot be read: {_first_line(error)}") from error
    return shapes


def _check_unsummed(folder: Path, state: dict, shapes: list[tuple[int, ...]] | None) -> None:
    """Raise Damaged unless the files of a checkpoint without checksums fit together."""
    try:
        config = read_json(folder / CONFIG)
    except LabError as error:
        raise Damaged(str(error)) from error
    if not isinstance(config, dict) or "r" not in config:
        raise Damaged(f"{CONFIG} describes no adapter")
    moments = [tuple(tensor.shape) for name, tensor in _moments(state) if name.startswith("exp_avg of")]
    if moments and sorted(moments) != sorted(shapes or []):
        raise Damaged(f"{ADAPTER} has {len(shapes or [])} tensors that do not fit the optimizer's {len(moments)}")
