"""errors: the one exception, and the check that names what was wrong and what is right."""

import pytest

from lab_utils.errors import LabError, choose


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
