"""Was it worth it: the adapter's scores beside what costs nothing, with the difference and its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from .. import decoding
from ..errors import LabError, whole
from ..evaluate import answer_losses
from ..finetune import take_off_adapter, twin
from ..scores import Measure, Measured, difference, few_shots, majority_outputs, measure, perplexity, word_classifier
from ..scores.word_counts import can_classify
from ..tasks import OwnTask, last_turn, rows_text
from ..tasks.conversations import has_text

MAJORITY = "the most common answer"
WORDS = "a linear classifier on words"


@dataclass(frozen=True)
class Scored:
    """What one way to answer got on a split.

    Attributes
    ----------
    name : str, "the adapter", "the base with 4 shots"
    measured : Measured
    prompts, answers, outputs : tuples of str, in the order of `measured.per_row`
    perplexity : Measure of the right answers, or None where it was not measured
    """

    name: str
    measured: Measured
    prompts: tuple[str, ...] = field(repr=False)
    answers: tuple[str, ...] = field(repr=False)
    outputs: tuple[str, ...] = field(repr=False)
    perplexity: Measure | None = None

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(map(str, self.measured.measures))

    def better_than(self, other: "Scored") -> Measure:
        """How much better this is on the same examples, with an interval; "not clear" where it holds zero."""
        if self.answers != other.answers:
            raise LabError(f"{self.name!r} and {other.name!r} answered other examples, and cannot be compared.")
        return difference(_main(other.measured), _main(self.measured), f"{self.name} − {other.name}")


def _main(measured: Measured) -> tuple[float, ...]:
    """Each example's part of the main measure: of a share of right answers 1 or 0, whatever a wrong one has right."""
    if measured.measures[0].how == "Wilson":
        return tuple(float(value >= 1) for value in measured.per_row)
    return measured.per_row


def scored(name: str, own: OwnTask, rows: Sequence[Mapping], outputs: Sequence[str]) -> Scored:
    """The scores of outputs to rows of a task."""
    pairs = [rows_text(row) for row in rows]
    answers = [last_turn(row["messages"])[1] if "messages" in row else row["answer"] for row in rows]
    measured = measure(own, answers, list(outputs))
    return Scored(name, measured, tuple(prompt for prompt, _ in pairs), tuple(answers), tuple(outputs))


def baselines(model, tokenizer, own: OwnTask, split: str = "test", limit: int = 100, shots: int = 4, seed: int = 0
              ) -> list[Scored]:  # fmt: skip
    """What costs nothing, on the first examples of a split: the most common answer, and the base, asked well.

    Parameters
    ----------
    model, tokenizer : of a run; its adapter is left out for this (the run keeps it)
    own : OwnTask
    split : str
    limit : int, examples
    shots : int, examples of training that are put before the prompt; 0: without
    seed : int, of their choice

    Returns
    -------
    list of Scored: the most common answer (not of free texts), of labels a linear classifier on words, the base with
    the system message, the base with shots
    """
    limit, shots = whole("limit", limit), whole("shots", shots, 0, 100)
    rows = first_rows(own, split, limit)
    found = []
    if own.kind == "answers" and own.metric != "text":
        found.append(scored(MAJORITY, own, rows, majority_outputs(own, rows)))
    if can_classify(own):
        found.append(scored(WORDS, own, rows, word_classifier(own)(rows)))
    base = take_off_adapter(twin(model))
    found.append(asked("the base with a prompt", base, tokenizer, own, rows, ()))
    if shots:
        examples = few_shots(own, shots, seed)
        name = f"the base with {len(examples)} shot{'s' if len(examples) > 1 else ''}"
        found.append(asked(name, base, tokenizer, own, rows, examples))
    return found


def asked(name: str, model, tokenizer, own: OwnTask, rows: Sequence[Mapping], shots: Sequence[Mapping] = ()) -> Scored:
    """What a model answers, its scores, and the perplexity of the right answers to it."""
    found = scored(name, own, rows, decoding.answers(model, tokenizer, own, rows, shots=shots))
    if shots and own.kind == "conversations":
        return found
    losses = answer_losses(model, tokenizer, rows, own, shots=shots)
    return replace(found, perplexity=perplexity(losses.losses, losses.tokens))


def first_rows(own: OwnTask, split: str, limit: int) -> list[dict]:
    """The first rows of a split, which is in a random order, that have an answer to compare with."""
    if split not in own.data:
        there = ", ".join(own.data)
        raise LabError(f"{own.name} has no {split} rows (it has: {there}). Give split=, or more data.")
    return list(islice(filter(has_text, own[split]), limit))
