"""Pictures of exercises: what is asked beside what was made."""

import numpy as np

from .matrices import frame, paint
from .style import BLUE, GREY, ORANGE, empty_figure, plain, style_axes

MOST_WITH_NUMBERS = 8  # rows and columns of a matrix whose entries are written out
MOST_WITH_LARGE = 6  # as above, in large type and with three digits


def target_and_yours(target, yours=None, title: str = ""):
    """Figure of two vectors or matrices side by side, in one scale: what is asked, and what was made so far.

    Parameters
    ----------
    target : 1-D (bars) or 2-D (coloured fields) array-like; nan stays blank
    yours : the same, or None where there is nothing to show yet
    title : str
    """
    target, yours = plain(target), plain(yours)
    crowded = any(np.ndim(one) == 2 and len(one) > MOST_WITH_LARGE for one in (target, yours))
    figure = empty_figure(9.0, 4.6 if crowded else 3.8)
    limit = float(np.nanmax(np.abs(np.asarray(target, dtype=float)), initial=0)) or 1.0
    for place, name, values in zip(figure.subplots(1, 2), ("target", "yours"), (target, yours), strict=True):
        style_axes(place)
        if values is None:
            _empty(place, np.shape(target))
        elif np.ndim(values) == 1:
            _bars(place, values, BLUE if name == "target" else ORANGE)
        else:
            _fields(place, np.asarray(values, dtype=float), limit)
        place.set_title(name, fontsize=16, loc="left")
    figure.suptitle(title, fontsize=16, x=0.01, ha="left")
    return figure


def _empty(axes, shape: tuple[int, ...]) -> None:
    """A frame as large as the target beside it, and in it the words that nothing has been made yet."""
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axes.text(0.5, 0.5, "nothing yet", fontsize=16, ha="center", va="center", color=GREY)
    frame(axes)
    if len(shape) == 2:
        axes.set_box_aspect(shape[0] / shape[1])
        axes.set_anchor("N")


def _bars(axes, values, color: str) -> None:
    """A vector as bars, with the numbers above them where there are few."""
    bars = axes.bar(range(1, len(values) + 1), values, color=color)
    if len(values) <= MOST_WITH_NUMBERS:
        axes.bar_label(bars, fmt="%.3g", fontsize=13 if len(values) <= MOST_WITH_LARGE else 11)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(False, axis="x")
    axes.margins(y=0.15)


def _decimals(value: float, limit: float) -> str:
    """A number in at most five characters beside others of at most `limit`, where these are 0.1 or more."""
    return f"{value:.3g}" if limit < 0.1 else f"{value:.{2 if limit < 10 else 1 if limit < 100 else 0}f}"


def _fields(axes, values: np.ndarray, limit: float) -> None:
    """A matrix as coloured fields from -`limit` to `limit`, with its numbers where there are few."""
    paint(axes, values, limit, "")
    axes.set_anchor("N")  # a low matrix is at the top, so that its title is level with the other's
    if max(values.shape) > MOST_WITH_NUMBERS:
        return
    large = max(values.shape) <= MOST_WITH_LARGE
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.7 * limit else "#111111"
            text = f"{value + 0.0:.3g}" if large or value == round(value) else _decimals(value, limit)  # + 0.0: no -0
            axes.text(column, row, text, ha="center", va="center", fontsize=13 if large else 11, color=color)
