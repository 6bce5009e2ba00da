"""What the data linter found, as an object to print, to show in a page and to keep."""

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ..printing import WIDTH, folded

LEVELS = {"problem": "✗", "look": "?", "hint": "·"}  # to be corrected, to be looked at, to be known
WORDS = {"problem": "correct", "look": "look at", "hint": "know"}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    kind : str, which check found it: "leaks"
    level : "problem", "look" or "hint"
    count : int, of rows
    said : str, a sentence with the count, and what to do
    places : tuple of str, the first rows: "line 12", or "line 12 = line 40"
    """

    kind: str
    level: str
    count: int
    said: str
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.said + (f" First: {self._places(len(self.places))}." if self.places else "")

    def lines(self) -> str:
        """The finding in lines of WIDTH characters; the last has as many of the first rows as fit, at least one."""
        said = folded(f"{LEVELS[self.level]} {self.kind}: {self.said}")
        shown = [f"  First: {self._places(count)}." for count in range(1, len(self.places) + 1)]
        fits = [line for line in shown if len(line) <= WIDTH]
        return "\n".join([said, *(fits[-1:] or shown[:1])])

    def _places(self, count: int) -> str:
        """The first few of the places, and whether there are more rows."""
        more = ", …" if count < len(self.places) or self.count > len(self.places) else ""
        return ", ".join(self.places[:count]) + more


@dataclass(frozen=True)
class Lengths:
    """How long the examples are, as the model reads them.

    Attributes
    ----------
    unit : str, "tokens" of a tokenizer, or "tokens (estimated …)"
    median, longest : int
    edges : tuple of int, the bins' edges; counts : tuple of int, examples in each bin
    max_length : int; longer examples are left out of training
    cut : int, how many are
    """

    unit: str
    median: int
    longest: int
    edges: tuple[int, ...]
    counts: tuple[int, ...]
    max_length: int
    cut: int

    def __str__(self) -> str:
        most, lines = max(self.counts), [f"Lengths in {self.unit}: median {self.median:,}, longest {self.longest:,}"]
        width = len(f"{self.edges[-1]:,}")
        for low, high, count in zip(self.edges[:-1], self.edges[1:], self.counts, strict=True):
            bar = "█" * round(30 * count / most) or ("▏" if count else "")
            lines.append(f"  {low:>{width},} to {high - 1:>{width},}  {bar} {count:,}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What `OwnTask.report` found; print it, or let a page show it. The data are as they were.

    Attributes
    ----------
    name : str, of the task
    rows : dict split -> int
    findings : tuple of Finding, what to correct first
    lengths : Lengths
    labels : dict label -> dict split -> int; empty if the answers are not labels
    checked : tuple of str, the kinds of the checks that were made
    """

    name: str
    rows: dict[str, int]
    findings: tuple[Finding, ...]
    lengths: Lengths
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    checked: tuple[str, ...] = ()

    def of(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one check."""
        return tuple(one for one in self.findings if one.kind == kind)

    @property
    def clean(self) -> tuple[str, ...]:
        """The checks that found nothing."""
        return tuple(kind for kind in self.checked if not self.of(kind))

    @property
    def counts(self) -> dict[str, int]:
        """The rows that each check found, added up over the splits; of a check that found nothing, no entry."""
        return {kind: sum(one.count for one in self.of(kind)) for kind in self.checked if self.of(kind)}

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.name}: " + ", ".join(f"{count:,} {split}" for split, count in self.rows.items())]
        parts += [one.lines() for one in self.findings]
        parts += [folded(f"Nothing found: {', '.join(self.clean)}.")] if self.clean else []
        parts += [label_lines(self.labels)] if self.labels else []
        return "\n".join([*parts, str(self.lengths), "Nothing was changed."])

    def _repr_html_(self) -> str:
        """For a page; every text of the data is escaped."""
        items = "".join(
            f"<li><b>{html.escape(one.kind)}</b> ({WORDS[one.level]}): {html.escape(str(one))}</li>"
            for one in self.findings
        )
        rest = [str(self.lengths), f"Nothing found: {', '.join(self.clean)}. Nothing was changed."]
        rest = [label_lines(self.labels), *rest] if self.labels else rest
        head = html.escape(f"{self.name}: " + ", ".join(f"{count:,} {split}" for split, count in self.rows.items()))
        return f"<p><b>{head}</b></p><ul>{items}</ul>" + "".join(f"<pre>{html.escape(one)}</pre>" for one in rest)


def label_lines(labels: dict[str, dict[str, int]], most: int = 12) -> str:
    """The labels and their counts as a table of text, the most common first."""
    totals = {label: sum(counts.values()) for label, counts in labels.items()}
    order = sorted(totals, key=lambda label: -totals[label])
    shown = order[:most]
    splits = list(dict.fromkeys(split for counts in labels.values() for split in counts))
    width = max(len(clipped(label)) for label in shown)
    everything = sum(totals.values())
    lines = [f"Labels ({', '.join(splits)}):"]
    for label in shown:
        counts = " ".join(f"{labels[label].get(split, 0):>7,}" for split in splits)
        lines.append(f"  {clipped(label):<{width}} {counts}  {totals[label] / everything:>4.0%}")
    if len(order) > most:
        lines.append(f"  … and {len(order) - most} more")
    return "\n".join(lines)


def clipped(text: str, length: int = 40) -> str:
    """A text in one line, cut short."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def counted(count: int, one: str, many: str = "") -> str:
    """ "1 row", "2,640 rows"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def sorted_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What to correct first, then what to look at; otherwise in the order of the checks."""
    order = list(LEVELS)
    return tuple(sorted(findings, key=lambda one: order.index(one.level)))
