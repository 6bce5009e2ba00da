"""Where runs went: one number against another on the way, each run a thin line through what was measured."""

from collections.abc import Mapping

from .style import disc, empty_figure, label_axes, log_ticks, style_axes
from .sweeps import LOOKS


def paths(
    named: Mapping[str, Mapping[str, list]], xlabel: str, ylabel: str, *, mark: tuple[str, float],
    beside: Mapping[str, tuple[float, float, float] | None],
):  # fmt: skip
    """Figure of the ways that runs took, x logarithmic and falling to the right; beside it what each has at one x.

    Parameters
    ----------
    named : dict label -> {"measured", "each", "mean"}, each a list of (x, y), two sequences as long as each other, up
        to five labels: marks at what was measured, thin lines for each run, a thick one for their mean
    xlabel, ylabel : str; the second is also what the rows are of
    mark : (label, x > 0) of a vertical line, where the rows are read
    beside : dict label -> (mean, low, high) there, or None for what never gets there; the first row on top
    """
    figure = empty_figure(13, 1.9 + 0.36 * max(len(beside), 8))
    axes, rows = figure.subplots(1, 2, width_ratios=(3, 2))
    for one in (axes, rows):
        style_axes(one)
    for (label, found), (color, marker, dashes) in zip(named.items(), LOOKS, strict=False):
        for x, y in found["each"]:
            axes.plot(x, y, color=color, linewidth=1, alpha=0.6)
        for x, y in found["measured"]:
            axes.plot(x, y, marker, color=color, markersize=6, alpha=0.7)
        for x, y in found["mean"]:
            axes.plot(x, y, dashes, color=color, linewidth=3.5)
        axes.plot([], [], dashes + marker, color=color, linewidth=3.5, markersize=8, label=label)
    axes.axhline(0, color="#111111", linestyle=":", linewidth=2)
    label_axes(axes, xlabel, ylabel, logx=10)
    log_ticks(axes.xaxis)
    axes.axvline(mark[1], color="#111111", linewidth=2)
    axes.margins(y=0.12)
    axes.invert_xaxis()
    axes.legend(fontsize=14, frameon=False, loc="upper left")
    _intervals(rows, beside)
    rows.set_title(f"where the line is: {mark[0]}", fontsize=15)
    rows.set_xlabel(ylabel, fontsize=15)
    return figure


def _intervals(axes, rows: Mapping[str, tuple[float, float, float] | None]) -> None:
    """A row per label: its mean and interval around zero, or that there is none."""
    axes.axvline(0, color="#111111", linestyle=":", linewidth=2)
    for row, found in enumerate(rows.values()):
        if found is None:
            axes.annotate("not there with all seeds", (0.03, row), xycoords=("axes fraction", "data"), fontsize=12,
                          va="center", style="italic")  # fmt: skip
            continue
        mean, low, high = found
        axes.plot([low, high], [row, row], color="#111111", linewidth=3, solid_capstyle="butt", zorder=3)
        axes.plot(mean, row, "o", color="#111111", markersize=7, markeredgewidth=2, markerfacecolor=disc(low, high),
                  zorder=2)  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows), fontsize=13)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=13)
