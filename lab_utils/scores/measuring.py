"""The scores of a task's answers: by what its answers are, or by the person's own function; always with intervals."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import LabError, shown
from ..tasks import Task
from ..tasks.answer_kinds import metric_name, score_by
from .intervals import Measure, bootstrap_mean, wilson
from .labels import Confusion, confusion, macro_f1
from .text_overlap import rouge_l, token_f1


@dataclass(frozen=True)
class Measured:
    """The scores of some answers.

    Attributes
    ----------
    measures : tuple of Measure, the main one first
    per_row : tuple of float in [0, 1], the main score of each answer, in their order
    confusion : Confusion of labels, or None
    """

    measures: tuple[Measure, ...]
    per_row: tuple[float, ...] = field(repr=False)
    confusion: Confusion | None = field(default=None, repr=False)

    @property
    def main(self) -> Measure:
        """The first measure."""
        return self.measures[0]

    def __getitem__(self, name: str) -> Measure:
        for one in self.measures:
            if one.name == name:
                return one
        raise LabError(f"Unknown measure {shown(name)}. There are: {', '.join(one.name for one in self.measures)}.")

    def __str__(self) -> str:
        lines = [f"{self.main.n} examples: " + ", ".join(map(str, self.measures))]
        return "\n".join([*lines, str(self.confusion)] if self.confusion else lines)

    def worst(self, count: int = 10) -> list[int]:
        """The numbers of the worst answers, the worst first."""
        return sorted(range(len(self.per_row)), key=lambda number: self.per_row[number])[:count]

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        from dataclasses import asdict

        return asdict(self)


def metric_of(task: Task) -> str | Callable:
    """What a task's answers are compared by: of a task of the pages, the fields or the whole text."""
    return getattr(task, "metric", "fields" if task.fields else "exact")


def measure(task: Task, answers: Sequence[str], outputs: Sequence[str]) -> Measured:
    """Score what a model wrote.

    Parameters
    ----------
    task : Task, of the pages or one's own
    answers : list of str, the right ones
    outputs : list of str, what was written, in the same order

    Returns
    -------
    Measured
        "labels": accuracy, macro F1, the share of outputs that are a label, and the confusion matrix. "fields": exact
        match as JSON, the share that is JSON, and each field. "text": token F1, ROUGE-L, exact match. "exact": exact
        match. A function you pass: its mean.

    Raises
    ------
    LabError
        There are none, their numbers differ, or the person's own function fails: the example is named.
    """
    if len(answers) != len(outputs):
        raise LabError(f"There are {len(answers)} answers and {len(outputs)} outputs: give one output per answer.")
    if not answers:
        raise LabError("There are no answers to score: the split is empty. Choose another split or a larger slice.")
    metric = metric_of(task)
    if callable(metric):
        return _by_function(metric, answers, outputs)
    return {"labels": _labels, "fields": _fields, "text": _text, "exact": _exact}[metric](task, answers, outputs)


def _by_function(metric: Callable, answers: Sequence[str], outputs: Sequence[str]) -> Measured:
    values = [
        score_by(metric, output, answer, f"at example {number}")
        for number, (output, answer) in enumerate(zip(outputs, answers, strict=True), 1)
    ]
    return Measured((bootstrap_mean(values, metric_name(metric)),), tuple(values))


def _shares(hits: Sequence[bool], name: str) -> Measure:
    return wilson(sum(hits), len(hits), name)


def _right(task: Task, answers, outputs) -> list[bool]:
    return [task.is_right(output, answer) for output, answer in zip(outputs, answers, strict=True)]


def _exact(task: Task, answers, outputs) -> Measured:
    right = _right(task, answers, outputs)
    return Measured((_shares(right, "exact match"),), tuple(map(float, right)))


def _labels(task: Task, answers, outputs) -> Measured:
    wanted, written = [one.strip() for one in answers], [one.strip() for one in outputs]
    labels = [one.strip() for one in getattr(task, "labels", ())] or sorted(set(wanted))
    matrix = confusion(wanted, written, labels)
    right = [one == other for one, other in zip(wanted, written, strict=True)]
    known = {*labels, *wanted}
    measures = (
        _shares(right, "label accuracy"), macro_f1(matrix), _shares([one in known for one in written], "is a label"),
    )  # fmt: skip
    return Measured(measures, tuple(map(float, right)), matrix)


def _fields(task: Task, answers, outputs) -> Measured:
    right = _right(task, answers, outputs)
    found = [task.right_fields(output, answer) for output, answer in zip(outputs, answers, strict=True)]
    shares = [sum(one.values()) / len(task.fields) for one in found]
    measures = [_shares(right, "exact match"), _shares([task.parse(one) is not None for one in outputs], "is JSON")]
    measures += [_shares([one[name] for one in found], f"field {name}") for name in task.fields]
    # Among wrong answers, those with fewer right fields are worse; a right one is 1 in any case.
    per_row = [1.0 if whole else min(share, 0.99) for whole, share in zip(right, shares, strict=True)]
    return Measured(tuple(measures), tuple(per_row))


def _text(task: Task, answers, outputs) -> Measured:
    pairs = list(zip(outputs, answers, strict=True))
    f1, rouge = [token_f1(*pair) for pair in pairs], [rouge_l(*pair) for pair in pairs]
    exact = [output.strip() == answer.strip() for output, answer in pairs]
    measures = (bootstrap_mean(f1, "token F1"), bootstrap_mean(rouge, "ROUGE-L"), _shares(exact, "exact match"))
    return Measured(measures, tuple(f1))


def as_json(fields: dict) -> str:
    """An answer of fields as the task writes it."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
