"""Rows that say the same: exact copies by hash, near copies by MinHash, in a few numbers per row.

MinHash signatures are datasketch's. Its index keeps a Python set per band and row (300 MB for 50,000 rows); here the
bands are sorted as arrays, which finds the same candidates in a tenth of the memory.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

ALIKE = 0.8  # of the shingles of two texts together, the share that both have
PERMUTATIONS, BAND = 126, 6  # two texts that share 0.8 agree in one of 21 bands of six with probability 0.998
BESIDE = 4  # rows before it in a band that a row is compared with
SHINGLE = 5  # characters
LONGEST = 4000  # characters of a text that are looked at
MOST_PAIRS = 100_000  # candidates that are compared
NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Pair:
    """Two rows that are nearly the same: their numbers (the lower first), and the share of shingles in common."""

    one: int
    other: int
    share: float


def plain(text: str) -> str:
    """A text without case, punctuation and extra blanks: what two copies of one text have in common."""
    return NOT_WORD.sub(" ", text[:LONGEST].lower()).strip()


def digest(text: str) -> int:
    """A number of 63 bits that is the same for texts that differ in case and blanks only."""
    same = " ".join(text.lower().split())
    return int.from_bytes(hashlib.blake2b(same.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def shingles(text: str) -> set[bytes]:
    """All pieces of five characters of a plain text; of a shorter one, the text."""
    said = plain(text)
    return {said[start : start + SHINGLE].encode() for start in range(max(1, len(said) - SHINGLE + 1))}


def jaccard(one: str, other: str) -> float:
    """The share of shingles in common: |A ∩ B| / |A ∪ B|. Source: Broder 1997. https://doi.org/10.1109/SEQUEN.1997.666900"""
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def signatures(texts: Iterable[str], rows: int):
    """MinHash signatures, uint32 array of shape (rows, PERMUTATIONS)."""
    import numpy as np
    import xxhash
    from datasketch import MinHash

    found = np.empty((rows, PERMUTATIONS), dtype=np.uint32)
    pieces = (shingles(text) for text in texts)
    made = MinHash.generator(pieces, num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
    for number, one in enumerate(made):
        found[number] = one.hashvalues
    return found


def candidates(marks) -> Iterable[tuple[int, int]]:
    """Pairs of rows that agree in a whole band of their signatures, the lower number first.

    Of many that agree in one band, each is paired with the first and with the few before it: the pairs of a hundred
    would be five thousand.
    """
    import numpy as np

    seen: set[tuple[int, int]] = set()
    for band in range(PERMUTATIONS // BAND):
        part = np.ascontiguousarray(marks[:, band * BAND : (band + 1) * BAND])
        keys = part.view([("", part.dtype)] * BAND).ravel()
        order = np.argsort(keys, kind="stable")
        begins = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1], True])
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            run = order[begin:end].tolist()
            for place in range(1, len(run)):
                for before in {0, *range(max(0, place - BESIDE), place)}:
                    pair = (run[before], run[place])
                    if pair not in seen and len(seen) < MOST_PAIRS:
                        seen.add(pair)
                        yield pair


def near_copies(marks, text_of: Callable[[Sequence[int]], list[str]]) -> tuple[list[Pair], bool]:
    """Pairs of rows whose texts share `ALIKE` of their shingles or more.

    Parameters
    ----------
    marks : of `signatures`
    text_of : function of row numbers, gives their texts: the share is computed from these, not estimated

    Returns
    -------
    (pairs, whole) : whole is False if there were more than `MOST_PAIRS` candidates, so that pairs may be missing
    """
    found, waiting, looked_at = [], [], 0
    for one, other in candidates(marks):
        looked_at += 1
        if (marks[one] == marks[other]).mean() >= ALIKE - 0.15:  # four standard errors of the estimate
            waiting.append((one, other))
    for start in range(0, len(waiting), 500):
        part = waiting[start : start + 500]
        texts = text_of([number for pair in part for number in pair])
        for place, (one, other) in enumerate(part):
            if (share := jaccard(texts[2 * place], texts[2 * place + 1])) >= ALIKE:
                found.append(Pair(one, other, share))
    return sorted(found, key=lambda pair: (pair.one, pair.other)), looked_at < MOST_PAIRS
