"""Is a checkpoint whole? Every file is read and compared with what was written, before anything is taken from it."""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import LabError
from ..files import explain, read_json
from ..finite import nonfinite_in_words
from ..models.weights import refuse_nonfinite, tensors_in

ADAPTER, CONFIG, STATE, RECORD = "adapter_model.safetensors", "adapter_config.json", "state.pt", "record.json"
PIECE = 2**20  # bytes that are read at a time


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
    sums = record.get("files") or {}
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
        loss = row.get("loss") if isinstance(row, dict) else None
        if not isinstance(loss, (int, float)) or not math.isfinite(loss) or row.keys() != history[0].keys():
            raise Damaged(f"{RECORD}: step {number} of its history is not as it was written")
    for name in ("identity", "files"):
        if not isinstance(record.get(name, {}), dict):
            raise Damaged(f"{RECORD}: {name!r} is not as it was written")
    return record


def _check_file(path: Path, written: list[int] | None) -> None:
    """Raise Damaged unless a file is there, can be read, and has the bytes that were written, if those are known."""
    try:
        found = _sum(path)
    except OSError as error:
        raise Damaged(f"{path.name} is missing" if not path.exists() else f"{path.name}: {explain(error)}") from error
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
    for name, tensor in _moments(state):
        if problem := nonfinite_in_words(name, tensor):
            raise Damaged(f"{path.name}: {problem}")
    return state


def _first_line(error: Exception) -> str:
    """What a library says, without the rest of the page."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _moments(state: dict) -> Iterator[tuple[str, object]]:
    """The optimizer's tensors."""
    import torch

    optimizer = state.get("optimizer")
    of_each = optimizer.get("state") if isinstance(optimizer, dict) else None
    for index, one in of_each.items() if isinstance(of_each, dict) else ():
        for name, tensor in one.items() if isinstance(one, dict) else ():
            if isinstance(tensor, torch.Tensor):
                yield f"{name} of parameter {index}", tensor


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
    missing = {"optimizer", "random", "random_cuda", "scaler"} - state.keys()
    if missing:
        raise Damaged(f"{STATE} has no {sorted(missing)[0]!r}")
    moments = [tuple(tensor.shape) for name, tensor in _moments(state) if name.startswith("exp_avg of")]
    if moments and sorted(moments) != sorted(shapes or []):
        raise Damaged(f"{ADAPTER} has {len(shapes or [])} tensors that do not fit the optimizer's {len(moments)}")
