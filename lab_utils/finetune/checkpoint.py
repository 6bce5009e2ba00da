"""Checkpoints of a training run: written whole or not at all, refused for another recipe, passed over if damaged.

Which folders are checkpoints of a run, `run_folders` says.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from ..errors import LabError
from ..files import explain, read_json, replacing_files, replacing_folder
from ..printing import say
from ..tasks import changes
from .checkpoint_files import ADAPTER, CONFIG, RECORD, Damaged, read_checkpoint, sums_of
from .recipe import LATER, Recipe
from .run_folders import checkpoints, free_folder
from .validation import best_step

README = "README.md"  # peft writes one; a person may have written another
KEPT = 2  # the newest, and the one before it in case the newest cannot be read


def save_checkpoint(
    output_dir: Path, step: int, recipe: Recipe, model, state: dict, history: list[dict], identity: dict | None = None
) -> Path:
    """Write `checkpoint-<step>` into a scratch folder, flush it to disk, rename it, and drop all but two.

    Of a recipe that keeps the best, the checkpoint with the lowest validation loss stays too.

    Parameters
    ----------
    step : int, finished steps; it is the position in the data and in the schedule too
    model : peft model, whose adapter is saved in peft's own layout
    state : dict of tensors and numbers: optimizer, random states
    history : list of dict, one for each finished step
    identity : dict ready for JSON, what identifies the run beyond the recipe (see `lab_utils.finetune.identity`)

    Raises
    ------
    LabError
        The disk is full or the folder cannot be written. Older checkpoints stay.
    """
    import torch
    from safetensors import SafetensorError

    target = output_dir / f"checkpoint-{step:06d}"
    best = f"checkpoint-{best_step(history) if recipe.keeps_best else step:06d}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with replacing_folder(target, lambda name: True) as new:
            model.save_pretrained(new)
            torch.save(state, new / "state.pt")
            record = {"step": step, "fingerprint": recipe.fingerprint(), "recipe": recipe.as_record()}
            record |= {"history": history, "identity": identity or {}, "files": sums_of(new)}
            record |= {"task": recipe.own_task.description()} if recipe.own_task else {}
            (new / "record.json").write_text(json.dumps(record), encoding="utf-8")
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is no OSError to torch and safetensors
        kept = checkpoints(output_dir)
        raise LabError(
            f"Checkpoint {step} could not be written to {output_dir}: {explain(error)} It takes 20 to 100 MB. "
            f"Then run it again; it goes on from {kept[-1].name if kept else 'the start'}."
        ) from error
    for old in checkpoints(output_dir)[:-KEPT]:
        if old.name != best and (old / RECORD).exists():  # else it is a folder that somebody made
            shutil.rmtree(old, ignore_errors=True)
    return target


def save_adapter(folder: Path, save: Callable[[Path], object]) -> None:
    """Write a finished run's adapter, all of its files or none.

    Parameters
    ----------
    folder : Path, `adapter/` of a run; files of other names in it are left alone, and so is a README.md that is there.
        Another adapter's files are copied to `previous/` beside it (`previous-2/` and so on) before they are replaced.
    save : function of a folder that writes the adapter there, in peft's own layout

    Raises
    ------
    LabError
        The disk is full or the folder cannot be written. An adapter that was there is as before.
    """
    from safetensors import SafetensorError

    try:
        with replacing_files(folder) as scratch:
            save(scratch)
            _keep_what_is_there(folder, scratch)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LabError(
            f"The adapter could not be written to {folder}: {explain(error)} The run is in its checkpoints: then run "
            "it again."
        ) from error


def _keep_what_is_there(folder: Path, new: Path) -> None:
    """Leave out of `new` what `folder` has in the same form, and copy what another adapter has there."""
    names = sorted(path.name for path in new.iterdir())
    there = [name for name in names if os.path.lexists(folder / name)]
    if folders := [name for name in there if (folder / name).is_dir()]:
        raise LabError(f"{folder / folders[0]} is a folder, and the adapter's file is to be written there. Move it.")
    there = [name for name in there if (folder / name).exists()]  # a link that leads nowhere is replaced
    same = {name for name in there if name == README or filecmp.cmp(folder / name, new / name, shallow=False)}
    if ADAPTER in same and _is_config(folder / CONFIG):  # another version of peft writes another one
        same |= {CONFIG} & set(there)
    for name in same:
        (new / name).unlink()
    filled = [name for name in there if (folder / name).stat().st_size and name != README]
    if set(filled) - same:
        aside = free_folder(folder.parent, "previous")
        with replacing_folder(aside, lambda name: False) as copy:
            (copy / folder.name).mkdir()
            for name in filled:
                shutil.copy2(folder / name, copy / folder.name / name)
        say(f"{folder} held another adapter, or a changed one: it is kept in {aside / folder.name}.")


def _is_config(path: Path) -> bool:
    """Does a file describe an adapter?"""
    try:
        found = read_json(path)
    except LabError:
        return False
    return isinstance(found, dict) and "r" in found


def latest_record(
    output_dir: Path, recipe: Recipe, tell: Callable[[str], object] = say
) -> tuple[Path, dict, dict] | None:
    """The newest checkpoint that is whole, with its record and its state; None if there is none.

    Where one is damaged, `tell` gets the file at fault, and the one before it is taken. Nothing is deleted.

    Raises
    ------
    LabError
        The checkpoint belongs to another recipe: the fields that differ are named. Nothing is deleted.
    """
    found = checkpoints(output_dir)
    for number, path in reversed(list(enumerate(found))):
        _refuse_other_recipe(output_dir, path, recipe)
        try:
            return path, *read_checkpoint(path)
        except Damaged as damage:
            back = f"going back to {found[number - 1].name}" if number else "starting from the first step"
            tell(f"{path.name} cannot be read ({damage}): {back}.")
    return None


def model_on_record(output_dir: Path) -> str | None:
    """The model that the run in a folder trains, by its newest checkpoint that can be read; None if there is none."""
    for path in reversed(checkpoints(output_dir)):
        try:
            recipe = read_json(path / RECORD)["recipe"]
            if isinstance(recipe["model"], str):
                return recipe["model"]
        except (LabError, LookupError, TypeError):  # damaged: `latest_record` says so
            continue
    return None


def _refuse_other_recipe(output_dir: Path, path: Path, recipe: Recipe) -> None:
    """Raise a LabError if a checkpoint's record can be read, and is another recipe's."""
    try:
        record = read_json(path / "record.json")
    except LabError:
        return
    saved = record.get("recipe") if isinstance(record, dict) else None
    if isinstance(saved, dict) and record.get("fingerprint") != recipe.fingerprint():
        raise LabError(
            f"{output_dir} holds a run of another recipe ({_differences(saved, recipe, record.get('task'))}). "
            "Take another output_dir, or pass resume=False to start again (the old run is kept in `previous/`)."
        )


def _differences(saved: dict, recipe: Recipe, described: object) -> str:
    """The fields in which two recipes differ, in words; of a user's task, which `described` is, what has changed."""
    now = json.loads(json.dumps(recipe.as_record()))
    saved = {one.name: one.default for one in fields(recipe) if one.name in LATER} | saved
    names = [name for name in now if saved.get(name) != now[name]]
    changed = {name: f"{name}: {saved.get(name)} there, {now[name]} here" for name in names}
    if "task" in changed and recipe.own_task and isinstance(described, dict):
        changed["task"] = changes(described, recipe.own_task) or changed["task"]
    return "; ".join(changed.values()) or "written by another version of the lab"
