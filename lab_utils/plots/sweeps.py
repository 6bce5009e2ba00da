"""Results of many runs: means with error bars, and single runs as dots."""

import numpy as np

from .style import BLUE, GREEN, GREY, ORANGE, label_axes, new_figure, whole_ticks

LOOKS = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), ("#7c3aed", "D", ":"), (GREY, "v", "-"))


def with_errors(
    named: dict, xlabel: str, ylabel: str, *,
    marks: dict | None = None, title: str = "", logx: int = 0, logy: bool = False, skip: int = 0, apart: bool = False,
):  # fmt: skip
    """Figure of means with their errors as bars, one line per series, and single marks.

    Parameters
    ----------
    named : dict label -> (x, mean, error), three sequences as long as each other, up to five series; a bar reaches
        so far to each side, or by a pair (down, up), so say beside the figure what the error is
    xlabel, ylabel, title : str
    marks : dict label -> (x, mean, error) of one number each, drawn as stars with the label beside them
    logx : int, base of a logarithmic x axis; 0 is a linear one
    logy : bool
    skip : int, colours to pass over, since they have another meaning on the page
    apart : bool, draw the series a little beside each other, so that no bar hides another at the same x; on a
        logarithmic x axis only
    """
    figure, axes = new_figure(9, 4.8)
    looks = zip(named.items(), LOOKS[skip:], strict=False)
    for place, ((label, (x, mean, error)), (color, marker, dashes)) in enumerate(looks):
        beside = logx ** (0.06 * (place - (len(named) - 1) / 2)) if apart and logx else 1.0
        axes.errorbar(
            [one * beside for one in x], list(mean), reaches(error), color=color, marker=marker, linestyle=dashes,
            linewidth=2.5, markersize=9, capsize=5, label=label,
        )  # fmt: skip
    for label, (x, mean, error) in (marks or {}).items():
        axes.errorbar(x, mean, error, color="#111111", marker="*", markersize=17, capsize=5, linestyle="none")
        axes.annotate(label, (x, mean), xytext=(-12, -5), textcoords="offset points", fontsize=13, ha="right")
    label_axes(axes, xlabel, ylabel, title=title, logx=logx, logy=logy)
    if not logx:
        whole_ticks(axes, *(x for x, *_ in named.values()))
    axes.margins(x=0.08, y=0.15)
    if len(named) > 1:
        axes.legend(fontsize=13, frameon=False)
    return figure


def reaches(errors) -> np.ndarray:
    """(2, n), how far each bar reaches down and up: of n numbers, which count for both sides, or pairs (down, up)."""
    return np.array([np.broadcast_to(np.asarray(one, dtype=float), 2) for one in errors]).reshape(-1, 2).T


def strips(named: dict, xlabel: str, title: str = ""):
    """Figure of one row per setting: each run a dot, the mean a thick tick with its 95 % interval over runs as a bar.

    The first row, which the others are compared with, is blue, and they are orange.

    Parameters
    ----------
    named : dict label -> sequence of numbers, one per run, from the top down
    xlabel, title : str
    """
    from statistics import mean, stdev

    from scipy.special import stdtrit

    figure, axes = new_figure(9, 1.4 + 0.55 * len(named))
    for row, values in enumerate(map(list, named.values())):
        color, n = ORANGE if row else BLUE, len(values)
        axes.plot(values, [row + 0.22] * n, "o", color=color, markersize=9, alpha=0.6)
        reach = stdtrit(n - 1, 0.975) * stdev(values) / n**0.5 if n > 1 else 0  # Student's t
        axes.errorbar(mean(values), row, xerr=reach, color=color, marker="|", markersize=20, markeredgewidth=4,
                      elinewidth=3, capsize=6)  # fmt: skip
    axes.set_yticks(range(len(named)), list(named), fontsize=14)
    axes.set_ylim(len(named) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")
    return figure


def timeline(dated: dict[str, str], title: str = ""):
    """Figure of one row a name, with a dot in the month in which it appeared.

    Parameters
    ----------
    dated : dict name -> "2024-02", year and month, from the top down
    title : str
    """
    figure, axes = new_figure(9, 1.2 + 0.42 * len(dated))
    months = [int(date[:4]) + (int(date[5:7]) - 0.5) / 12 for date in dated.values()]
    first, last = int(min(months)), int(max(months)) + 1
    axes.hlines(range(len(months)), first, months, color=GREY, linewidth=1.5, linestyle=":")
    axes.plot(months, range(len(months)), "o", color=BLUE, markersize=12)
    axes.set_yticks(range(len(dated)), list(dated), fontsize=15)
    axes.set_xticks(range(first, last + 1), [str(year) for year in range(first, last + 1)], fontsize=14)
    axes.set_xlim(first, last)
    axes.set_ylim(len(dated) - 0.5, -0.5)
    axes.set_title(title, fontsize=16, loc="left")
    return figure
