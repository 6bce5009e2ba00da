"""errors: the one exception, and the check that names what was wrong and what is right."""

import pytest

from lab_utils.errors import LabError, choose, command_line


def test_choose_names_kind_value_and_every_alternative():
    with pytest.raises(LabError) as caught:
        choose("flavour", "mint", {"vanilla": 1, "cocoa": 2})
    assert str(caught.value) == "Unknown flavour 'mint'. Choose one of: vanilla, cocoa."


@pytest.mark.parametrize("value", [None, 3, ["vanilla"], {"vanilla": 1}])
def test_choose_refuses_any_type_even_an_unhashable_one(value):
    with pytest.raises(LabError, match="Unknown flavour"):
        choose("flavour", value, {"vanilla": 1})


def test_choose_is_silent_on_an_allowed_value():
    assert choose("flavour", "cocoa", ("vanilla", "cocoa")) is None


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
