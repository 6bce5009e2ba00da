"""Where runs went: one number against another on the way, each run a thin line through what was measured."""

from collections.abc import Mapping

from .style import label_axes, log_ticks, new_figure
from .sweeps import LOOKS


def paths(named: Mapping[str, Mapping[str, list]], xlabel: str, ylabel: str, *, mark: tuple[str, float] | None = None):
    """Figure of the ways that runs took, with x on a logarithmic scale that falls to the right.

    Parameters
    ----------
    named : dict label -> {"measured", "each", "mean"}, each a list of (x, y), two sequences as long as each other, up
        to five labels: marks at what was measured, thin lines for each run, a thick one for their mean
    xlabel, ylabel : str
    mark : (label, x > 0) of a vertical line
    """
    figure, axes = new_figure(11, 5.4)
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
    if mark:
        label, x = mark
        axes.axvline(x, color="#111111", linewidth=2)
        axes.annotate(label, (x, 1), (6, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
                      fontsize=14, va="top")  # fmt: skip
    axes.margins(y=0.12)
    axes.invert_xaxis()
    axes.legend(fontsize=14, frameon=False, loc="upper left")
    return figure
