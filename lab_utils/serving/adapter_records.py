"""The adapters that come with the course, and the record that says which task an adapter was trained on."""

from pathlib import Path

from .. import files
from ..errors import LabError, choose
from ..folders import DATA
from ..lora.folders import CONFIG, WEIGHTS


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


def task_of(folder: str | Path) -> str | None:
    """The task that an adapter was trained on, by the record that was written with it; None if there is no record.

    That is record.json in the folder, or, for the folder "adapter" of a run, the record of the run's last checkpoint.

    Raises
    ------
    LabError
        There is a record, and it cannot be read.
    """
    folder = files.user_path(folder)
    records = [folder / "record.json"]
    if folder.name == "adapter":
        records += sorted(folder.parent.glob("checkpoint-*/record.json"), reverse=True)
    for path in records:
        if not path.is_file():
            continue
        try:
            record = files.read_json(path)
        except LabError as error:
            raise LabError(
                f"{error} It would say which task the adapter was trained on. Name the task yourself, as "
                "task='bookings', and the record is not read; or delete the file."
            ) from error
        recipe = record.get("recipe") if isinstance(record, dict) else None
        task = recipe.get("task") if isinstance(recipe, dict) else None
        if isinstance(task, str):
            return task
    return None
