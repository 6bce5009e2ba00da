"""The drawings: the same every time, what their words say, and the same at every size."""

import numpy as np
import pytest

from lab_utils.beyond_text.drawings import COLOURS, STYLES, THINGS, caption, draw
from lab_utils.errors import LabError


def pixels(*words, **settings) -> np.ndarray:
    return np.asarray(draw(*words, **settings)).astype(int)


def test_captions_are_english():
    assert caption("house", "red") == "a red house"
    assert caption("boat", "orange", "neon") == "an orange boat, neon"


def test_a_seed_decides_the_place_and_nothing_else():
    assert (pixels("fish", "blue", seed=5) == pixels("fish", "blue", seed=5)).all()
    assert (pixels("fish", "blue", seed=5) != pixels("fish", "blue", seed=6)).any()
    red, blue = (pixels("fish", colour, seed=5) for colour in ("red", "blue"))
    ground = np.array(STYLES["ink"])
    assert ((red == ground).all(-1) == (blue == ground).all(-1)).all()  # the same silhouette


@pytest.mark.parametrize("thing", THINGS)
def test_every_drawing_keeps_within_its_frame_and_shows_its_colour(thing):
    for seed, (colour, rgb) in enumerate(COLOURS.items()):
        picture = pixels(thing, colour, seed=seed)
        frame = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (frame == STYLES["ink"]).all(), f"{colour} {thing} with seed {seed} touches the edge"
        assert (np.abs(picture - rgb).max(-1) <= 2).sum() >= 20  # pixels in the very colour


@pytest.mark.parametrize("style", STYLES)
def test_a_style_decides_the_ground(style):
    corner = pixels("house", "green", style=style)[0, 0]
    factor = 2 if style == "neon" else 1  # the glow is added to the picture, the ground to itself
    assert (corner == factor * np.array(STYLES[style])).all()


def test_every_size_is_the_same_drawing():
    """Averaged down, the large drawing is the small one but for the width of a line in whole pixels."""
    large, small = draw("car", "purple", size=128, seed=1), pixels("car", "purple", size=32, seed=1)
    shrunk = np.asarray(large.resize((32, 32), 4)).astype(int)  # 4: PIL's box filter
    assert np.abs(shrunk - small).mean() < 6


def test_unknown_words_name_the_known_ones():
    with pytest.raises(LabError, match=r"Unknown thing 'dragon'\. Choose one of: house, tree"):
        draw("dragon", "red")
    with pytest.raises(LabError, match="Unknown colour 'pink'"):
        draw("house", "pink")
    with pytest.raises(LabError, match=r"Unknown style 'oil'\. Choose one of: ink, chalk, neon"):
        draw("house", "red", style="oil")
    with pytest.raises(LabError, match="size=4 is too small"):
        draw("house", "red", size=4)
