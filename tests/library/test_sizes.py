"""sizes: what is taken, as plain Python, and what is refused by name."""

import itertools
import math

import numpy as np
import pytest

from lab_utils.errors import LabError
from lab_utils.sizes import MOST, listed, positive, shown, switch, whole, word


@pytest.mark.parametrize("value", [1, 8, np.int64(8), np.int8(8), np.uint64(8), MOST])
def test_whole_numbers_come_back_as_python_writes_them(value):
    found = whole("rank", value)
    assert found == int(value) and type(found) is int


@pytest.mark.parametrize(
    "value", [0, -1, True, np.True_, 8.0, np.float64(8), "8", None, math.nan, math.inf, [8], np.ones(2), 10**5000],
    ids=shown,
)
def test_no_whole_number_is_refused_by_name(value):
    with pytest.raises(LabError, match=r"rank=.* is out of range: a whole number"):
        whole("rank", value)


def test_a_range_is_named():
    with pytest.raises(LabError, match=r"n=513 is out of range: a whole number from 1 to 512, the tokens"):
        whole("n", 513, 1, 512, "the tokens")
    assert whole("n", 0, 0) == 0


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(3), 1e300])
def test_finite_numbers_above_0_are_taken(value):
    assert positive("gpu", value) == value and type(positive("gpu", value)) in (int, float)


@pytest.mark.parametrize("value", [0, -1, True, "1", None, math.nan, math.inf, -math.inf, [1], 1j, 10**400])
def test_no_finite_number_is_refused_by_name(value):
    with pytest.raises(LabError, match=r"gpu=.* is out of range"):
        positive("gpu", value)
    assert positive("gpu", 0, zero=True) == 0


def test_switches_are_true_or_false():
    assert switch("x", True) is True and switch("x", np.False_) is False
    for value in (1, 0, "False", None, [], np.ones(1, dtype=bool)):
        with pytest.raises(LabError, match=r"x=.* is out of range: True or False"):
            switch("x", value)


@pytest.mark.parametrize("value", ["c", "", None, 5, ["a"], {"a": 1}, np.array(["a", "b"]), len, 10**5000], ids=shown)
def test_a_word_is_one_of_those_allowed(value):
    assert word("kind", np.str_("a"), ("a", "b")) == "a"
    with pytest.raises(LabError, match=r"Unknown kind .*a, b"):
        word("kind", value, ("a", "b"))


def test_a_list_can_be_read_twice():
    assert listed("q") == ("q",) and listed(["q", "v"]) == ("q", "v")
    assert listed(name for name in "qv") == ("q", "v")
    assert listed({"q": 1}) == ("q",) and set(listed({"q", "v"})) == {"q", "v"}
    for nothing in ([], (), None, 5, b"q", itertools.repeat("q")):
        assert listed(nothing) is None


def test_a_value_is_shown_briefly_whatever_it_is():
    class Rude:
        def __repr__(self):
            raise ValueError

    assert shown(10**5000) == "(a number of 16,610 bits)" and shown(Rude()) == "(a Rude)"
    assert len(shown("x" * 1000)) <= 80 and shown(5) == "5" and shown("a") == "'a'"
