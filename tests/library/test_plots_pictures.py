"""Rows of pictures: captions of neighbouring columns do not run into each other."""

from itertools import pairwise

import numpy as np

from lab_utils import plots
from lab_utils.beyond_text.drawings import COLOURS, THINGS, caption


def test_captions_keep_their_distance():
    captions = sorted((caption(thing, colour, "neon") for thing in THINGS for colour in COLOURS), key=len)[-7:]
    figure = plots.picture_rows({"before": np.zeros((7, 4, 4, 3))}, captions)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
