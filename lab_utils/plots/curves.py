"""Lines and histograms."""

import textwrap

from .style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    empty_figure,
    label_axes,
    log_ticks,
    new_figure,
    plain,
    style_axes,
    whole_ticks,
)


def lines(
    named: dict, xlabel: str, ylabel: str, *,
    title: str = "", logx: bool | int = False, logy: bool = False, marks: bool = False,
):  # fmt: skip
    """Figure of up to six lines, told apart by colour, dashes and a legend.

    Parameters
    ----------
    named : dict label -> (x, y), two sequences of numbers as long as each other
    xlabel, ylabel, title : str
    logx, logy : bool, logarithmic scales; x to base 2, as ranks are chosen, or with logx=10 as learning rates are
    marks : bool, a dot at every point; the only point of a line always has one
    """
    figure, axes = new_figure()
    looks = zip((BLUE, ORANGE, GREEN, GREY, "#7c3aed", "#111111"), ("-", "--", "-.", ":", "-", "--"), strict=True)
    for (label, (x, y)), (color, dashes) in zip(named.items(), looks, strict=False):
        marker = "o" if marks or len(x) == 1 else None
        axes.plot(plain(x), plain(y), dashes, label=label, color=color, linewidth=3, marker=marker, markersize=8)
    label_axes(axes, xlabel, ylabel, title=title, logx=2 if logx is True else int(logx), logy=logy)
    if logx == 10:
        log_ticks(axes.xaxis)
    elif not logx:
        whole_ticks(axes, *(x for x, _ in named.values()))
    if len(named) > 1:
        axes.legend(fontsize=14, frameon=False)
    return figure


def panels(named: dict, xlabel: str):
    """Figure of a panel per line, up to three side by side, where their units differ: each has its own axis.

    Parameters
    ----------
    named : dict title -> (x, y), two sequences of numbers as long as each other
    xlabel : str, of all
    """
    figure = empty_figure(5.5 * len(named), 3.6)
    rows = figure.subplots(1, len(named), squeeze=False)
    for axes, color, (title, (x, y)) in zip(rows[0], (BLUE, ORANGE, GREEN), named.items(), strict=False):
        style_axes(axes)
        axes.plot(plain(x), plain(y), color=color, linewidth=3, marker="o" if len(x) == 1 else None, markersize=8)
        label_axes(axes, xlabel, "", title=title)
        whole_ticks(axes, x)
    return figure


def histograms(named: dict, xlabel: str, limit: float, marked: dict[str, float] | None = None):
    """Figure of outlined histograms with the same 80 bins from -limit to limit, one a set of values.

    Parameters
    ----------
    named : dict label -> Tensor of any shape, up to four
    xlabel : str
    limit : float > 0; values beyond it are not drawn
    marked : dict word -> value up to limit, each with an arrow to its place on the axis
    """
    figure, axes = new_figure()
    edges = [limit * (i / 40 - 1) for i in range(81)]
    looks = zip((BLUE, ORANGE, GREEN, GREY), ("-", "--", "-.", ":"), strict=True)
    for (label, values), (color, dashes) in zip(named.items(), looks, strict=False):
        axes.hist(
            values.flatten().tolist(), bins=edges, density=True, histtype="step", color=color, linestyle=dashes,
            linewidth=3, label=label,
        )
    axes.axvline(0, color=GREY, linewidth=1)
    for word, value in (marked or {}).items():
        axes.annotate(
            word, (value, 0), (0, 46), textcoords="offset points", ha="center", fontsize=14,
            arrowprops={"arrowstyle": "->", "linewidth": 2},
        )  # fmt: skip
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_ylabel("density", fontsize=15)
    axes.legend(fontsize=14, frameon=False)
    return figure


def rounding(values, rounded, title: str, first: int, group: int = 64, *, counted=None):
    """Figure of weights with the levels that the first block uses, and the error of each group of weights below.

    Parameters
    ----------
    values, rounded : Tensor (n,), in units of σ; what `values` became
    title : str
    first : int, weights in the first block
    group : int, weights in a group
    counted : bool Tensor (n,), which weights the errors are of; default all
    """
    figure = empty_figure(11, 6)
    upper, lower = figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    for axes in (upper, lower):
        style_axes(axes)
    upper.hist(values.tolist(), bins=[i / 10 for i in range(-42, 43)], color=GREY, alpha=0.7)
    levels = rounded[:first].unique()
    for level in levels[levels.abs() <= 4.2].tolist():
        upper.axvline(level, color=ORANGE, linewidth=2)
    upper.set_xlim(-4.2, 4.2)
    upper.set_xlabel("weight, in σ; orange: the levels that the first block uses", fontsize=14)
    upper.set_ylabel("weights", fontsize=14)
    upper.set_title(textwrap.fill(title, 95), fontsize=14, loc="left")
    weights = (values == values if counted is None else counted).reshape(-1, group)
    squares = (values - rounded).reshape(-1, group).square() * weights
    errors = (squares.sum(1) / weights.sum(1)).sqrt()
    lower.bar(range(len(errors)), errors.tolist(), color=BLUE)
    lower.set_xlabel(f"group of {group} weights", fontsize=14)
    lower.set_ylabel("error, in σ", fontsize=14)
    return figure


def code_use(shares, code, used, title: str):
    """Figure of weights in [-1, 1] with a code's values, and how often each value is used.

    Parameters
    ----------
    shares : Tensor (n,), weights divided by the largest of their block
    code : floats, ascending, in [-1, 1]
    used : floats, share of the weights at each value of the code, in [0, 1]
    title : str
    """
    figure = empty_figure(11, 6)
    upper, lower = figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    for axes in (upper, lower):
        style_axes(axes)
    upper.hist(shares.tolist(), bins=80, range=(-1, 1), color=GREY, alpha=0.7)
    for value in code:
        upper.axvline(value, color=ORANGE, linewidth=2)
    upper.set_xlabel("weight / largest of its block; orange: the code", fontsize=14)
    upper.set_ylabel("weights", fontsize=14)
    upper.set_title(title, fontsize=14, loc="left")
    lower.bar(range(len(used)), [100 * share for share in used], color=BLUE)
    lower.axhline(100 / len(used), color=GREY, linestyle=":", linewidth=2)
    lower.set_ylim(0, max(20, 105 * max(used)))  # figures of a page can be compared
    lower.set_xticks(range(len(used)))
    lower.set_xlabel("index of the value; dotted: an equal share", fontsize=14)
    lower.set_ylabel("used, %", fontsize=14)
    return figure
