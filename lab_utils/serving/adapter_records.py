"""The adapters that come with the course, and the record that says on which task and base an adapter was trained."""

from collections.abc import Iterator
from pathlib import Path

from .. import files
from ..errors import LabError, choose
from ..folders import DATA
from ..lora.folders import CONFIG, WEIGHTS
from ..tasks import Task


def recorded_adapter(name: str) -> Path:
    """The folder of an adapter that comes with the course: "bookings" or "style", trained on the embedded base in NF4.

    Raises
    ------
    LabError
        There is none of that name, or a file is missing.
    """
    found = sorted(path.name for path in (DATA / "adapters").glob("*") if path.is_dir())
    choose("recorded adapter", name, found)
    folder = DATA / "adapters" / name
    missing = [file for file in (CONFIG, WEIGHTS, "record.json") if not (folder / file).is_file()]
    if missing:
        raise LabError(
            f"{folder} has no {', '.join(missing)}. Restore it with `git checkout -- data/adapters`, or train it again "
            f"with `python data/record_adapters.py --only {name}`."
        )
    return folder


def task_of(folder: str | Path) -> str | Task | None:
    """The task that an adapter was trained on, by the record that was written with it; None if there is no record.

    That is record.json in the folder, or, for the folder "adapter" of a run, the record of the run's last checkpoint.
    Of a user's own data the record keeps what answering needs: the system message and the room for an answer.

    Returns
    -------
    A name in `TASKS`, a Task without data, or None

    Raises
    ------
    LabError
        There is a record, and it cannot be read.
    """
    for record in _records(folder):
        if own := _own_task(record):
            return own
        task = _of_recipe(record, "task")
        if task is not None:
            return task
    return None


def base_of(folder: str | Path) -> str | None:
    """The base that an adapter was trained on, by the same record: a name in `MODELS`, a folder, or owner/name.

    Returns
    -------
    str, or None if no record that can be read names one
    """
    try:
        names = [_of_recipe(record, "model") for record in _records(folder)]
    except LabError:
        return None
    return next((name for name in names if name not in (None, "auto")), None)


def _of_recipe(record: object, name: str) -> str | None:
    """A text of the recipe in a record."""
    recipe = record.get("recipe") if isinstance(record, dict) else None
    value = recipe.get(name) if isinstance(recipe, dict) else None
    return value if isinstance(value, str) else None


def _records(folder: str | Path) -> Iterator[object]:
    """What was written about an adapter, the nearest first; a LabError for a file that cannot be read."""
    folder = files.user_path(folder)
    records = [folder / "record.json"]
    if folder.name == "adapter":
        records += sorted(folder.parent.glob("checkpoint-*/record.json"), reverse=True)
    for path in records:
        if not path.is_file():
            continue
        try:
            yield files.read_json(path)
        except LabError as error:
            raise LabError(
                f"{error} It would say which task the adapter was trained on. Name the task yourself, as "
                "task='bookings', and the record is not read; or delete the file."
            ) from error


def _own_task(record: object) -> Task | None:
    """The user's own task that a run's record describes, without its data; None of another record."""
    found = record.get("task") if isinstance(record, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("system"), str):
        return None
    room, fields = found.get("max_new_tokens"), found.get("fields")
    fields = tuple(fields) if isinstance(fields, list) and all(isinstance(one, str) for one in fields) else ()
    return Task(found["system"], dict, fields=fields, max_new_tokens=room if isinstance(room, int) and room > 0 else 64)
