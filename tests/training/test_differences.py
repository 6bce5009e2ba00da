"""Differences over seeds and messages: by hand, against Student's t, and by how often their intervals are right."""

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_ind

from lab_utils.errors import LabError
from lab_utils.sweep.differences import Difference, compare, holm

SAMPLES = 1000


def runs(rng, seeds: int, messages: int, of_seeds: float, of_messages: float, of_both: float, heavy: bool):
    """Made-up differences around 0, seeds × messages, with three standard deviations."""
    draw = (lambda size: rng.lognormal(0, 1, size) - math.exp(0.5)) if heavy else rng.standard_normal
    scale = math.sqrt((math.e - 1) * math.e) if heavy else 1.0
    return (
        of_seeds * rng.standard_normal((seeds, 1)) + of_messages * draw((1, messages)) / scale
        + of_both * draw((seeds, messages)) / scale
    )  # fmt: skip


def test_a_difference_worked_by_hand():
    """Two seeds, two messages: d = [[1, 3], [3, 5]] has no interaction, and seeds and messages vary alike."""
    found = compare([[0.0, 0.0], [1.0, 1.0]], [[1.0, 3.0], [4.0, 6.0]])
    assert (found.mean, found.seeds, found.messages) == (3.0, 2, 2)
    # means of seeds 2 and 4: variance 2, of their mean 1; likewise of the messages
    assert (found.seed_error, found.message_error) == (1.0, 1.0)
    reach = 12.7062 * math.sqrt(2)  # Student's t for one degree of freedom
    assert found.low == pytest.approx(3 - reach, abs=1e-3) and found.high == pytest.approx(3 + reach, abs=1e-3)
    assert found.verdict == "not clear" and not found.clear


def test_without_messages_it_is_students_interval_over_seeds():
    d = np.random.default_rng(0).normal(0.3, 1, (5, 1)) + np.zeros((5, 7))
    found, expected = compare(np.zeros_like(d), d), ttest_1samp(d[:, 0], 0)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)


def test_without_shared_seeds_it_is_welchs_interval():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (4, 1)) + np.zeros((4, 9)), rng.normal(1, 3, (6, 1)) + np.zeros((6, 9))
    found = compare(a, b, seeds=(range(4), range(10, 16)))
    expected = ttest_ind(b[:, 0], a[:, 0], equal_var=False)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue) and found.seeds == 4


def test_with_equal_seeds_it_is_students_interval_over_messages():
    d = np.random.default_rng(2).normal(0.1, 1, (1, 50)) + np.zeros((3, 50))
    found, expected = compare(np.zeros_like(d), d), ttest_1samp(d[0], 0)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_only_shared_seeds_are_paired_in_any_order():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(4, 20)), rng.normal(size=(5, 20))
    found = compare(a, b, seeds=((7, 0, 2, 1), (1, 5, 0, 2, 9)))
    assert found == compare(a[[3, 1, 2]], b[[0, 2, 3]])


def test_the_other_way_round_it_is_the_negative():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(3, 40)), rng.normal(0.2, 1, size=(3, 40))
    one, other = compare(a, b), compare(b, a)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.p == pytest.approx(other.p)


def test_p_and_the_interval_say_the_same():
    rng = np.random.default_rng(5)
    verdicts = set()
    for shift in np.linspace(-1, 1, 41):
        d = rng.normal(shift, 1, (3, 60)) + rng.normal(0, 0.2, (3, 1))
        found = compare(np.zeros_like(d), d)
        assert found.clear == (found.low > 0 or found.high < 0)
        verdicts.add(found.verdict)
    assert verdicts == {"clear", "not clear"}


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize(
    ("of_seeds", "of_messages", "of_both"),
    [(0, 0, 1), (0, 1, 1), (0.1, 0.3, 1), (0.3, 0.3, 1), (0.1, 1, 0.3), (1, 0.3, 0.3)],
)
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_difference_in_95_of_100_samples(seeds, of_seeds, of_messages, of_both, heavy):
    """Whatever varies most. So where there is no difference, 5 of 100 are called clear; 1,000 samples tell 1 in 70."""
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(SAMPLES):
        d = 0.7 + runs(rng, seeds, 100, of_seeds, of_messages, of_both, heavy)
        found = compare(np.zeros_like(d), d)
        held += found.low <= 0.7 <= found.high
    assert 0.93 < held / SAMPLES < 0.985


def test_a_plain_bootstrap_of_three_seeds_is_wrong_too_often():
    """Why seeds are not simply drawn again: of three, the mean of a resample varies by two thirds of what it should."""
    rng, held = np.random.default_rng(7), 0
    for _ in range(300):
        d = runs(rng, 3, 50, 1, 0.3, 0.3, False)
        means = [d[rng.integers(0, 3, 3)][:, rng.integers(0, 50, 50)].mean() for _ in range(200)]
        low, high = np.quantile(means, (0.025, 0.975))
        held += low <= 0 <= high
    assert held / 300 < 0.85


def test_shares_of_right_answers_are_held_too():
    """Yes and no: message j is right with its own probability, the same for both settings."""
    rng, held = np.random.default_rng(8), 0
    for _ in range(600):
        share = rng.beta(0.5, 0.5, 200)
        a, b = rng.random((3, 200)) < share, rng.random((3, 200)) < share
        found = compare(a, b)
        held += found.low <= 0 <= found.high
    assert 0.93 < held / 600 < 0.985


def test_a_real_difference_is_found():
    """A tenth of the messages' deviation, three seeds that vary by a hundredth: clear nearly always."""
    rng = np.random.default_rng(9)
    shared = rng.lognormal(-3, 1, (400, 1, 200))
    clear = sum(
        compare(losses + rng.normal(0, 0.01, (3, 200)), losses + 0.01 + rng.normal(0, 0.01, (3, 200))).clear
        for losses in shared
    )
    assert clear > 390


@pytest.mark.parametrize(
    ("first", "second", "seeds", "message"),
    [
        ([[1, 2]], [[1, 2]], None, "two seeds at least"),
        ([[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6]], None, "2 messages, the other 3"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4], [5, 6]], None, "give their seeds"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], ((0, 0), (0, 1)), "each once"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], ((0, 1, 2), (0, 1)), "each once"),
        ([[1, math.nan], [3, 4]], [[1, 2], [3, 4]], None, "not finite"),
        ([[1], [3]], [[1], [3]], None, "two messages or more"),
        ([1, 2], [3, 4], None, "not runs × messages"),
        ([[1, 2]], [[1, 2], [3, 4]], ((0,), (1, 2)), "two seeds at least"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, seeds, message):
    with pytest.raises(LabError, match=message):
        compare(first, second, seeds=seeds)


def test_no_difference_at_all_is_not_clear():
    found = compare(np.ones((3, 4)), np.ones((3, 4)))
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1) and not found.clear


def made(p: float) -> Difference:
    return Difference(0.1, 0.05, 0.15, p, 3, 200, 0.01, 0.01)


def test_holms_correction_worked_by_hand():
    """0.01 × 4, 0.02 × 3, 0.022 × 2 but not below the 0.06 before it, and 0.9 × 1."""
    corrected = holm({"a": made(0.022), "b": made(0.01), "c": made(0.9), "d": made(0.02)})
    adjusted = {name: one.p for name, one in corrected.items()}
    assert adjusted == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.9, "d": 0.06})
    assert [name for name, one in corrected.items() if one.clear] == ["b"]
    assert all(one.family == 4 and one.low == 0.05 for one in corrected.values())
    assert [one.p for one in holm([made(0.04)])] == [0.04]
    assert holm([]) == []


def test_of_families_without_a_difference_few_claim_one():
    rng, alarms = np.random.default_rng(10), 0
    for _ in range(400):
        family = [compare(np.zeros((3, 50)), runs(rng, 3, 50, 0.1, 0.5, 1, False)) for _ in range(10)]
        alarms += any(one.clear for one in holm(family))
    assert alarms / 400 < 0.08


def test_it_says_what_it_rests_on():
    text = str(compare(np.zeros((3, 4)), np.ones((3, 4))))
    assert text == "+1.0000 (95 %: +1.0000 to +1.0000, 3 seeds × 4 messages): clear"
    assert "corrected for 2 comparisons): not clear" in str(holm([made(0.04), made(0.5)])[0])
    assert float(t.ppf(0.975, 2)) == pytest.approx(4.3, abs=0.01)  # the docstring's number


@pytest.mark.parametrize("spreads", [(1, 1, 1), (0.1, 1, 0.1)])
def test_the_interval_of_three_seeds_and_two_sets_of_messages_holds_the_difference(spreads):
    """What a table with one mean per set leaves: wide, with Student's 12.7, and right about as often as it says."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        d = runs(rng, 3, 2, *spreads, heavy=False)
        found = compare(np.zeros_like(d), d)
        held += found.low <= 0 <= found.high
    assert 0.91 < held / 300 < 0.99
