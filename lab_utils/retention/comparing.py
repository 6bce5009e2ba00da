"""How much a loss rose, with its interval over runs and texts; and what strength does to skill and rest."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import LabError, choose
from ..recorded.forgetting import ForgettingRun, Texts, at_skill
from ..scores import Verdict
from ..sweep import compare, student
from .measuring import KINDS

Losses = Mapping[str, Sequence[float]]  # kind -> loss of each text

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


def rises(runs: Sequence[ForgettingRun], losses: Callable[[ForgettingRun], Losses]) -> dict[str, Change]:
    """By how much the loss on each kind of text is above the base's, over all runs of an arm.

    Parameters
    ----------
    runs : of one arm
    losses : function of a run, gives kind -> losses of the texts; such as those at the end, or at equal skill
    """
    found = [losses(run) for run in runs]
    return {kind: change([run.before.losses[kind] for run in runs], [one[kind] for one in found]) for kind in KINDS}


def paired(first: Sequence[ForgettingRun], second: Sequence[ForgettingRun]) -> list[tuple]:
    """The runs of two arms by the seeds of both; a LabError where they share none."""
    by_seed = {run.seed: run for run in second}
    pairs = [(run, by_seed[run.seed]) for run in first if run.seed in by_seed]
    if not pairs:
        raise LabError("The two arms have no seed in common: record a seed of the one for the other too.")
    return pairs


def apart(
    first: Sequence[ForgettingRun], second: Sequence[ForgettingRun], losses: Callable[[ForgettingRun], Losses],
    other: Callable[[ForgettingRun], Losses] | None = None,
) -> dict[str, Change]:  # fmt: skip
    """How much further the second arm's losses rose than the first's, each from its own base, on the seeds of both.

    Parameters
    ----------
    first, second : runs of two arms; or the same runs twice, read at two moments
    losses : function of a run, as for `rises`
    other : the function for `second`; default the same

    Raises
    ------
    LabError
        No seed is in both.
    """
    pairs = paired(first, second)
    sides = ([_risen(run, losses(run)) for run, _ in pairs], [_risen(run, (other or losses)(run)) for _, run in pairs])
    return {kind: change(*([one[kind] for one in side] for side in sides)) for kind in KINDS}


def _risen(run: ForgettingRun, losses: Losses) -> dict[str, list[float]]:
    """Every text's loss less the base's."""
    return {kind: [b - a for a, b in zip(run.before.losses[kind], losses[kind], strict=True)] for kind in KINDS}


def table(rows: Mapping[str, Mapping[str, Change]], kinds: Sequence[str] = KINDS[1:]) -> str:
    """Lines of text: a row per arm, a column per kind, each a mean with the half width of its interval and a disc.

    Parameters
    ----------
    rows : dict arm -> dict kind -> Change
    kinds : the columns

    Returns
    -------
    str; ● is clear of zero and ○ is not
    """
    width = max(map(len, rows), default=0)
    lines = [f"{'':{width}}  seeds" + "".join(f"  {kind:<16}" for kind in kinds).rstrip()]
    for label, found in rows.items():
        cells = [f"{one.mean:+z.2f} ± {(one.high - one.low) / 2:.2f} {'●' if one.clear else '○'}"
                 for one in (found[kind] for kind in kinds)]  # fmt: skip
        seeds = found[kinds[0]].runs
        lines.append(f"{label:{width}}  {seeds:5}" + "".join(f"  {cell:<16}" for cell in cells).rstrip())
    return "\n".join(lines)


def panels(rows: Mapping[str, Mapping[str, Change]], kinds: Sequence[str] = KINDS[1:]) -> dict[str, dict[str, tuple]]:
    """The same for a figure: kind -> arm -> (mean, low, high)."""
    return {kind: {label: (found[kind].mean, found[kind].low, found[kind].high) for label, found in rows.items()}
            for kind in kinds}  # fmt: skip


def paths(runs: Sequence[ForgettingRun], kind: str, points: int = 60) -> dict[str, list]:
    """Where the runs of an arm went: loss on the skill, and how far a kind of text is above the base.

    Parameters
    ----------
    runs : of one arm, one or more
    kind : str, one of `KINDS`
    points : int >= 2, of each line, at even steps of the loss's logarithm

    Returns
    -------
    dict of three lists of (losses on the skill, rises), two lists of float each: "measured", the checkpoints of each
    run; "each", the line between them on which `at_skill` reads; "mean", one line, the mean of these at each loss that
    every run had, from the base's to the highest of those that the runs ended with
    """
    kind = choose("kind", kind, KINDS)
    base, ends = [run.before.mean("skill") for run in runs], [run.after.mean("skill") for run in runs]
    found: dict[str, list] = {"measured": [], "each": []}
    for run, start, end in zip(runs, base, ends, strict=True):
        texts = [run.at[step] for step in sorted(run.at)]
        heights = [_above(run, one.losses, kind) for one in texts]
        found["measured"].append(([one.mean("skill") for one in texts], heights))
        losses = _spread(start, end, points)
        found["each"].append((losses, [_above(run, at_skill(run, loss), kind) for loss in losses]))
    losses = _spread(min(base), max(ends), points)
    rises_there = [statistics.fmean(_above(run, at_skill(run, loss), kind) for run in runs) for loss in losses]
    return found | {"mean": [(losses, rises_there)]}


def _spread(start: float, end: float, points: int) -> list[float]:
    """Numbers from the one to the other, each the same multiple of the one before; the ends exact."""
    inner = (start * (end / start) ** (place / (points - 1)) for place in range(1, points - 1))
    return [start, *inner, end]


def _above(run: ForgettingRun, losses: Losses, kind: str) -> float:
    """How far a kind's mean loss is above the base's."""
    return statistics.fmean(losses[kind]) - run.before.mean(kind)


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
