"""Which rows train, which are looked at meanwhile, and which are kept for the end: by a seed, and by group."""

from collections.abc import Sequence

from ..errors import LabError, listed, real, shown

SPLITS = ("train", "validation", "test")


def check_shares(split: object) -> tuple[float, float, float]:
    """The shares of training, validation and test.

    Raises
    ------
    LabError
        They are not three numbers of 0 or more that add up to 1, or nothing is left to train on.
    """
    shares = listed(split)
    way_out = "three shares that add up to 1, for training, validation and test, such as (0.8, 0.1, 0.1)"
    if not shares or isinstance(split, str) or len(shares) != 3:
        raise LabError(f"split={shown(split)} is out of range: {way_out}.")
    found = tuple(float(real("split", share, way_out, zero=True)) for share in shares)
    if abs(sum(found) - 1) > 1e-6 or found[0] == 0:
        raise LabError(f"split={shown(split)} is out of range: {way_out}; the first is above 0.")
    return found


def counts_of(rows: int, shares: Sequence[float]) -> list[int]:
    """How many rows each split gets: the rounded shares, one at least where rows suffice, and training the rest."""
    others = [max(round(rows * share), 1 if share else 0) for share in shares[1:]]
    while sum(others) >= rows and any(others):  # of one row or two: training comes first
        others[-1 if others[-1] else 0] -= 1
    return [rows - sum(others), *others]


def cut(rows: int, shares: Sequence[float], seed: int, groups=None) -> dict:
    """Row numbers by split, shuffled, so that the first hundred of a split are a sample of it.

    Parameters
    ----------
    rows : int
    shares : of train, validation, test
    seed : int
    groups : int64 array, shape (rows,), the group of each row, or None. Rows of one group go into one split: whole
        groups, the largest first, go to the split that lacks most.

    Returns
    -------
    dict split -> int64 array; only splits that have rows
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    wanted = counts_of(rows, shares)
    if groups is None:
        order = rng.permutation(rows)
        parts = np.split(order, np.cumsum(wanted)[:-1])
    else:
        split_of_row = _by_group(groups, wanted, rng)
        parts = [rng.permutation(np.flatnonzero(split_of_row == number)) for number in range(3)]
    return {name: part for name, part in zip(SPLITS, parts, strict=True) if len(part)}


def _by_group(groups, wanted: Sequence[int], rng):
    """The split of each row, as a number."""
    import numpy as np

    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    lacking, split_of_group = np.array(wanted, dtype=float), np.zeros(len(sizes), dtype=np.int64)
    for group in order:
        split_of_group[group] = np.argmax(lacking)
        lacking[split_of_group[group]] -= sizes[group]
    return split_of_group[numbers]
