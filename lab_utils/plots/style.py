"""The look of every picture, and a Figure as PNG."""

import io

BLUE, ORANGE, GREEN, GREY = "#0b5fa5", "#d1540a", "#1d7a46", "#6b7280"


def new_figure(width: float = 9.0, height: float = 4.2):
    """An empty white Figure of `width` × `height` inches, and its one Axes, in the course's style."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style_axes(axes)
    return figure, axes


def style_axes(axes) -> None:
    """Large type, a light grid behind the data, no box."""
    axes.grid(True, color="#e5e7eb", linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=13)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def png(figure) -> bytes:
    """A Figure as the bytes of a PNG file, packed quickly rather than tightly."""
    buffer = io.BytesIO()
    figure.canvas.print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def lines(
    named: dict, xlabel: str, ylabel: str, *,
    title: str = "", logx: bool = False, logy: bool = False, marks: bool = False,
):  # fmt: skip
    """Figure of up to six lines, told apart by colour, dashes and a legend.

    Parameters
    ----------
    named : dict label -> (x, y), two sequences of numbers as long as each other
    xlabel, ylabel, title : str
    logx, logy : bool, logarithmic scales; x to base 2, as ranks are chosen
    marks : bool, a dot at every point
    """
    figure, axes = new_figure()
    looks = zip((BLUE, ORANGE, GREEN, GREY, "#7c3aed", "#111111"), ("-", "--", "-.", ":", "-", "--"), strict=True)
    for (label, (x, y)), (color, dashes) in zip(named.items(), looks, strict=False):
        axes.plot(x, y, dashes, color=color, linewidth=3, marker="o" if marks else None, markersize=8, label=label)
    if logx:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    if logy:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_ylabel(ylabel, fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")
    if len(named) > 1:
        axes.legend(fontsize=14, frameon=False)
    return figure
