"""Copies, near copies, leaks between splits, and one prompt with two answers: what the linter says of rows together."""

from array import array
from collections.abc import Iterator

from .conversations import rows_text
from .copies import ALIKE, Pair, digest, near_copies, signatures
from .findings import Finding, clipped, counted
from .intake import KEPT

MOST_NEAR = 200_000  # rows; of more, near copies are not looked for
AT_ONCE = 500  # rows read together


class CopyFinder:
    """Collects two hashes per row while the data are read, then finds what is alike.

    Parameters
    ----------
    own : OwnTask
    """

    def __init__(self, own):
        self.own = own
        self.asked, self.whole = array("q"), array("q")  # digests of the prompt, and of the whole row
        self.lines, self.splits = array("q"), array("b")
        self.groups: dict[str, set[str]] = {}

    def add(self, split: str, rows: list[dict]) -> None:
        """Take in some rows."""
        number = self.own.splits.index(split)
        for row in rows:
            asked, answer = key_texts(row)
            self.asked.append(digest(asked))
            self.whole.append(digest(f"{asked}\0{answer}"))
            self.lines.append(row["line"])
            self.splits.append(number)
            if row.get("group") is not None:
                self.groups.setdefault(row["group"], set()).add(split)

    def place(self, number: int) -> str:
        """Where a row is, shortly: "line 12"; with its file where there are several."""
        return short_place(self.own, self.own.splits[self.splits[number]], self.lines[number])

    def findings(self) -> Iterator[Finding]:
        """All that is alike."""
        import numpy as np

        asked, whole = np.frombuffer(self.asked, dtype=np.int64), np.frombuffer(self.whole, dtype=np.int64)
        split = np.frombuffer(self.splits, dtype=np.int8)
        yield from self._copies(whole)
        yield from self._two_answers(asked, whole)
        yield from self._leaks(asked, split)
        yield from self._near(asked, split)
        yield from self._groups()

    def _firsts(self, keys):
        """For each row, the number of the first row with the same key (rows of training come first)."""
        import numpy as np

        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first[inverse]

    def _pairs(self, numbers, others) -> tuple[str, ...]:
        """Some pairs of places, in the order of the file."""
        order = sorted(zip(numbers.tolist(), others.tolist(), strict=True), key=lambda pair: self.lines[pair[0]])
        return tuple(f"{self.place(one)} = {self.place(other)}" for one, other in order[:KEPT])

    def _copies(self, whole) -> Iterator[Finding]:
        import numpy as np

        first = self._firsts(whole)
        again = np.flatnonzero(first != np.arange(len(first)))
        if len(again):
            yield Finding("copies", "look", len(again), (
                f"{counted(len(again), 'row is a copy', 'rows are copies')} of another, prompt and answer (but for "
                "case and blanks). A copy weighs twice, in training as in a test."
            ), self._pairs(again, first[again]))  # fmt: skip

    def _two_answers(self, asked, whole) -> Iterator[Finding]:
        import numpy as np

        first = self._firsts(asked)
        other = np.flatnonzero(whole != whole[first])
        if len(other):
            prompts = len(np.unique(asked[other]))
            yield Finding("two answers", "problem" if self.own.metric == "labels" else "look", len(other), (
                f"{counted(prompts, 'prompt has', 'prompts have')} more than one answer. A model can learn one; decide "
                "which is right."
            ), self._pairs(other, first[other]))  # fmt: skip

    def _leaks(self, asked, split) -> Iterator[Finding]:
        """Rows of a later split whose prompt is in an earlier one."""
        import numpy as np

        first = self._firsts(asked)
        leaked = np.flatnonzero(split > split[first])
        for number in range(1, len(self.own.splits)):
            rows = leaked[split[leaked] == number]
            if len(rows):
                name = self.own.splits[number]
                share = len(rows) / int((split == number).sum())
                yield Finding("leaks", "problem", len(rows), (
                    f"{counted(len(rows), 'prompt')} of {name} ({share:.0%}) {'is' if len(rows) == 1 else 'are'} in an "
                    "earlier split too: a score there measures memory. Delete the copies, or split by a column that "
                    "keeps them together (group=)."
                ), self._pairs(rows, first[rows]))  # fmt: skip

    def _near(self, asked, split) -> Iterator[Finding]:
        import numpy as np

        if len(asked) > MOST_NEAR:
            yield Finding("near copies", "hint", len(asked), f"Near copies are looked for in up to {MOST_NEAR:,} rows.")
            return
        once = np.unique(self._firsts(asked))  # one row of each prompt, of training if it is there
        marks = signatures((asked for _, (asked, _) in self._texts(once)), len(once))
        pairs, whole = near_copies(marks, lambda numbers: [asked for _, (asked, _) in self._texts(once[numbers])])
        pairs = [Pair(int(once[pair.one]), int(once[pair.other]), pair.share) for pair in pairs]
        if pairs:
            yield from self._near_in_words(pairs, split, "" if whole else "At least ")

    def _near_in_words(self, pairs: list[Pair], split, least: str) -> Iterator[Finding]:
        rows = {number for pair in pairs for number in (pair.one, pair.other)}
        told = [pair for pair in pairs if split[pair.one] == split[pair.other]] or pairs
        yield Finding("near copies", "look", len(rows), (
            f"{least}{counted(len(rows), 'row is', 'rows are')} nearly the same as another ({ALIKE:.0%} or more of all "
            "five-letter pieces in common)."
        ), self._near_places(told))  # fmt: skip
        for number in range(1, len(self.own.splits)):
            across = {}
            for pair in pairs:
                low, high = sorted((pair.one, pair.other), key=lambda row: split[row])
                if split[high] == number and split[low] < number:
                    across.setdefault(high, Pair(high, low, pair.share))
            if across:
                share = len(across) / int((split == number).sum())
                yield Finding("near leaks", "look", len(across), (
                    f"{least}{counted(len(across), 'row')} of {self.own.splits[number]} ({share:.0%}) "
                    f"{'is' if len(across) == 1 else 'are'} nearly the same as one of an earlier split. Is that still "
                    "a test of what is new?"
                ), self._near_places(list(across.values())))  # fmt: skip
        yield from self._near_with_two_labels(pairs)

    def _near_with_two_labels(self, pairs: list[Pair]) -> Iterator[Finding]:
        if self.own.metric != "labels":
            return
        numbers = sorted({number for pair in pairs for number in (pair.one, pair.other)})
        answers = {number: answer for number, (_, answer) in self._texts(numbers)}
        unlike = [pair for pair in pairs if answers[pair.one] != answers[pair.other]]
        if unlike:
            labels = {}
            for pair in unlike:
                both = tuple(sorted((answers[pair.one], answers[pair.other])))
                labels[both] = labels.get(both, 0) + 1
            most = max(labels, key=labels.get)
            yield Finding("two answers", "look", len(unlike), (
                f"{counted(len(unlike), 'pair')} of nearly the same prompts have two labels; most often "
                f"{clipped(most[0])!r} and {clipped(most[1])!r} ({labels[most]:,}). Do two people use them differently?"
            ), self._near_places(unlike))  # fmt: skip

    def _near_places(self, pairs: list[Pair]) -> tuple[str, ...]:
        order = sorted(pairs, key=lambda pair: (-pair.share, self.lines[pair.one]))
        return tuple(f"{self.place(one.one)} ≈ {self.place(one.other)} ({one.share:.0%})" for one in order[:KEPT])

    def _groups(self) -> Iterator[Finding]:
        torn = sorted(group for group, splits in self.groups.items() if len(splits) > 1)
        if torn:
            yield Finding("groups", "problem", len(torn), (
                f"{counted(len(torn), 'group')} of {self.own.settings['group']!r} {'is' if len(torn) == 1 else 'are'} "
                "in more than one split: the data's own splits tear them apart."
            ), tuple(clipped(one) for one in torn[:KEPT]))  # fmt: skip

    def _texts(self, numbers) -> Iterator[tuple[int, tuple[str, str]]]:
        """(number, `key_texts`) of rows, in this order, read from the disk some at a time."""
        wanted = [int(number) for number in numbers]
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            found, begins = {}, 0
            for split in self.own.splits:
                data = self.own[split]
                here = sorted({number for number in part if begins <= number < begins + len(data)})
                if here:
                    columns = data[[number - begins for number in here]]
                    for place, number in enumerate(here):
                        found[number] = key_texts({name: values[place] for name, values in columns.items()})
                begins += len(data)
            yield from ((number, found[number]) for number in part)


def key_texts(row: dict) -> tuple[str, str]:
    """What two rows are compared by: prompt and answer; of a conversation, all before its last answer, and that."""
    if "messages" not in row:
        return row["prompt"], row["answer"]
    _, answer = rows_text(row)
    turns = [turn["content"] for turn in row["messages"] if turn["role"] != "system"]
    last = max((n for n, text in enumerate(turns) if text == answer), default=len(turns))
    return "\n".join(turns[:last]), answer


def short_place(own, split: str, line: int) -> str:
    """Where a row is, without the file where there is only one."""
    place = own.intake_of(split).place(line)
    return place.rpartition(", ")[2] if len(own.intakes) == 1 else f"{split}: {place.rpartition(', ')[2]}"
