"""Lines and histograms."""

from .style import BLUE, GREEN, GREY, ORANGE, new_figure


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
        axes.yaxis.set_minor_formatter("")
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_ylabel(ylabel, fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")
    if len(named) > 1:
        axes.legend(fontsize=14, frameon=False)
    return figure


def spread(named: dict, xlabel: str, limit: float):
    """Figure of outlined histograms with the same 80 bins from -limit to limit, one a set of values.

    Parameters
    ----------
    named : dict label -> Tensor of any shape, up to three
    xlabel : str
    limit : float > 0; values beyond it are not drawn
    """
    figure, axes = new_figure()
    edges = [limit * (i / 40 - 1) for i in range(81)]
    looks = zip((BLUE, ORANGE, GREEN), ("-", "--", "-."), strict=True)
    for (label, values), (color, dashes) in zip(named.items(), looks, strict=False):
        axes.hist(
            values.flatten().tolist(), bins=edges, density=True, histtype="step", color=color, linestyle=dashes,
            linewidth=3, label=label,
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_ylabel("density", fontsize=15)
    axes.legend(fontsize=14, frameon=False)
    return figure
