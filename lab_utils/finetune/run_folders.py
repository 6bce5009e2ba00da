"""The folder of a run: which of its checkpoints are ours, what is in their way, and old ones moved aside.

A run's checkpoint is a folder `checkpoint-<step>`, the step in six digits or more. Other names, as `checkpoint-500` of
another program, are left alone; under a name of ours, what is not a checkpoint of ours is refused before training.
"""

import os
from pathlib import Path

from ..errors import LabError
from ..files import explain, move
from .checkpoint_files import RECORD

OF_OTHERS = ("trainer_state.json", "optimizer.pt", "training_args.bin")  # what transformers' Trainer writes


def checkpoints(output_dir: Path) -> list[Path]:
    """Finished checkpoints in `output_dir`, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if _step(path) is not None and path.is_dir()]
    return sorted(found, key=_step)


def _step(path: Path) -> int | None:
    """The step in a checkpoint's name; None if it is not the name of one."""
    number = path.name.removeprefix("checkpoint-")
    ours = number.isascii() and number.isdecimal() and len(number) < 20 and f"{int(number):06d}" == number
    return int(number) if ours else None


def refuse_in_the_way(output_dir: Path) -> None:
    """Raise a LabError for anything that lies where a run's files are to be written and is not a run's.

    Parameters
    ----------
    output_dir : Path of a run; it need not exist

    Raises
    ------
    LabError
        A checkpoint's name is taken by a file, by a link that leads nowhere or by another program's checkpoint, or the
        adapter's by a file: it is named.
    """
    for path in sorted([*output_dir.glob("checkpoint-*"), output_dir / "adapter"]):
        if path.name != "adapter" and _step(path) is None:
            continue
        if os.path.lexists(path) and not path.is_dir():
            raise LabError(
                f"{path} is in the way: this run keeps a folder of that name. Move or delete it, or take another "
                "output_dir."
            )
        theirs = [name for name in OF_OTHERS if (path / name).exists()]
        if path.name != "adapter" and theirs and not (path / RECORD).exists():
            raise LabError(
                f"{path} is another program's checkpoint (it holds {theirs[0]} and no {RECORD}). "
                "Take another output_dir, or move that folder."
            )


def set_aside(output_dir: str | Path) -> Path | None:
    """Move an old run's checkpoints and adapter to `previous/`; or to `previous-2/` and so on, if that is taken.

    Returns
    -------
    Path of the folder with the old run, or None if there was no run

    Raises
    ------
    LabError
        The disk refuses; everything is where it was.
    """
    output_dir = Path(output_dir)
    found = [*checkpoints(output_dir), *(path for path in [output_dir / "adapter"] if path.exists())]
    return _move(found, output_dir, "previous")


def set_damaged_aside(output_dir: Path, used: Path | None) -> Path | None:
    """Move the checkpoints after the one that is used to `damaged/`: they would be taken for newer ones of the run.

    Parameters
    ----------
    used : Path of the checkpoint that `latest_record` gave, or None

    Returns
    -------
    Path of the folder with them, or None if there was none

    Raises
    ------
    LabError
        The disk refuses; everything is where it was.
    """
    found = checkpoints(output_dir)
    return _move(found[found.index(used) + 1 :] if used else found, output_dir, "damaged")


def _move(found: list[Path], output_dir: Path, name: str) -> Path | None:
    """Move entries of a folder to a new folder in it: `name`, or the first of `name-2`, `name-3` ... that is free."""
    if not found:
        return None
    folder, moved = free_folder(output_dir, name), []
    try:
        folder.mkdir()
        for path in found:
            move(path, folder / path.name)
            moved.append(path)
    except OSError as error:
        for path in moved:
            move(folder / path.name, path)
        raise LabError(f"{found[len(moved)]} could not be moved to {folder}: {explain(error)}") from error
    return folder


def free_folder(output_dir: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3` ... that is not in a folder."""
    folder, number = output_dir / name, 1
    while os.path.lexists(folder):
        number += 1
        folder = output_dir / f"{name}-{number}"
    return folder
