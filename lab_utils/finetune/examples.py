"""A data set's examples as tokens, made when they are asked for: memory does not grow with the size of the data."""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence

from ..errors import LabError
from ..printing import say
from .identity import told_of


class Examples(Sequence):
    """The examples of a data set that fit; of each only its lengths are kept.

    Every row is encoded once at the start, to know which ones fit, and to identify the data by their tokens.

    Parameters
    ----------
    encode : function, row -> supervision.Encoded
    rows : sequence of rows, such as `training_rows` gives
    max_length : int, tokens; longer examples are left out, and that is said
    keep : bool, keep the tokens of each too
    split : str, for messages: "training" or "validation"
    place : function, the number of a row from 1 -> where it is in a person's file, for messages
    keep : bool, keep the tokens in memory too

    Attributes
    ----------
    lengths, learned, ends : arrays of int, for each example its tokens, how many of them have a label, and how many of
        those are ends of turn
    digest : str, as `identity.tokens_digest` gives it
    outermost : list of lists of int, the longest example's tokens and the highest token, for `fit.check_fit`

    Raises
    ------
    LabError
        No example is short enough; or as `encode`.
    """

    def __init__(
        self, encode: Callable, rows: Sequence, max_length: int, keep: bool = False, *, split: str = "training",
        place: Callable[[int], str] | None = None,
    ):  # fmt: skip
        self._encode, self._rows, self._kept = encode, rows, [] if keep else None
        self._places, self.lengths, self.learned, self.ends = (array("q") for _ in range(4))
        told, shortest, longest, highest, count, left_out = hashlib.sha256(), 0, [], 0, 0, []
        for count, row in enumerate(rows, 1):
            try:
                example = encode(row)
            except LabError as error:
                where = f" ({place(count)})" if place else ""
                raise LabError(f"{split} example {count}{where}: {error}") from error
            length = len(example.input_ids)
            shortest = min(shortest or length, length)
            if length > max_length:
                left_out.append(count)
                continue
            self._add(count - 1, example)
            told.update(told_of(example))
            longest = max(longest, example.input_ids, key=len)
            highest = max(highest, *example.input_ids)
        if not self._places:
            raise LabError(
                f"None of {count:,} {split} examples fits into max_length={max_length} tokens "
                f"(the shortest has {shortest}). Raise max_length."
            )
        if left_out:
            kind = "" if split == "training" else f"{split} "
            first = f" The first: {place(left_out[0])}." if place else ""
            say(f"{len(left_out)} of {count} {kind}examples are longer than {max_length} tokens: left out.{first}")
        self.digest, self.outermost = told.hexdigest()[:16], [longest, [highest]]

    def _add(self, place: int, example) -> None:
        """Keep what is known of one more example."""
        self._places.append(place)
        self.lengths.append(len(example.input_ids))
        self.learned.append(example.supervised())
        self.ends.append(len(example.learned))
        if self._kept is not None:
            self._kept.append(example)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int):
        if self._kept is not None:
            return self._kept[index]
        return self._encode(self._rows[self._places[index]])

    def supervised(self, indices: Iterable[int], supervise_end: bool = True) -> int:
        """How many tokens of some examples have a label, with or without the ends of their turns."""
        return sum(self.learned[index] - (0 if supervise_end else self.ends[index]) for index in indices)
