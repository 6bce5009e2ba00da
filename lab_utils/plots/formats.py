"""Pictures of number formats: one dot each, with its name beside it."""

import math

from .style import BLUE, label_axes, new_figure

SIDES = ((9, -4, "left"), (9, 9, "left"), (9, -17, "left"), (-9, 9, "right"), (-9, -17, "right"), (-9, -4, "right"))
LETTER, LINE = 7.2, 15  # points that a letter and a line of a name take, about
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
    taken = [_box(*axes.transData.transform(spot), -6, -6, 12, 12, figure.dpi) for spot in named.values()]
    for names, spot in _together(named, axes):
        text = ", ".join(names)
        x, y = axes.transData.transform(spot)
        places = [(one, _box_of(text, x, y, one, figure.dpi)) for one in SIDES]
        (dx, dy, side), box = min(places, key=lambda place: _cost(place[1], taken, sheet.extents))
        taken.append(box)
        note = axes.annotate(text, spot, (dx, dy), textcoords="offset points", ha=side, fontsize=13)
        note.set_in_layout(False)  # the dots keep their places
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


def _box_of(text: str, x: float, y: float, side: tuple, dpi: float) -> tuple:
    """The box of a name at one of `SIDES` of its dot."""
    dx, dy, anchor = side
    width = LETTER * len(text)
    return _box(x, y, dx - (width if anchor == "right" else 0), dy, width, LINE, dpi)


def _cost(box: tuple, taken: list[tuple], sheet: tuple) -> float:
    """The area of a box that is over others, or over the edge of the sheet."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_overlap(box, other) for other in taken) + area - _overlap(box, tuple(sheet))


def _overlap(one: tuple, other: tuple) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return math.prod((max(width, 0), max(height, 0)))
