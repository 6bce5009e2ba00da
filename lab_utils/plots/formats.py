"""Pictures of number formats: one dot each, with its name beside it."""

import math
import textwrap

from .style import BLUE, GREY, label_axes, new_figure

SIDES = ((9, -4, "left"), (9, 9, "left"), (9, -17, "left"), (-9, 9, "right"), (-9, -17, "right"), (-9, -4, "right"),
         (0, 11, "center"), (0, -22, "center"))  # fmt: skip
LINE = 15  # points that a line of a name takes
DOT = 6  # points from a dot's middle to where a name may begin
NEAR = 0.012  # share of the picture's width and height within which dots share one name


def labelled_dots(
    named: dict[str, tuple[float, float]], xlabel: str, ylabel: str, *, title: str = "", yticks: tuple = ()
):
    """Figure of one dot per name, each with its name beside it; no line joins them, for none lies between two of them.

    Parameters
    ----------
    named : dict name -> (x, y), finite; dots that lie on each other share one text with both names
    xlabel, ylabel, title : str
    yticks : numbers > 0 to write on the vertical axis, which is then logarithmic
    """
    figure, axes = new_figure(9.4, 5.0)
    label_axes(axes, xlabel, ylabel, title=title, logy=bool(yticks))
    axes.plot(*zip(*named.values(), strict=True), "o", color=BLUE, markersize=9)
    if yticks:
        axes.set_yticks(yticks, [f"{one:,g}" for one in yticks])
        axes.set_yticks([], minor=True)
    axes.margins(x=0.12, y=0.12)
    figure.draw_without_rendering()  # now the dots have their places in the picture
    sheet = axes.get_window_extent()
    dots = [axes.transData.transform(spot) for spot in named.values()]
    taken = [_box(*dot, -DOT, -DOT, 2 * DOT, 2 * DOT, figure.dpi) for dot in dots]
    for names, spot in _together(named, axes):
        text = ", ".join(names)
        x, y = axes.transData.transform(spot)
        note = axes.annotate(text, spot, (0, 0), textcoords="offset points", fontsize=13)
        note.set_in_layout(False)  # the dots keep their places
        width = note.get_window_extent(figure.canvas.get_renderer()).width * 72 / figure.dpi
        places = [(one, _box_of(width, x, y, one, figure.dpi)) for one in SIDES]
        (dx, dy, side), box = min(places, key=lambda place: _cost(place[1], taken, sheet.extents))
        taken.append(box)
        note.set(position=(dx, dy), horizontalalignment=side)
    return figure


def loss_at_bits(bits: float, loss: float, unrounded: float, title: str):
    """Figure of a rounded model's loss as one dot, with a line for the loss of the same model in 16 bits.

    Parameters
    ----------
    bits : float from 2 to 9.5, per weight
    loss, unrounded : float from 3 to 20, nats per token; the axes are the same at every setting
    title : str, of any length: it is broken into lines
    """
    figure, axes = new_figure(9.4, 5.4)
    label_axes(axes, "bits per weight, constants included", "loss, nats per token", logy=True)
    axes.set(xlim=(2, 9.5), ylim=(3, 20))
    ticks = (3, 4, 5, 7, 10, 15, 20)
    axes.set_yticks(ticks, [str(one) for one in ticks])
    axes.set_yticks([], minor=True)
    axes.axhline(unrounded, color=GREY, linewidth=2)
    axes.text(2.06, unrounded * 1.02, f"16 bits: {unrounded:.2f}", fontsize=13, va="bottom")
    axes.plot(bits, loss, "o", color=BLUE, markersize=11)
    words = f"{bits:.2f} bits: {loss:.2f}"
    axes.annotate(words, (bits, loss), (0, 13), textcoords="offset points", ha="center", fontsize=14)
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, 92)]
    axes.set_title("\n".join(lines), fontsize=13, loc="left")
    return figure


def _together(named: dict, axes) -> list[tuple[list[str], tuple[float, float]]]:
    """(names, place) of the dots, those that lie on each other in one."""
    found = []
    for name, spot in named.items():
        here = axes.transAxes.inverted().transform(axes.transData.transform(spot))
        for names, _, there in found:
            if max(abs(here - there)) < NEAR:
                names.append(name)
                break
        else:
            found.append(([name], spot, here))
    return [(names, spot) for names, spot, _ in found]


def _box(x: float, y: float, dx: float, dy: float, width: float, height: float, dpi: float) -> tuple:
    """(left, bottom, right, top) in pixels of a box at an offset in points."""
    scale = dpi / 72
    return x + dx * scale, y + dy * scale, x + (dx + width) * scale, y + (dy + height) * scale


def _box_of(width: float, x: float, y: float, side: tuple, dpi: float) -> tuple:
    """The box of a name, `width` points wide, at one of `SIDES` of its dot."""
    dx, dy, anchor = side
    return _box(x, y, dx - width * {"left": 0, "center": 0.5, "right": 1}[anchor], dy, width, LINE, dpi)


def _cost(box: tuple, taken: list[tuple], sheet: tuple) -> float:
    """The area of a box that is over others, or over the edge of the sheet."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_overlap(box, other) for other in taken) + area - _overlap(box, tuple(sheet))


def _overlap(one: tuple, other: tuple) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return math.prod((max(width, 0), max(height, 0)))
