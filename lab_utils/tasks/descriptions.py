"""A task of your own on record: made again from what a run keeps of it, and what has changed since."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import LabError
from ..printing import say
from .answer_kinds import METRICS, metric_name
from .findings import counted
from .own_data import OwnTask, own

ARGUMENTS = ("prompt", "answer", "messages", "system", "fields", "split", "group", "seed", "encoding", "name")
AGAIN = "make the task again, by tasks.own(…), and pass it"
COMPARED = ("name", "prompt", "answer", "messages", "system", "fields", "split", "group", "seed", "encoding")


def from_description(description: Mapping, metric: Callable | None = None) -> OwnTask:
    """The task that a run's record describes, its file read again.

    Parameters
    ----------
    description : of `OwnTask.description`
    metric : the person's function, if the record names one

    Raises
    ------
    LabError
        The data were in memory, the file is gone, or it holds other data now: its rows are named, then and now.
    """
    path = description.get("own")
    if not path:
        raise LabError(
            f"The data of {description.get('name')!r} were in memory, not in a file: {AGAIN}."
        )
    if not Path(path).exists():
        raise LabError(f"{path} is not there any more, which the run was trained on. Put it back, or {AGAIN}.")
    options = {name: description[name] for name in ARGUMENTS if description.get(name) is not None}
    known = description.get("metric") if description.get("metric") in METRICS else None
    if known is None and metric is None and description.get("metric"):
        say(
            f"Note: answers were compared by your function {description['metric']!r}, which is not in the record. They "
            "are compared by what they look like; pass the task to use your function."
        )
    found = own(path, **options, metric=metric or known, max_new_tokens=description.get("max_new_tokens"))
    if found.data_digest != description.get("data_digest", found.data_digest):
        raise LabError(f"{changes(description, found)}. Restore the file, or train again.")
    return found


def changes(description: Mapping, now: OwnTask) -> str:
    """In what a task differs from the one that a record describes, in words: its file and rows, or its settings.

    Parameters
    ----------
    description : of `OwnTask.description`
    now : OwnTask
    """
    here = now.description()
    found = []
    if _file(description) != _file(here):
        found.append(f"the data were {_file(description)} then, {_file(here)} now")
    names = [name for name in COMPARED if name in description and _plain(description[name]) != _plain(here[name])]
    found += [f"{name} was {description[name]!r} then, {here[name]!r} now" for name in names]
    if description.get("metric", metric_name(now.metric)) != metric_name(now.metric):
        found.append(f"metric was {description['metric']!r} then, {metric_name(now.metric)!r} now")
    if description.get("data_digest") != now.data_digest:
        verb = "has" if here["own"] else "have"
        found.append(f"{_file(here)} {verb} changed: {_rows(description)} then, {_rows(here)} now")
    return "; ".join(found)


def _plain(value: object) -> object:
    """A value as JSON gives it back: a tuple as a list, nothing as None."""
    return list(value) if isinstance(value, tuple) else value or None


def _file(description: Mapping) -> str:
    return Path(description["own"]).name if description.get("own") else "rows in memory"


def _rows(description: Mapping) -> str:
    """ "220 rows (176 train, 22 validation, 22 test)"."""
    rows = description.get("rows") or {}
    parts = ", ".join(f"{count:,} {split}" for split, count in rows.items())
    return f"{counted(sum(rows.values()), 'row')} ({parts})"
