"""What an answer is worth, where a program can tell."""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType

from ..errors import LabError, choose, shown
from ..tasks import Task


def _right(task: Task, output: str, answer: str) -> float:
    """1 for an answer that is right as a whole."""
    return float(task.is_right(output, answer))


def _valid(task: Task, output: str, answer: str) -> float:
    """1 for an answer in the task's form, right or wrong: what it says is not looked at, and nobody labels."""
    return float(task.is_valid(output))


def _fields(task: Task, output: str, answer: str) -> float:
    """The share of the answer's fields that are right."""
    found = task.right_fields(output, answer)
    return sum(found.values()) / len(found)


REWARDS: Mapping[str, Callable] = MappingProxyType({"right": _right, "valid": _valid, "fields": _fields})
OWN = "own"  # a recipe's reward that is a function of the reader


def rewarder(task: Task, name: str, judge: Callable | None = None) -> Callable[[str, str], float]:
    """A function of an output and its row's answer that gives the reward.

    Parameters
    ----------
    task : Task
    name : name in `REWARDS`, or "own"
    judge : function (output, answer) -> number, for "own" and only then

    Raises
    ------
    LabError
        The name is unknown, a judge is missing or not wanted, or "fields" is asked for where answers have none. The
        function raises one too, if a judge fails or gives no finite number.
    """
    choose("reward", name, [*REWARDS, OWN])
    if (name == OWN) != (judge is not None) or not (judge is None or callable(judge)):
        raise LabError(
            f"reward={name!r} and judge={shown(judge)} do not go together: a function of your own, (output, answer) -> "
            f"number, is given as judge, with reward={OWN!r}."
        )
    if name == "fields" and not task.fields:
        raise LabError("reward='fields' counts the fields of JSON answers, and this task has none. Take 'right'.")
    if name != OWN:
        return lambda output, answer: REWARDS[name](task, output, answer)
    return lambda output, answer: _judged(judge, output, answer)


def _judged(judge: Callable, output: str, answer: str) -> float:
    """What the reader's function says, if it is a finite number."""
    try:
        value = judge(output, answer)
    except Exception as error:  # the reader's own code
        raise LabError(f"The judge raised {type(error).__name__}: {error}, for the output {shown(output)}.") from error
    if not isinstance(value, Real) or not math.isfinite(value):
        raise LabError(f"The judge gave {shown(value)} for the output {shown(output)}: a finite number is needed.")
    return float(value)
