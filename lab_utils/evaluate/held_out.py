"""The rows of a task that are scored: those that it was not trained on."""

from ..errors import LabError
from ..printing import say
from ..tasks import TASKS, OwnTask, Task, load_task

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
        return data[split]
    if "test" in data:
        return data["test"]
    if "validation" in data:
        say(FOR_STOPPING.format(name=name, rows=len(data["validation"])))
        return data["validation"]
    raise LabError(
        f"{name} has no split that was not trained on: give examples of a test split. Scores on training examples tell "
        "nothing."
    )


def _name_of(task: Task) -> str:
    """The name of one of the pages' tasks."""
    return next((name for name, one in TASKS.items() if one is task), "")
