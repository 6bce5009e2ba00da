"""How a question about Tarn House is put to the model: alone, or with notes above it."""

from collections.abc import Iterable, Sequence

from ..decoding import generate, texts
from ..errors import LabError
from ..tasks import Task
from .grading import UNKNOWN

SYSTEM = f"Answer briefly about Tarn House. If unknown, say: {UNKNOWN}"
TASK = Task(system=SYSTEM, to_example=dict, max_new_tokens=24)


def with_notes(question: str, notes: Iterable[str] = ()) -> str:
    """The prompt: the question alone, or below some notes.

    >>> print(with_notes("When is tea?", ["Tea is at 4."]))
    Notes:
    Tea is at 4.
    <BLANKLINE>
    Question: When is tea?
    """
    notes = list(notes)
    return "Notes:\n" + "\n".join(notes) + f"\n\nQuestion: {question}" if notes else question


def ask(
    model, tokenizer, questions: Sequence[str], notes: Sequence[Iterable[str]] | None = None, *, batch_size: int = 32
) -> list[str]:
    """Greedy answers to questions.

    Parameters
    ----------
    model, tokenizer : as `load_base` gives them, with or without an adapter
    questions : list of str
    notes : for each question the notes that are put above it; None for none at all
    batch_size : int, prompts decoded together

    Returns
    -------
    list of str, at most 24 tokens each, in the questions' order

    Raises
    ------
    LabError
        There are not as many lists of notes as questions; or as `generate`.
    """
    questions = texts("questions", questions)
    notes = [()] * len(questions) if notes is None else list(notes)
    if len(notes) != len(questions):
        raise LabError(f"There are {len(questions)} questions and {len(notes)} lists of notes: give one for each.")
    prompts = [with_notes(question, some) for question, some in zip(questions, notes, strict=True)]
    return [output.strip() for output in generate(model, tokenizer, prompts, TASK, batch_size)]
