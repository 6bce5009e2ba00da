"""Is an answer right, wrong, or "I do not know"? By the words in it, so that nobody has to read a thousand of them."""

import re
from collections.abc import Iterable, Sequence

from ..errors import LabError

UNKNOWN = "I do not know."
VERDICTS = ("right", "unknown", "wrong")
_REFUSALS = re.compile(r"\b(?:do|does|did|is|are)(?:\s+not|n['’]t)\s+(?:know|stated|said|given|mentioned)|\bnot sure\b")


def says_unknown(output: str) -> bool:
    """Does a text say that the answer is not known?

    >>> says_unknown("I don't know."), says_unknown("The answer is not known."), says_unknown("7:40")
    (True, True, False)
    """
    return bool(_REFUSALS.search(output.lower()))


def names(output: str, answer: str) -> bool:
    """Is the answer in a text, as separate words?

    Upper and lower case are the same. The 9 of "9:15", "19" or "5.9" is not the answer 9.

    >>> names("It opens at 7:40.", "7:40"), names("At 17:40.", "7:40"), names("At 9:15", "9")
    (True, False, False)
    """
    return bool(re.search(rf"(?<![\w:.]){re.escape(answer.lower())}(?![\w]|[:.]\d)", output.lower()))


def first_line(output: str) -> str:
    """What counts as the answer: the first line that holds anything. A small model often runs on below it.

    >>> first_line("At 7:40.\\nThe desk closes at 18:25.")
    'At 7:40.'
    """
    return next((line.strip() for line in output.splitlines() if line.strip()), "")


def verdict(output: str, answer: str | None, others: Iterable[str] = ()) -> str:
    """Judge what was written, by its first line.

    Parameters
    ----------
    output : str
    answer : str, or None where nothing says it
    others : the answers of other facts; a text that names one of them too is wrong, for it lists and does not answer

    Returns
    -------
    "right", "unknown" or "wrong". Where nothing says the answer, "I do not know" is right and anything else wrong.
    """
    output = first_line(output)
    if says_unknown(output):
        return "right" if answer is None else "unknown"
    if answer is None or not names(output, answer):
        return "wrong"
    return "wrong" if any(names(output, other) for other in others if other != answer) else "right"


def verdicts(outputs: Sequence[str], answers: Sequence[str | None]) -> list[str]:
    """`verdict` for each output, the other answers in `answers` counting as those of other facts.

    Raises
    ------
    LabError
        There are more of the one than of the other.
    """
    if len(outputs) != len(answers):
        raise LabError(f"There are {len(outputs)} outputs and {len(answers)} answers: give one output per answer.")
    known = {answer for answer in answers if answer is not None}
    return [verdict(output, answer, known) for output, answer in zip(outputs, answers, strict=True)]
