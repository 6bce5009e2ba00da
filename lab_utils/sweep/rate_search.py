"""Which learning rates to try next: a grid that grows until the best rate lies inside, then more seeds there.

Rates are 1e-4 · 2ᵏ with a whole number k, the same for all that is compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

LIMITS = (-8, 12)  # exponents k, from 4e-7 to 0.41


def rate(exponent: int) -> float:
    """The learning rate 1e-4 · 2**exponent."""
    return 1e-4 * 2.0**exponent


def exponent_of(learning_rate: float) -> int:
    """The exponent k of the rate that is nearest to `learning_rate` (> 0)."""
    return round(math.log2(learning_rate / 1e-4))


@dataclass(frozen=True, kw_only=True)
class Search:
    """How one setting's learning rate is chosen.

    Parameters
    ----------
    start : exponents to begin with, ascending and without gaps
    seeds : the first one chooses the rate, all of them run at the rate chosen
    neighbours : bool, all seeds also run at the rates next to it
    grow : bool, add rates beyond an end of the grid while the best lies there
    """

    start: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    neighbours: bool = False
    grow: bool = True


Found = Mapping[tuple[int, int], float]  # (exponent, seed) -> validation loss; infinity for a run that blew up


def best_exponent(search: Search, found: Found) -> int | None:
    """The exponent with the lowest loss of the first seed; None while a rate is missing or the best lies at an end.

    Of equal losses the lower rate is taken.
    """
    grid, waiting = _grid(search, found)
    if waiting:
        return None
    return min(grid, key=lambda exponent: (found[exponent, search.seeds[0]], exponent))


def missing_runs(search: Search, found: Found) -> list[tuple[int, int]]:
    """(exponent, seed) of the runs that are known to be needed now, in the order to run them in; empty when done.

    Runs that depend on losses not found yet are not among them: ask again when there are more.
    """
    _, waiting = _grid(search, found)
    if waiting:
        return [(exponent, search.seeds[0]) for exponent in waiting]
    best = best_exponent(search, found)
    runs = [(best, seed) for seed in search.seeds]
    if search.neighbours:
        beside = [one for one in (best - 1, best + 1) if (one, search.seeds[0]) in found]
        runs += [(exponent, seed) for seed in search.seeds for exponent in beside]
    return [run for run in runs if run not in found]


def expected_runs(search: Search, found: Found) -> int:
    """How many runs are still missing if the best rate so far turns out to be the best."""
    waiting = missing_runs(search, found)
    if best_exponent(search, found) is not None:
        return len(waiting)
    places = 3 if search.neighbours else 1
    return len(waiting) + places * (len(search.seeds) - 1)


def _grid(search: Search, found: Found) -> tuple[list[int], list[int]]:
    """(the exponents of the grid, those whose first seed is missing); the middle of the grid comes first."""
    low, high = search.start[0], search.start[-1]
    seed = search.seeds[0]
    while True:
        grid = list(range(low, high + 1))
        waiting = [exponent for exponent in grid if (exponent, seed) not in found]
        if waiting or not search.grow:
            return grid, sorted(waiting, key=lambda exponent: (abs(2 * exponent - low - high), exponent))
        best = min(grid, key=lambda exponent: (found[exponent, seed], exponent))
        if best == low > LIMITS[0]:
            low -= 1
        elif best == high < LIMITS[1]:
            high += 1
        else:
            return grid, []
