"""What answers are, labels, JSON with fields or free text, and so what they are compared by."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

from ..errors import LabError, choose, listed, shown, whole
from .intake import Intake

METRICS = ("exact", "labels", "fields", "text")
LONGEST_LABEL = 80  # characters
MOST_TOKENS = 512  # of an answer that is scored, unless the person gives another number
MOST_KINDS = 200  # labels


@dataclass(frozen=True)
class OneOf:
    """Is a text one of these labels? Blanks around either do not count."""

    labels: frozenset

    def __call__(self, text: str) -> bool:
        return text.strip() in self.labels


def metric_name(metric: str | Callable) -> str:
    """A metric's name; of a function, the function's."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def score_by(metric: Callable, output: str, answer: str, place: str = "") -> float:
    """What a person's own function says of an output, in [0, 1].

    Raises
    ------
    LabError
        The function raises, or gives something else: output and answer are named, and the `place`, "at example 3".
    """
    place = f" {place}" if place else ""
    try:
        value = metric(output, answer)
    except Exception as error:  # the person's own code
        raise LabError(
            f"Your {metric_name(metric)}(output, answer) raised {type(error).__name__}: {error},{place or ' for'}: "
            f"output {shown(output)}, answer {shown(answer)}."
        ) from error
    if not isinstance(value, (Real, bool)) or math.isnan(value) or not 0 <= value <= 1:
        raise LabError(
            f"Your {metric_name(metric)}(output, answer) gave {shown(value)}{place}: give True or False, or a number "
            "in [0, 1]."
        )
    return float(value)


def answer_kind(kind: str, intakes: Sequence[Intake], fields, metric, max_new_tokens: int | None) -> dict:
    """The fields of a task that its answers decide: as the person said, or by what the answers look like.

    Parameters
    ----------
    kind : "answers" or "conversations"
    intakes : what was seen of the answers
    fields : names of JSON fields, or () for those that were found
    metric : one of `METRICS`, a function, or None
    max_new_tokens : int or None, for what `intake.room_of` gives the longest answer, 16 to `MOST_TOKENS`

    Returns
    -------
    dict of "metric", "fields", "labels", "in_form", "max_new_tokens"

    Raises
    ------
    LabError
        A setting is out of range, or does not suit the answers.
    """
    if metric is not None and not callable(metric):
        choose("metric", metric, METRICS)
    named = listed(fields) if fields else ()
    if named is None or not all(isinstance(one, str) for one in named):
        raise LabError(f"fields={shown(fields)} is out of range: names of the answer's JSON fields.")
    found = _fields(kind, intakes)
    if named and not found and metric in (None, "fields"):
        raise LabError(f"fields={shown(fields)}: not every answer is a JSON object, which has fields. Leave it out.")
    fields = named or found
    labels = _labels(intakes) if kind == "answers" else ()
    if metric is None:
        metric = "fields" if fields else "labels" if labels else "text"
    if metric == "fields" and not fields:
        raise LabError("metric='fields' compares JSON objects, and not every answer is one. Take 'exact' or 'text'.")
    if metric == "labels":
        if kind == "conversations":
            raise LabError("metric='labels' is for data with prompt and answer; conversations take 'text' or 'exact'.")
        labels = labels or tuple(sorted({answer for one in intakes for answer in one.answers or ()}))
    labels = labels if metric == "labels" else ()
    return {
        "metric": metric, "fields": fields if metric == "fields" else (), "labels": labels,
        "in_form": OneOf(frozenset(map(str.strip, labels))) if labels else bool,
        "max_new_tokens": _room(intakes, max_new_tokens),
    }  # fmt: skip


def _room(intakes: Sequence[Intake], given: int | None) -> int:
    if given is not None:
        return whole("max_new_tokens", given, 1, 100_000)
    return min(MOST_TOKENS, max(16, *(one.room for one in intakes)))


def _labels(intakes: Sequence[Intake]) -> tuple[str, ...]:
    """The answers if they are labels: few and short, each twice on average; else none."""
    if any(one.answers is None for one in intakes):
        return ()
    found = sorted({answer for one in intakes for answer in one.answers})
    rows = sum(one.rows for one in intakes)
    few = 0 < len(found) <= MOST_KINDS and 2 * len(found) <= rows
    return tuple(found) if few and max(map(len, found)) <= LONGEST_LABEL else ()


def _fields(kind: str, intakes: Sequence[Intake]) -> tuple[str, ...]:
    """The keys of the answers, if every answer is a JSON object."""
    if kind != "answers" or any(one.no_json.count for one in intakes):
        return ()
    return tuple(dict.fromkeys(key for one in intakes for key in one.json_fields))
