"""The validation loss of a run: when it is measured, which step was the best, and whether it is time to stop.

All of it follows from the history, so that a run that was killed decides as one that nobody disturbed.
"""

from collections.abc import Sequence


def is_due(step: int, recipe) -> bool:
    """Is the validation loss measured after so many finished steps? At the last one always."""
    every = recipe.validate_every
    return bool(every) and (step % every == 0 or step == recipe.steps)


def measured(history: Sequence[dict]) -> list[dict]:
    """The rows of a history that have a validation loss."""
    return [row for row in history if "validation_loss" in row]


def best_step(history: Sequence[dict]) -> int:
    """The step (from 1) with the lowest validation loss, the first of equal ones; 0 if none was measured.

    >>> best_step([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation_loss": 1.5}])
    2
    """
    return min(measured(history), key=lambda row: row["validation_loss"], default={"step": 0})["step"]


def is_over(history: Sequence[dict], recipe) -> bool:
    """Has a run taken all its steps, or measured `patience` times in a row no lower validation loss than before?"""
    if len(history) >= recipe.steps:
        return True
    best = best_step(history)
    since = [row for row in measured(history) if row["step"] > best]
    return bool(recipe.patience) and len(since) >= recipe.patience
