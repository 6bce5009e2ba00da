"""A run of yesterday, opened from its folder: base, adapter, recipe and history as `finetune` gave them."""

from dataclasses import fields
from pathlib import Path

from ..device import find_device, use_threads
from ..errors import LabError, shown
from ..files import user_path
from ..models import load_base
from ..printing import say
from ..tasks import OwnTask, changes, from_description
from .adapter import attach_adapter
from .checkpoint_files import ADAPTER, RECORD, Damaged, read_checkpoint
from .identity import base_identity
from .identity_differences import differences
from .recipe import Recipe
from .resume import load_adapter
from .run_folders import checkpoints
from .runs import Run
from .validation import best_step, is_over


def open_run(folder: str | Path, task: OwnTask | str | Path | None = None) -> Run:
    """Open a run that was trained earlier: nothing is trained, and nothing in its folder is changed.

    Parameters
    ----------
    folder : path of a run, the `output_dir` that `finetune` was given
    task : OwnTask, if the run was trained on one whose data were in memory; or the path where its file is now
        Default: the run's own, its file read again.

    Returns
    -------
    Run

    Raises
    ------
    LabError
        There is no run in the folder, or its files are damaged; the base is not the one that was trained on; or the
        task's data are gone or have changed.
    """
    folder = _run_folder(folder)
    at, record = _newest(folder)
    recipe = _recipe(record, task)
    use_threads()
    device = find_device()
    model, tokenizer = load_base(recipe.model, recipe.quantization, device)
    saved = {name: one for name, one in record.get("identity", {}).items() if name == "base"}
    if found := differences(saved, {"base": base_identity(model, device)}):
        raise LabError(f"{folder} cannot be opened on {recipe.model}: the run was trained on {found[0]}.")
    model = attach_adapter(model, recipe)
    history = record["history"]
    adapter = folder / "adapter"
    if not is_over(history, recipe):
        say(f"This run is not finished: it has taken {len(history)} of {recipe.steps} steps ({at.name}).")
        adapter = at
    elif not (adapter / ADAPTER).is_file():
        adapter = folder / f"checkpoint-{best_step(history):06d}" if recipe.keeps_best else at
    _load(model, adapter)
    return Run(recipe, folder, history, model, tokenizer, resumed_from=len(history))


def _run_folder(folder: str | Path) -> Path:
    """The folder of a run, or a LabError that says what is there."""
    if not isinstance(folder, (str, Path)) or not str(folder):
        raise LabError(f"folder={shown(folder)} is out of range: the path of a run's folder, such as 'runs/tickets'.")
    folder = user_path(folder)
    if not folder.is_dir():
        raise LabError(f"There is no folder {folder}{'' if folder.is_absolute() else f' in {Path.cwd()}'}.")
    if checkpoints(folder):
        return folder
    if checkpoints(folder.parent):
        raise LabError(f"{folder} is a part of a run. Name the run: {folder.parent}.")
    runs = sorted({one.parent.name for one in folder.glob("*/checkpoint-*")})
    hint = f" There are runs in it: {', '.join(runs[:5])}{', …' if len(runs) > 5 else ''}." if runs else ""
    raise LabError(f"{folder} holds no run: no checkpoint of `finetune` is in it.{hint}")


def _newest(folder: Path) -> tuple[Path, dict]:
    """The newest checkpoint that is whole, and its record; damaged ones are named on the way."""
    for path in reversed(checkpoints(folder)):
        try:
            return path, read_checkpoint(path)[0]
        except Damaged as damage:
            say(f"Note: {path.name} cannot be read ({damage}).")
    raise LabError(f"No checkpoint in {folder} can be read: restore one, or train again.")


def _recipe(record: dict, task: OwnTask | str | Path | None) -> Recipe:
    """The recipe on record, with its task."""
    saved, described = record["recipe"], record.get("task")
    known = {one.name: saved[one.name] for one in fields(Recipe) if one.name in saved}
    if isinstance(described, dict):
        if not isinstance(task, OwnTask):
            task = from_description(described if task is None else described | {"own": str(user_path(task))})
        elif changed := changes(described, task):
            say(f"Note: this is not the task that the run was trained on: {changed}.")
    elif task is not None:
        raise LabError(f"This run was trained on the task {saved.get('task')!r} of the course: open it without a file.")
    try:
        return Recipe(**known | ({"task": task} if task is not None else {}))
    except (LabError, TypeError) as error:
        raise LabError(f"The recipe in {RECORD} is not one of this version of the lab: {error}") from error


def _load(model, folder: Path) -> None:
    """Load an adapter into a model that has its layers."""
    way_out = "Copy the adapter's files again, or let the run go on, which writes them again."
    try:
        load_adapter(model, folder, way_out)
    except LabError:
        raise
    except Exception as error:  # safetensors' and peft's, of a damaged or missing file
        raise LabError(f"{folder} cannot be read ({type(error).__name__}: {error}). {way_out}") from error
