"""Labels that a model wrote against the right ones: which is taken for which."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .intervals import RESAMPLES, Measure, no_point

OTHER = "(no label)"


@dataclass(frozen=True)
class Confusion:
    """How often each label was written for each.

    Attributes
    ----------
    labels : tuple of str, the right ones, then `OTHER` if something else was written
    counts : tuple of rows, one per right label: how often each of `labels` was written for it
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        width = max(map(len, self.labels))
        cell = max(5, min(12, width), *(len(f"{count:,}") for row in self.counts for count in row))
        heads = " ".join(f"{label[:cell]:>{cell}}" for label in self.labels)
        lines = ["a row per right label, a column per label that was written", f"{'':<{width}} {heads}"]
        for label, row in zip(self.labels, self.counts, strict=False):
            lines.append(f"{label:<{width}} " + " ".join(f"{count or '·':>{cell}}" for count in row))
        return "\n".join(lines)

    def mistakes(self, most: int = 5) -> list[tuple[str, str, int]]:
        """(right, written, how often), the most common first."""
        pairs = [
            (right, self.labels[column], count)
            for right, row in zip(self.labels, self.counts, strict=False)
            for column, count in enumerate(row)
            if count and self.labels[column] != right
        ]
        return sorted(pairs, key=lambda one: -one[2])[:most]


def confusion(answers: Sequence[str], outputs: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Count what was written for what; an output that is none of `labels` is `OTHER`."""
    known = tuple(dict.fromkeys([*labels, *answers]))
    written = [output if output in known else OTHER for output in outputs]
    columns = (*known, OTHER) if OTHER in written else known
    counts = Counter(zip(answers, written, strict=True))
    return Confusion(columns, tuple(tuple(counts[right, one] for one in columns) for right in known))


def macro_f1(found: Confusion, seed: int = 0) -> Measure:
    """The mean over labels of F1 = 2 · right / (wanted + written): a rare label counts as much as a common one.

    The interval is a bootstrap: resampling examples is drawing the matrix's cells from a multinomial distribution.
    Labels that no example asks for are left out.
    """
    import numpy as np

    counts = np.array(found.counts)
    rows, columns = np.nonzero(counts)
    cells = counts[rows, columns]
    asked = np.flatnonzero(counts.sum(1))
    rng = np.random.default_rng(seed)
    drawn = np.vstack([cells, rng.multinomial(cells.sum(), cells / cells.sum(), RESAMPLES)]).astype(float)
    values = np.zeros((len(drawn), len(asked)))
    for place, label in enumerate(asked):
        right = drawn[:, (rows == label) & (columns == label)].sum(1)
        both = drawn[:, rows == label].sum(1) + drawn[:, columns == label].sum(1)
        values[:, place] = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    means = values.mean(1)
    low, high = np.quantile(means[1:], (0.025, 0.975))
    return no_point(Measure("macro F1", float(means[0]), float(low), float(high), int(cells.sum()), "bootstrap"))
