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

    def __init__(self, encode: Callable, rows: Sequence, max_length: int, keep: bool = False):
        self._encode, self._rows, self._kept = encode, rows, [] if keep else None
        self._places, self.lengths, self.learned, self.ends = (array("q") for _ in range(4))
        told, shortest, longest, highest, count = hashlib.sha256(), 0, [], 0, 0
        for count, row in enumerate(rows, 1):
            example = encode(row)
            length = len(example.input_ids)
            shortest = min(shortest or length, length)
            if length > max_length:
                continue
            self._add(count - 1, example)
            told.update(told_of(example))
            longest = max(longest, example.input_ids, key=len)
            highest = max(highest, *example.input_ids)
        if not self._places:
            raise LabError(
                f"None of {count:,} training examples fits into max_length={max_length} tokens "
                f"(the shortest has {shortest}). Raise max_length."
            )
        if left_out := count - len(self._places):
            say(f"{left_out} of {count} examples are longer than {max_length} tokens: left out.")
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
