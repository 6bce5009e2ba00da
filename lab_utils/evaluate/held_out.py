"""The rows of a task that are scored: those that it was not trained on."""

from ..errors import LabError
from ..printing import say
from ..tasks import TASKS, OwnTask, Task, load_task
from ..tasks.conversations import has_text

FOR_STOPPING = (
    "Note: {name} has no test split, so these are {rows:,} rows of its validation split. A run that stops or keeps the "
    "best by validation loss has chosen by them: such a score is a little too good."
)


def held_out(examples, split: str | None = None):
    """The examples themselves; of a Task, a split that was not trained on.

    Parameters
    ----------
    examples : rows, or a Task
    split : str, default test; where there is none validation, and that is printed

    Raises
    ------
    LabError
        The task has no such split.
    """
    if not isinstance(examples, Task):
        return examples
    name = examples.name if isinstance(examples, OwnTask) else _name_of(examples)
    data = load_task(examples if isinstance(examples, OwnTask) else name)
    if split is not None:
        if split not in data:
            raise LabError(f"{name} has no {split} rows (it has: {', '.join(data)}). Choose one of these.")
        return with_text(data[split], name, split)
    if "test" in data:
        return with_text(data["test"], name, "test")
    if "validation" in data:
        say(FOR_STOPPING.format(name=name, rows=len(data["validation"])))
        return with_text(data["validation"], name, "validation")
    raise LabError(
        f"{name} has no split that was not trained on: give examples of a test split. Scores on training examples tell "
        "nothing."
    )


def with_text(rows, name: str, split: str):
    """The rows that have an answer to compare with; conversations without one are left out, and that is said."""
    kept = [number for number, row in enumerate(rows) if has_text(row)] if "messages" in rows.column_names else rows
    if len(kept) == len(rows):
        return rows
    calls = f"of the {len(rows):,} {split} conversations of {name} the assistant says no text, it only calls tools"
    if not kept:
        raise LabError(f"In all {calls}: there is no text to compare with. The validation loss measures such answers.")
    say(f"In {len(rows) - len(kept):,} {calls}: these are not scored.")
    return rows.select(kept)


def _name_of(task: Task) -> str:
    """The name of one of the pages' tasks."""
    return next((name for name, one in TASKS.items() if one is task), "")
