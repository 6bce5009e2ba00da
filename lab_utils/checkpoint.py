"""Checkpoints of a training run: written whole or not at all, and refused for another recipe."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from .errors import LabError
from .recipe import Recipe

KEPT = 2  # the newest, and the one before it in case the newest cannot be read


def checkpoints(output_dir: Path) -> list[Path]:
    """Finished checkpoints in `output_dir`, oldest first."""
    return sorted(path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit())


def save_checkpoint(output_dir: Path, step: int, recipe: Recipe, model, state: dict, history: list[dict]) -> Path:
    """Write `checkpoint-<step>` into a scratch folder, flush it to disk, rename it, and drop all but two.

    Parameters
    ----------
    step : int, finished steps; it is the position in the data and in the schedule too
    model : peft model, whose adapter is saved in peft's own layout
    state : dict of tensors and numbers: optimizer, random states
    history : list of dict, one a finished step

    Raises
    ------
    LabError
        The disk is full or the folder cannot be written. Older checkpoints stay.
    """
    import torch
    from safetensors import SafetensorError

    target = output_dir / f"checkpoint-{step:06d}"
    scratch = output_dir / f".partial-{step:06d}-{os.getpid()}"
    try:
        scratch.mkdir(parents=True)
        model.save_pretrained(scratch)
        torch.save(state, scratch / "state.pt")
        record = {"step": step, "fingerprint": recipe.fingerprint(), "recipe": asdict(recipe), "history": history}
        (scratch / "record.json").write_text(json.dumps(record))
        for path in scratch.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)
        os.replace(scratch, target)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is no OSError to torch and safetensors
        kept = checkpoints(output_dir)
        raise LabError(
            f"Checkpoint {step} could not be written to {output_dir}: {error}. Free some disk space (20 to 100 MB) "
            f"and run the same call again; it goes on from {kept[-1].name if kept else 'the start'}."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in checkpoints(output_dir)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_record(output_dir: Path, recipe: Recipe) -> tuple[Path, dict, dict] | None:
    """The newest checkpoint that can be read, with its record and its state; None if there is none.

    Raises
    ------
    LabError
        The checkpoint belongs to another recipe: the fields that differ are named. Nothing is deleted.
    """
    import pickle

    import torch

    for path in reversed(checkpoints(output_dir)):
        try:
            record = json.loads((path / "record.json").read_text())
            state = torch.load(path / "state.pt", weights_only=True, map_location="cpu")
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
            print(f"{path.name} cannot be read: going back to the one before.")
            continue
        if record["fingerprint"] != recipe.fingerprint():
            raise LabError(
                f"{output_dir} holds a run of another recipe ({_differences(record['recipe'], recipe)}). "
                "Take another output_dir, or pass resume=False to start anew (the old run is kept in `previous/`)."
            )
        return path, record, state
    return None


def _differences(saved: dict, recipe: Recipe) -> str:
    """The fields in which two recipes differ, in words."""
    now = json.loads(json.dumps(asdict(recipe)))
    changed = [f"{name}: {saved.get(name)} there, {now[name]} here" for name in now if saved.get(name) != now[name]]
    return "; ".join(changed) or "written by another version of the lab"


def set_aside(output_dir: Path) -> None:
    """Move an old run's checkpoints and adapter to `previous/`, replacing what was there."""
    found = [*checkpoints(output_dir), *(path for path in [output_dir / "adapter"] if path.exists())]
    if not found:
        return
    previous = output_dir / "previous"
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    for path in found:
        path.rename(previous / path.name)
