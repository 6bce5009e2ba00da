"""The look of every picture, and a Figure as PNG. In a notebook it follows the page's theme."""

import base64
import html
import io
from functools import cache

BLUE, ORANGE, GREEN, GREY = "#0b5fa5", "#d1540a", "#1d7a46", "#6b7280"
STACKED = (  # colour and hatching of the parts of a stacked bar
    (GREY, ""), (BLUE, "//"), (ORANGE, ".."), (GREEN, "xx"), ("#7c3aed", "\\\\"), ("#111111", "--"), ("#be185d", "++"),
)  # fmt: skip
PARTS = ("weights", "adapter", "optimizer", "gradients", "activations", "gathered", "transients")
LOOKS = dict(zip(PARTS, STACKED, strict=True))  # each part of a step's memory has one look on all pages


def stack_gib(axes, rows: dict[str, dict[str, int]], unit: str = "") -> None:
    """Draw one horizontal bar per row, the first on top, stacked from its parts; the sum in GiB is at its end.

    Parameters
    ----------
    axes : matplotlib axes, empty
    rows : dict label -> dict part -> bytes; the same parts in every row, at most seven. Those of a step's memory have
        their own look, others one after the other
    unit : str after each sum
    """
    labels = list(rows)[::-1]
    starts = [0.0] * len(labels)
    for part, look in zip(rows[labels[0]], STACKED, strict=False):
        color, hatch = LOOKS.get(part, look)
        widths = [rows[label][part] / 2**30 for label in labels]
        axes.barh(labels, widths, left=starts, color=color, hatch=hatch, edgecolor="white", linewidth=0, label=part)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for index, total in enumerate(starts):
        axes.text(total, index, f" {total:,.1f}{unit}", fontsize=13, va="center")
    axes.margins(x=0.16)


def plain(values):
    """Numbers as matplotlib takes them: a torch tensor of any device and dtype as an array, all else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


DARK = (  # on a dark page light and dark change places and every hue stays: white paper becomes the page's own dark
    "<style>[data-jp-theme-light=false] .lab-figure, [theme=dark] .lab-figure, .vscode-dark .lab-figure "
    "{filter: invert(.93) hue-rotate(180deg)}</style>"
)


NIGHT = (  # a photograph is never inverted: a dark page shows a second print of it, on clear paper with light letters
    "<style>[data-jp-theme-light=false] .lab-day, [theme=dark] .lab-day, .vscode-dark .lab-day {display: none} "
    "[data-jp-theme-light=false] .lab-night, [theme=dark] .lab-night, .vscode-dark .lab-night "
    "{display: inline !important}</style>"
)
LIGHT_LETTERS = "#f3f4f6"
GRID = "#e5e7eb"
LINES_AT_NIGHT = {BLUE: "#6bb5f0", ORANGE: "#ff9a5c", GRID: "#48505c"}  # the explorers' colours on a dark page


@cache
def _figure_class():
    """A Figure that a notebook shows by `_repr_mimebundle_`; matplotlib is imported when the first is made."""
    from matplotlib.figure import Figure

    class ThemedFigure(Figure):
        """A Figure on white paper, dark on a dark page; with `photograph` its colours stay, and only the paper goes."""

        photograph = False

        def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
            """PNG for whatever shows that alone, and the same in HTML, with words and the theme."""
            data, words = _print(self, "white"), html.escape(_words(self), quote=True)
            image = '<img class="{}" alt="{}" src="data:image/png;base64,{}"{}>'
            if self.photograph:
                text = NIGHT + image.format("lab-photograph lab-day", words, data, "")
                text += image.format("lab-photograph lab-night", words, _print_at_night(self), " hidden")
            else:
                text = DARK + image.format("lab-figure", words, data, "")
            return {"image/png": data, "text/html": text, "text/plain": repr(self)}

    return ThemedFigure


def _print(figure, paper: str) -> str:
    """A Figure as PNG in base64."""
    buffer = io.BytesIO()
    figure.canvas.print_figure(buffer, format="png", dpi=figure.dpi, facecolor=paper, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _print_at_night(figure) -> str:
    """A Figure on clear paper, with light letters and edges and lines as on a dark page; afterwards it is as it was."""
    from matplotlib.lines import Line2D
    from matplotlib.spines import Spine
    from matplotlib.text import Text

    was = [(one.set_color, one.get_color()) for one in figure.findobj(Text)]
    was += [(one.set_edgecolor, one.get_edgecolor()) for one in figure.findobj(Spine)]
    lines = [(one.set_color, one.get_color()) for one in figure.findobj(Line2D) if one.get_color() in LINES_AT_NIGHT]
    sheets = [(axes.patch.set_visible, axes.patch.get_visible()) for axes in figure.axes]
    try:
        for change, _ in was:
            change(LIGHT_LETTERS)
        for change, color in lines:
            change(LINES_AT_NIGHT[color])
        for change, _ in sheets:
            change(False)
        return _print(figure, "none")
    finally:
        for change, value in [*was, *lines, *sheets]:
            change(value)


def _words(figure) -> str:
    """What a Figure and its Axes say of themselves, on one line."""
    said = [figure.get_suptitle(), " against ".join(filter(None, (figure.get_supylabel(), figure.get_supxlabel())))]
    for axes in figure.axes:
        sides = " against ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
        said.append(": ".join(filter(None, (axes.get_title("left") or axes.get_title(), sides))))
    return " ".join("; ".join(filter(None, said)).split()) or "Figure"


def empty_figure(width: float, height: float):
    """A white Figure of `width` × `height` inches without any Axes yet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure_class()(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(width: float = 9.0, height: float = 4.2):
    """A white Figure of `width` × `height` inches, and its one Axes, in the course's style."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    style_axes(axes)
    return figure, axes


def disc(low: float, high: float) -> str:
    """What fills the disc of a mean with this interval: ink where that leaves zero out, white where it holds it."""
    return "#111111" if low > 0 or high < 0 else "white"


def style_axes(axes) -> None:
    """Large type, a light grid behind the data, no box."""
    axes.grid(True, color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=13)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


@cache
def _plain_locator():
    """A matplotlib Locator for logarithmic axes that has ticks with plain numbers whatever the axis spans."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    class PlainLocator(LogLocator):
        """Powers of ten; on less than three of them 1, 2, 5; where that gives fewer than three, evenly spaced ticks."""

        def tick_values(self, vmin, vmax):
            low, high = sorted((vmin, vmax))
            found = []
            if 0 < low < high < 1000 * low:
                found = [one for one in LogLocator(subs=(1, 2, 5)).tick_values(low, high) if low <= one <= high]
                if len(found) < 3:
                    found = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
                    found = [one for one in found if low <= one <= high]
            return found or super().tick_values(vmin, vmax)

    return PlainLocator


def log_ticks(axis) -> None:
    """Ticks with plain numbers on one logarithmic axis of an Axes, two or more at least wherever it begins and ends."""
    axis.set_major_locator(_plain_locator()())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def label_axes(axes, xlabel: str, ylabel: str, *, title: str = "", logx: int = 0, logy: bool = False) -> None:
    """Labels and title in the course's sizes; logarithmic scales, x to the base `logx`, with plain numbers as ticks."""
    if logx:
        axes.set_xscale("log", base=logx)
        if logx == 2:  # ranks: 1, 2, 4, not 2⁰, 2¹, 2²
            axes.xaxis.set_major_formatter("{x:g}")
    if logy:
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_ylabel(ylabel, fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")


def whole_ticks(axes, *series) -> None:
    """Ticks at whole numbers alone if all x of the series are whole: there is no step 1.25."""
    if all(float(one).is_integer() for x in series for one in plain(x)):
        axes.xaxis.get_major_locator().set_params(integer=True)


def png(figure) -> bytes:
    """A Figure as the bytes of a PNG file, packed quickly rather than tightly, widened for what reaches over its edge.

    It is never cut down to what is drawn: a curve that grows while it is shown would change its size with each step.
    """
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # the layout is computed: now the titles have their places
    drawn = Bbox.union([figure.bbox_inches, figure.get_tightbbox().padded(0.02)])
    buffer = io.BytesIO()
    figure.canvas.print_figure(
        buffer, format="png", dpi=figure.dpi, facecolor="white", bbox_inches=drawn, pil_kwargs={"compress_level": 1}
    )
    return buffer.getvalue()
