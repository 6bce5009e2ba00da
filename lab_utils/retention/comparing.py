"""How much a loss rose, with its interval over runs and texts; and what strength does to skill and rest."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import LabError, choose
from ..recorded.forgetting import ForgettingRun, Texts
from ..scores import Verdict
from ..sweep import compare, student
from .measuring import KINDS, Reading


@dataclass(frozen=True)
class Change(Verdict):
    """A mean change in nats per token, with its 95 % interval.

    Attributes
    ----------
    mean, low, high : float
    runs : int, seeds that it is over
    texts : int
    """

    mean: float
    low: float
    high: float
    runs: int
    texts: int

    def __str__(self) -> str:
        over = f"{self.runs} seeds × {self.texts} texts" if self.runs > 1 else f"1 seed, {self.texts} texts"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}; {over}): {self.verdict}"


def change(before: Sequence, after: Sequence) -> Change:
    """After less before, text by text.

    With two runs or more the interval is over seeds and texts at once (`lab_utils.sweep.compare`). With one it is
    over the texts alone, by Student's t: what another seed would have given is not in it.

    Parameters
    ----------
    before, after : float (texts,) or (runs, texts); row i of the one belongs to row i of the other, and so do texts

    Raises
    ------
    LabError
        The two have not the same shape, or a value is not finite.
    """
    before, after = _rows(before), _rows(after)
    if [len(row) for row in before] != [len(row) for row in after]:
        raise LabError("Before and after are not the same runs and texts: give one loss for each, in the same order.")
    if len(before) > 1:
        found = compare(before, after)
        return Change(found.mean, found.low, found.high, len(before), len(before[0]))
    moved = [b - a for a, b in zip(before[0], after[0], strict=True)]
    if len(moved) < 2 or not all(map(math.isfinite, moved)):
        raise LabError(f"{len(moved)} texts, or a loss that is not finite: give two texts or more.")
    half = student(len(moved) - 1) * statistics.stdev(moved) / len(moved) ** 0.5
    mean = statistics.fmean(moved)
    return Change(mean, mean - half, mean + half, 1, len(moved))


def _rows(values: Sequence) -> list[list[float]]:
    """Runs × texts as lists; one run alone is one row."""
    values = [list(row) if isinstance(row, (list, tuple)) else row for row in values]
    if not values:
        raise LabError("There is no loss to compare: the list is empty.")
    return values if isinstance(values[0], list) else [values]


def risen(runs: Sequence[ForgettingRun], kind: str) -> Change:
    """By how much training raised the loss of a kind of text, over all runs of an arm."""
    kind = choose("kind", kind, KINDS)
    return change([run.before.losses[kind] for run in runs], [run.after.losses[kind] for run in runs])


def as_texts(readings: Mapping[str, Reading]) -> Texts:
    """What `read_all` returns, in the form that recorded runs have."""
    return Texts({kind: one.losses for kind, one in readings.items()}, readings["skill"].right)


def by_strength(curves: Sequence[Mapping[float, Texts]]) -> list[dict]:
    """One point per strength, over one curve or several.

    Parameters
    ----------
    curves : for each run a mapping of strengths to what the texts cost; the first strength, the lowest, is the base's 0

    Returns
    -------
    list of dict: "strength"; "skill", mean loss on the trained skill; "exact", share of messages answered letter by
    letter; "rise", dict kind -> [mean, low, high] of the loss above that of the base, for all kinds but "skill"

    Raises
    ------
    LabError
        There is no curve, one lacks a strength that another has, or strength 0 is missing.
    """
    if not curves or 0.0 not in curves[0] or any(set(one) != set(curves[0]) for one in curves):
        raise LabError("Curves of strength need the same strengths in every run, 0 among them.")
    points = []
    for strength in sorted(curves[0]):
        some = [curve[strength] for curve in curves]
        rise = {}
        for kind in KINDS[1:]:
            found = change([curve[0.0].losses[kind] for curve in curves], [texts.losses[kind] for texts in some])
            rise[kind] = [found.mean, found.low, found.high]
        skill = statistics.fmean(texts.mean("skill") for texts in some)
        exact = statistics.fmean(texts.exact for texts in some)
        points.append({"strength": float(strength), "skill": skill, "exact": exact, "rise": rise})
    return points
