"""How well a painter guesses: the error of a guess that is known, and noise that is the same in every call."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lab_utils.beyond_text.painter import load_painter
from lab_utils.beyond_text.painter_scores import guess_errors
from lab_utils.beyond_text.painter_training import style_pictures
from lab_utils.errors import LabError


@pytest.fixture(scope="module")
def painter():
    pytest.importorskip("diffusers")
    return load_painter("tiny")


class Guess:
    """In place of a U-Net: it guesses grey, or hands back what it was given."""

    def __init__(self, noisy: bool):
        self.noisy, self.seen = noisy, []

    def eval(self):
        return self

    def __call__(self, pictures, times, words):
        self.seen.append(pictures.clone())
        return SimpleNamespace(sample=pictures if self.noisy else 0 * pictures)


def test_a_grey_guess_is_wrong_by_the_pictures_own_squares(painter):
    """In [-1, 1] grey is 0, so each drawing's error is the mean of its squared pixels, at every moment."""
    found = guess_errors(replace(painter, unet=Guess(noisy=False)), ["tree"], "ink", copies=1, moments=(50, 950))
    pictures, _ = style_pictures(["tree"], "ink", copies=1)
    wanted = [float(((np.asarray(picture) / 127.5 - 1) ** 2).mean()) for picture in pictures]
    assert list(found) == ["tree"] and found["tree"] == pytest.approx(wanted, rel=1e-5) and len(wanted) == 6


def test_noise_is_the_same_in_every_call_and_more_of_it_is_a_larger_error(painter):
    first, second = Guess(noisy=True), Guess(noisy=True)
    errors = [guess_errors(replace(painter, unet=one), ["car"], copies=1, moments=(50, 500)) for one in (first, second)]
    assert errors[0] == errors[1]
    assert all((a == b).all() for a, b in zip(first.seen, second.seen, strict=True))
    little, much = (guess_errors(replace(painter, unet=Guess(True)), ["car"], copies=1, moments=[m]) for m in (50, 900))
    assert max(little["car"]) < min(much["car"])


def test_a_painter_that_guesses_the_noise_is_refused(painter):
    other = replace(painter, name="other", scheduler=SimpleNamespace(config=SimpleNamespace(prediction_type="epsilon")))
    with pytest.raises(LabError, match=r"other.*epsilon"):
        guess_errors(other, ["car"])
