"""Several ways measured on several sets: one dot for each, with its interval; shares together, changes side by side."""

from collections.abc import Mapping

from .style import GREEN, GREY, disc, empty_figure, new_figure, style_axes

LOOKS = ((GREY, "o"), (GREEN, "^"), ("#7c3aed", "D"))
APART = 0.26  # between the sets of one way, in rows


def dots(named: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str):
    """Figure of one row per way, the first on top: one dot with its interval for each set, the shares at the right.

    Parameters
    ----------
    named : dict set -> dict way -> (share, low, high), each in [0, 1]; up to three sets of the same ways
    xlabel : str
    """
    ways = list(next(iter(named.values())))
    figure, axes = new_figure(9, 1.6 + 0.62 * len(ways))
    for place, ((label, found), (color, marker)) in enumerate(zip(named.items(), LOOKS, strict=False)):
        shift = APART * (place - (len(named) - 1) / 2)
        for row, way in enumerate(ways):
            share, low, high = (100 * one for one in found[way])
            axes.plot([low, high], [row + shift] * 2, color=color, linewidth=3, alpha=0.6, solid_capstyle="butt")
            axes.plot(share, row + shift, marker, color=color, markersize=10, label="" if row else label)
            axes.annotate(f"{share:.0f}", (103, row + shift), fontsize=12, va="center", color=color,
                          annotation_clip=False)  # fmt: skip
    axes.set_yticks(range(len(ways)), ways, fontsize=14)
    axes.set_ylim(len(ways) - 0.5, -0.5)
    axes.set_xlim(-1, 109)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(xlabel, fontsize=15)
    if len(named) > 1:
        figure.legend(fontsize=13, frameon=False, loc="outside upper right", ncols=len(named))
    return figure


def changes(named: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str):
    """Figure of a panel per set, in each a row per way: a change with its interval around zero, the first row on top.

    A disc is filled where the interval leaves zero out. All panels have one scale and one order of rows.

    Parameters
    ----------
    named : dict set -> dict way -> (mean, low, high); up to four sets of the same ways
    xlabel : str, below the whole
    """
    ways = list(next(iter(named.values())))
    figure = empty_figure(12, 1.9 + 0.5 * len(ways))
    drawn = figure.subplots(1, len(named), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (label, found) in zip(drawn, named.items(), strict=True):
        style_axes(axes)
        axes.set_title(label, fontsize=16)
        axes.axvline(0, color="#111111", linestyle=":", linewidth=2)
        for row, (mean, low, high) in enumerate(found[way] for way in ways):
            axes.plot([low, high], [row, row], color="#111111", linewidth=3, solid_capstyle="butt", zorder=3)
            axes.plot(mean, row, "o", color="#111111", markersize=7, markeredgewidth=2,
                      markerfacecolor=disc(low, high), zorder=2)  # fmt: skip
        axes.tick_params(labelsize=14)
    drawn[0].set_yticks(range(len(ways)), ways, fontsize=15)
    drawn[0].set_ylim(len(ways) - 0.5, -0.5)
    figure.supxlabel(xlabel, fontsize=15)
    return figure
