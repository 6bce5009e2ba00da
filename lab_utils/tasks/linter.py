"""The data linter: what is wrong or strange in a task's data, with counts and the first lines. It changes nothing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import LabError, whole
from . import row_checks
from .conversations import learnable, with_system
from .copy_checks import CopyFinder
from .findings import Finding, Lengths, Report, counted, sorted_findings
from .intake import Tally

BATCH = 500  # rows that are read from the disk together
BINS = 10
ESTIMATE = "tokens (estimated: four characters each; pass a tokenizer for the count)"
CHECKED = (
    "empty", "types", "copies", "near copies", "two answers", "leaks", "near leaks", "groups", "lengths",
    "unfinished", "turns", "labels", "encodings", "control tokens", "personal data", "size",
)  # fmt: skip


@dataclass
class Reading:
    """What one pass over all rows collects.

    Attributes
    ----------
    texts : dict (kind, what) -> Tally of rows, of the checks of single rows
    tokens : list of int, each row's length
    labels : dict label -> dict split -> int
    """

    texts: dict[tuple[str, str], Tally]
    tokens: list[int]
    labels: dict[str, Counter]


def lint(own, tokenizer=None, max_length: int = 256) -> Report:
    """Look at all of a task's data.

    Parameters
    ----------
    own : OwnTask
    tokenizer : of transformers, to count tokens with; None: the embedded model's, or an estimate where that is missing
    max_length : int >= 8, the recipe's: longer examples are left out of training

    Returns
    -------
    Report
    """
    max_length = whole("max_length", max_length, 8, 1_000_000)
    tokenizer = tokenizer or _embedded_tokenizer()
    copies = CopyFinder(own)
    reading = Reading({}, [], {})
    control = row_checks.control_pattern(tokenizer)
    for split, rows in batches(own):
        copies.add(split, rows)
        reading.tokens += token_counts(own, rows, tokenizer)
        for row in rows:
            for kind in row_checks.faults(own, row, control):
                reading.texts.setdefault(kind, Tally()).add(place_number(split, row))
            if own.metric == "labels":
                reading.labels.setdefault(row["answer"], Counter())[split] += 1
    findings = [
        *row_checks.of_intakes(own), *copies.findings(), *row_checks.in_words(own, reading.texts, len(reading.tokens)),
        *row_checks.of_labels(own, reading.labels), *row_checks.of_size(own),
    ]  # fmt: skip
    lengths = histogram(reading.tokens, max_length, ESTIMATE if tokenizer is None else "tokens")
    findings += _of_lengths(lengths, reading.tokens)
    rows = {split: len(own[split]) for split in own.splits}
    labels = {label: dict(counts) for label, counts in reading.labels.items()}
    return Report(own.name, rows, sorted_findings(findings), lengths, labels, CHECKED)


def batches(own) -> Iterator[tuple[str, list[dict]]]:
    """All rows, some at a time: of training first."""
    for split in own.splits:
        data = own[split]
        for start in range(0, len(data), BATCH):
            columns = data[start : start + BATCH]
            names = list(columns)
            yield split, [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def place_number(split: str, row: dict) -> tuple[int, str]:
    """What tells a row's place: its line, and its split where several have lines."""
    return row["line"], split


def _embedded_tokenizer():
    """The tokenizer of the embedded model if it is on this machine already: a report fetches nothing."""
    from ..models.embedded import FOLDER, cache_folder

    try:
        folder = cache_folder() / FOLDER
        if not (folder / "tokenizer.json").is_file():
            return None
        from ..models import load_tokenizer

        return load_tokenizer()
    except LabError:
        return None


# Lengths.


def token_counts(own, rows: list[dict], tokenizer) -> list[int]:
    """Each row's tokens as a whole conversation, with the chat template's own, up to the end of its last answer."""
    conversations = [with_system(own, _learned(messages_of(row))) for row in rows]
    if tokenizer is None:
        return [sum(len(turn["content"]) for turn in turns) // 4 + 4 * len(turns) for turns in conversations]
    texts = [_rendered(tokenizer, turns, row.get("tools")) for turns, row in zip(conversations, rows, strict=True)]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def messages_of(row: dict) -> list[dict]:
    """A row as a conversation, whichever kind it is."""
    if "messages" in row:
        return row["messages"]
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["answer"]}]


def _learned(turns: list[dict]) -> list[dict]:
    """A conversation up to its last answer: what comes after is not trained on."""
    return turns[: learnable(turns)[-1] + 1]


def _rendered(tokenizer, turns: list[dict], tools: list | None = None) -> str:
    """A conversation as the template writes it; its bare texts where it has none, or refuses these turns."""
    options = {"tools": tools} if tools else {}
    if getattr(tokenizer, "chat_template", None):
        for attempt in (turns, [one for one in turns if one["role"] != "system"]):
            try:
                return tokenizer.apply_chat_template(attempt, tokenize=False, **options).rstrip()
            except Exception:  # a template is a program, and raises what it likes
                continue
    return "\n\n".join(turn["content"] for turn in turns)


def histogram(tokens: list[int], max_length: int, unit: str) -> Lengths:
    """The lengths in ten bins of one round width."""
    import numpy as np

    values = np.array(tokens)
    low, high = int(values.min()), int(values.max())
    width = _round_up((high - low + 1) / BINS)
    edges = np.arange(low // width * width, high + width + 1, width)
    edges = edges[: int(np.searchsorted(edges, high, side="right")) + 1]
    counts, _ = np.histogram(values, edges)
    return Lengths(
        unit, int(np.median(values)), high, tuple(edges.tolist()), tuple(counts.tolist()), max_length,
        int((values > max_length).sum()),
    )  # fmt: skip


def _round_up(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 …"""
    size = 1
    while True:
        for step in (1, 2, 5):
            if size * step >= number:
                return size * step
        size *= 10


def _of_lengths(lengths: Lengths, tokens: list[int]) -> Iterator[Finding]:
    if lengths.cut:
        total = len(tokens)
        most = sorted(tokens)[-(total // 100) - 1]
        level = "look" if lengths.cut < total else "problem"
        yield Finding("lengths", level, lengths.cut, (
            f"{counted(lengths.cut, 'example is', 'examples are')} longer than max_length={lengths.max_length:,} "
            f"tokens ({lengths.cut / total:.1%}) and would be left out of training. max_length={most:,} keeps 99 %, "
            f"{lengths.longest:,} keeps all; memory grows with it."
        ))  # fmt: skip
