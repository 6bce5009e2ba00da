"""errors: the one exception, and the checks that return plain Python or name what was wrong and what is right."""

import itertools
import math
import pickle

import numpy as np
import pytest

from lab_utils.errors import (
    MOST,
    LabError,
    at_least,
    choose,
    command_line,
    flag,
    in_command_words,
    listed,
    real,
    shown,
    whole,
)


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


FLAGS = {"rank": "--rank", "max_length": "--max-length", "names": "--names", "resume=False": "--restart"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rank=0 is out of range.", "--rank 0 is out of range."),
        ("Take rank=8.", "Take --rank 8."),
        ("rank=0.5, max_length=-1: no.", "--rank 0.5, --max-length -1: no."),
        ("names=('a', 'b') is odd", "--names a,b is odd"),
        ("names='a b' is odd", "--names 'a b' is odd"),
        ("names='aaa… is odd", "--names 'aaa… is odd"),
        ("Give rank=, or names=.", "Give --rank, or --names."),
        ("Its rank is 3: raise max_length (8).", "Its rank is 3: raise --max-length (8)."),
        ("or pass resume=False to start again", "or pass --restart to start again"),
        ("runs/rank=8/max_length is in the way", "runs/rank=8/max_length is in the way"),
        ("no column 'max_length'; my_max_length, max_length_2", "no column 'max_length'; my_max_length, max_length_2"),
    ],
)
def test_a_message_is_said_in_a_commands_words(text, said):
    """An argument and its value are what was typed; paths, longer names, texts in quotes and English are as before."""
    assert in_command_words(text, FLAGS) == said
    assert in_command_words(text, {}) == text


def test_a_command_prints_its_own_words(capsys):
    @command_line(flags=FLAGS)
    def main(arguments):
        whole("rank", arguments)
        return 0

    assert main(8) == 0 and main(0) == 2
    assert capsys.readouterr().err == "--rank 0 is out of range: a whole number of 1 or more.\n"
