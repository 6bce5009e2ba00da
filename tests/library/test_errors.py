"""errors: the one exception, and the checks that return plain Python or name what was wrong and what is right."""

import itertools
import math
import pickle

import numpy as np
import pytest

from lab_utils.errors import MOST, LabError, at_least, choose, command_line, flag, listed, real, shown, whole


def test_choose_names_kind_value_and_every_alternative():
    with pytest.raises(LabError) as caught:
        choose("flavour", "mint", {"vanilla": 1, "cocoa": 2})
    assert str(caught.value) == "Unknown flavour 'mint'. Choose one of: vanilla, cocoa."


@pytest.mark.parametrize("value", [None, 3, ["vanilla"], {"vanilla": 1}])
def test_choose_refuses_any_type_even_an_unhashable_one(value):
    with pytest.raises(LabError, match="Unknown flavour"):
        choose("flavour", value, {"vanilla": 1})


@pytest.mark.parametrize(
    ("value", "allowed", "one"),
    [("cocoa", ("vanilla", "cocoa"), "cocoa"), (np.str_("cocoa"), {"cocoa": 1}, "cocoa"), (np.int64(8), (4, 8), 8),
     (None, (None, "int8"), None), (0.5, [0.5, 1.0], 0.5), (True, (True, False), True)],
)  # fmt: skip
def test_choose_gives_back_the_allowed_value_itself(value, allowed, one):
    found = choose("flavour", value, allowed)
    assert found == one and type(found) is type(one)


@pytest.mark.parametrize("value", [np.array(["a"]), np.array(["a", "b"]), np.array([4]), True, "8", 8.5, b"a"])
def test_choose_refuses_what_only_looks_equal(value):
    with pytest.raises(LabError, match="Unknown flavour"):
        choose("flavour", value, ["a", 1, 4, 8, None])


def test_a_text_can_always_be_printed():
    error = LabError("There is no file caf\udce9.json, nor \ud83d: ä 🙂")
    assert str(error) == "There is no file caf\\udce9.json, nor \\ud83d: ä 🙂"
    str(pickle.loads(pickle.dumps(error))).encode()
    error._render_traceback_()[0].encode()


def test_the_first_number_too_small_is_named():
    at_least(2, a=2, b=np.int64(3))
    for wrong in (1, True, 2.0, "2", None):
        with pytest.raises(LabError, match=r"^b=.* is out of range: a whole number of 2 or more\.$"):
            at_least(2, a=2, b=wrong, c=0)


def test_a_notebook_shows_the_message_and_no_frames():
    assert LabError("Do this.")._render_traceback_() == ["LabError: Do this."]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [(None, 7, ""), (LabError("Free some."), 2, "Free some.\n"), (KeyboardInterrupt(), 130, "\nStopped.\n")],
)
def test_a_command_ends_with_a_code_and_no_traceback(raised, code, said, capsys):
    @command_line
    def main(arguments):
        assert arguments == ["--fast"]
        if raised:
            raise raised
        return 7

    assert main(["--fast"]) == code and capsys.readouterr().err == said


def test_a_fault_of_the_program_itself_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        command_line(lambda: 1 / 0)()


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
    assert real("gpu", value) == value and type(real("gpu", value)) in (int, float)


@pytest.mark.parametrize("value", [0, -1, True, "1", None, math.nan, math.inf, -math.inf, [1], 1j, 10**400])
def test_no_finite_number_is_refused_by_name(value):
    with pytest.raises(LabError, match=r"gpu=.* is out of range"):
        real("gpu", value)
    assert real("gpu", 0, zero=True) == 0


def test_flags_are_true_or_false():
    assert flag("x", True) is True and flag("x", np.False_) is False
    for value in (1, 0, "False", None, [], np.ones(1, dtype=bool)):
        with pytest.raises(LabError, match=r"x=.* is out of range: True or False"):
            flag("x", value)


@pytest.mark.parametrize("value", ["c", "", None, 5, ["a"], {"a": 1}, np.array(["a", "b"]), len, 10**5000], ids=shown)
def test_a_word_is_one_of_those_allowed(value):
    assert choose("kind", np.str_("a"), ("a", "b")) == "a"
    with pytest.raises(LabError, match=r"Unknown kind .*a, b"):
        choose("kind", value, ("a", "b"))


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
