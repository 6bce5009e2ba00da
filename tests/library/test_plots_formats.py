"""Dots with their names beside them: every dot is drawn, every name is read, and none lies on another."""

import itertools
import random

import pytest

from lab_utils import plots

CROWD = {"bf16": (0.0, 26.6), "int8": (0.9, 26.6), "int8 by tensor": (3.6, 27.5), "nf4": (9.35, 32.9),
         "nf4 double": (9.36, 33.0), "fp4": (12.5, 38.0), "int4 block 64": (11.3, 40.4), "q4_1": (0.13, 26.6),
         "int4 by channel": (15.4, 54.0), "int3 block 64": (26.1, 172.0)}  # fmt: skip
DOT = 5 * 100 / 72  # pixels from the middle of a dot to its edge, and a little more


def boxes(figure) -> dict:
    """Where each name is drawn, in pixels."""
    figure.draw_without_rendering()
    return {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}


def touched(figure) -> list:
    """Names whose box reaches over a dot, whichever dot's it is."""
    spots = figure.axes[0].transData.transform(list(zip(*figure.axes[0].lines[0].get_data(), strict=True)))
    return [name for name, box in boxes(figure).items() for spot in spots if box.padded(DOT).contains(*spot)]


def test_each_name_is_clear_of_the_others_and_dots_on_each_other_share_one():
    figure = plots.labelled_dots(CROWD, "error", "perplexity", yticks=(25, 30, 40))
    drawn = boxes(figure)
    assert "nf4, nf4 double" in drawn and set(", ".join(drawn).split(", ")) == set(CROWD)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(drawn.values(), 2))
    assert not touched(figure)
    [line] = figure.axes[0].lines
    assert line.get_linestyle() == "None" and sorted(zip(*line.get_data(), strict=True)) == sorted(CROWD.values())
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["25", "30", "40"]
    assert figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("seed", range(3))
def test_names_lie_on_no_dot_and_on_the_sheet(seed):
    draw = random.Random(seed)
    figure = plots.labelled_dots({f"format {k}": (draw.random(), draw.random()) for k in range(6)}, "x", "y")
    [axes] = figure.axes
    drawn, sheet = boxes(figure), axes.get_window_extent()
    assert not touched(figure)
    assert all(sheet.x0 - 8 <= box.x0 and box.x1 <= sheet.x1 + 8 for box in drawn.values())


@pytest.mark.parametrize(("bits", "loss"), [(8.5, 3.36), (2.06, 18.1), (4.25, 4.06)])
def test_a_rounded_models_loss_is_on_the_axes_of_every_other_and_its_answer_is_whole(bits, loss):
    answer = "“" + "This is a rather long answer. " * 9 + "Its end.”"
    figure = plots.loss_at_bits(bits, loss, 3.35, "Why?\n" + answer)
    figure.draw_without_rendering()
    [axes] = figure.axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((2, 9.5), (3, 20))
    words = axes.get_title("left")
    assert " ".join(words.split()) == " ".join(f"Why? {answer}".split()) and words.startswith("Why?\n")
    title = axes._left_title.get_window_extent()
    assert 0 <= title.x0 and title.x1 <= figure.bbox.x1 and title.y1 <= figure.bbox.y1
    line, dot = (text.get_window_extent() for text in axes.texts)
    assert not line.overlaps(dot) and dot.y0 > axes.transData.transform((bits, loss))[1]
