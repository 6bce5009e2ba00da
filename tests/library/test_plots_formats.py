"""Dots with their names beside them: every dot is drawn, every name is read, and none lies on another."""

import itertools
import random

import pytest

from lab_utils import plots

CROWD = {"bf16": (0.0, 26.6), "int8": (0.9, 26.6), "int8 by tensor": (3.6, 27.5), "nf4": (9.35, 32.9),
         "nf4 double": (9.36, 33.0), "fp4": (12.5, 38.0), "int4 block 64": (11.3, 40.4)}  # fmt: skip


def boxes(figure) -> dict:
    """Where each name is drawn, in pixels."""
    figure.draw_without_rendering()
    return {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}


def test_each_name_stands_alone_and_dots_on_each_other_share_one():
    figure = plots.labelled_dots(CROWD, "error", "perplexity", yticks=(25, 30, 40))
    drawn = boxes(figure)
    assert "nf4, nf4 double" in drawn and set(", ".join(drawn).split(", ")) == set(CROWD)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(drawn.values(), 2))
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
    spots = axes.transData.transform(list(zip(*axes.lines[0].get_data(), strict=True)))
    assert not any(box.contains(*spot) for box in drawn.values() for spot in spots)
    assert all(sheet.x0 - 8 <= box.x0 and box.x1 <= sheet.x1 + 8 for box in drawn.values())
