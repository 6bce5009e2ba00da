"""The search for a learning rate: the grid grows until the best lies inside, then come the seeds; nothing twice."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.sweep.rate_search import LIMITS, Search, best_exponent, expected_runs, exponent_of, missing_runs, rate


def search_to_the_end(search: Search, loss) -> list[tuple[int, int]]:
    """All runs in order, `loss` a function of (exponent, seed)."""
    found, order = {}, []
    while runs := missing_runs(search, found):
        assert not set(runs) & set(found) and len(set(runs)) == len(runs)
        assert expected_runs(search, found) >= len(runs)
        found[runs[0]] = loss(*runs[0])
        order.append(runs[0])
        assert len(order) < 100
    assert expected_runs(search, found) == 0
    return order


def test_rates_are_doublings_of_one_ten_thousandth():
    assert [rate(exponent) for exponent in (0, 1, 4, -1)] == [1e-4, 2e-4, 16e-4, 5e-5]
    assert all(exponent_of(rate(exponent)) == exponent for exponent in range(*LIMITS))


def test_a_search_worked_by_hand():
    """Losses fall to the exponent 3: the grid 0, 1, 2 begins in its middle and grows by 3 and by 4."""
    search = Search(start=(0, 1, 2), neighbours=True)
    order = search_to_the_end(search, lambda exponent, seed: (exponent - 3) ** 2 + seed)
    assert order[:5] == [(1, 0), (0, 0), (2, 0), (3, 0), (4, 0)]
    assert order[5:] == [(3, 1), (3, 2), (2, 1), (4, 1), (2, 2), (4, 2)]
    alone = search_to_the_end(Search(start=(0, 1, 2)), lambda exponent, seed: (exponent - 1) ** 2 + seed)
    assert alone == [(1, 0), (0, 0), (2, 0), (1, 1), (1, 2)]


def test_a_fixed_rate_stays():
    search = Search(start=(0,), grow=False, seeds=(0, 1))
    assert search_to_the_end(search, lambda exponent, seed: 1.0) == [(0, 0), (0, 1)]


@settings(derandomize=True, database=None, max_examples=200)
@given(
    st.integers(LIMITS[0], LIMITS[1]), st.integers(-6, 8), st.integers(0, 4), st.booleans(),
    st.integers(-8, 14), st.floats(0.5, 2),
)
def test_the_best_rate_lies_inside_wherever_it_is(best, low, width, neighbours, blown_up_from, steep):
    """Whatever the start, the loss a valley, and too high rates blown up."""
    search = Search(start=tuple(range(low, low + width + 1)), neighbours=neighbours)

    def loss(exponent: int, seed: int) -> float:
        return math.inf if exponent >= blown_up_from > best else abs(exponent - best) ** steep + 0.1 * seed

    order = search_to_the_end(search, loss)
    found = {run: loss(*run) for run in order}
    assert best_exponent(search, found) == best
    grid = sorted(exponent for exponent, seed in order if seed == 0)
    assert grid == list(range(grid[0], grid[-1] + 1))
    for end, limit in ((grid[0], LIMITS[0]), (grid[-1], LIMITS[1])):
        assert end != best or end == limit, "the best lies at an end of the grid"
    with_seeds = {exponent for exponent, seed in order if seed}
    beside = {best - 1, best, best + 1} & set(grid)
    assert with_seeds == (beside if neighbours else {best})
    assert len(order) == len(grid) + 2 * len(with_seeds)


def test_where_everything_blew_up_lower_rates_are_tried():
    search = Search(start=(2, 3))
    assert missing_runs(search, {(2, 0): math.inf, (3, 0): math.inf}) == [(1, 0)]


def test_the_best_is_unknown_while_a_rate_is_missing():
    search = Search(start=(0, 1, 2))
    assert best_exponent(search, {}) is None
    assert best_exponent(search, {(0, 0): 3.0, (1, 0): 2.0, (2, 0): 1.0}) is None  # it lies at an end
    assert best_exponent(search, {(0, 0): 3.0, (1, 0): 1.0, (2, 0): 2.0}) == 1


@pytest.mark.parametrize("neighbours", [False, True])
def test_the_expected_number_is_right_where_the_grid_need_not_grow(neighbours):
    search = Search(start=(0, 1, 2, 3, 4), neighbours=neighbours)
    order = search_to_the_end(search, lambda exponent, seed: (exponent - 2) ** 2 + seed)
    assert expected_runs(search, {}) == len(order) == (11 if neighbours else 7)
