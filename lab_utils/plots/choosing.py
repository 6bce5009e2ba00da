"""Pictures of the explorers of notebooks 09 to 11, for places where no widget is drawn."""

from ..lowrank import singular_values
from .matrices import paint
from .style import BLUE, GREEN, GREY, ORANGE, empty_figure, label_axes, new_figure, style_axes


def merge_survival(block: dict, sizes, changed, kept, size: float, title: str, real: float | None = None):
    """Figure of a block's weights before a merge, with the update, and as stored; and what is left of it at every size.

    Parameters
    ----------
    block : dict of Tensors (n,): "before", "wanted" and "after", weights, and "changed", bool, other codes than before
    sizes : floats > 0, ‖ΔW‖ in percent of ‖W‖
    changed, kept : floats, one per size: share of the codes that change, and share of ΔW that arrives (about 0 to 1)
    size : float, the one that `block` shows
    title : str
    real : float > 0, the size of the ΔW of the fine-tune; None marks none
    """
    figure = empty_figure(11, 6)
    upper, lower = figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    unit = float(block["before"].abs().max()) or 1.0
    places = zip(*((block[name] / unit).tolist() for name in ("before", "wanted", "after")), strict=True)
    for (before, wanted, after), flipped in zip(places, block["changed"].tolist(), strict=True):
        look = {"color": ORANGE, "linewidth": 2.5} if flipped else {"color": BLUE, "linewidth": 1}
        upper.plot([before, before, wanted, after, after], [2.15, 1.85, 1, 0.15, -0.15], **look)
    upper.set_yticks([2, 1, 0], ["W", "W + ΔW", "stored"], fontsize=14)
    upper.set_xlabel("weight / largest of them; orange: another code than without ΔW", fontsize=14)
    upper.set_title(title, fontsize=14, loc="left")
    style_axes(lower)
    lower.plot(sizes, kept, color=BLUE, linewidth=3, label="share of ΔW that arrives")
    lower.plot(sizes, changed, "--", color=ORANGE, linewidth=3, label="share of codes that change")
    lower.axvline(size, color=GREY, linestyle=":", linewidth=2, label=f"shown above: {size:g} %")
    if real is not None:
        lower.axvline(real, color=GREY, linewidth=1.5, label=f"the real ΔW: {real:.2f} %")
    outside = min(kept) < -0.05 or max(kept) > 1.55
    lower.set_xscale("log")
    lower.xaxis.set_major_formatter("{x:g}")
    lower.set_ylim(-0.05, 1.55)
    lower.set_xlabel("size of ΔW, % of W" + ("; blue also lies outside of the picture" if outside else ""), fontsize=14)
    lower.legend(fontsize=13, frameon=False)
    return figure


def sweep_points(series: dict, levels: dict, xlabel: str, ylabel: str, *, log: int = 0, joined: bool = True):
    """Figure of means with their standard errors, one look a series, and what they are held against as dashed lines.

    Parameters
    ----------
    series : dict label -> (x, mean, error), three sequences of numbers as long as each other, up to seven series
    levels : dict label -> float, on the y axis
    xlabel, ylabel : str
    log : int, base of a logarithmic x axis; 0 is a linear one
    joined : bool, draw a line through the points of a series
    """
    figure, axes = new_figure(10, 5)
    looks = zip((BLUE, ORANGE, GREEN, "#7c3aed", "#be185d", "#7a6200", GREY), "os^DvPX", strict=True)
    for (label, (x, mean, error)), (color, marker) in zip(series.items(), looks, strict=False):
        axes.errorbar(
            x, mean, error, color=color, marker=marker, linestyle="-" if joined else "none", linewidth=1.5,
            elinewidth=2.5, markersize=9, capsize=5, label=label,
        )  # fmt: skip
    for label, value in levels.items():
        axes.axhline(value, color="#111111", linestyle="--", linewidth=1.5)
        axes.annotate(label, (1, value), (0, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
                      fontsize=13, ha="right")  # fmt: skip
    label_axes(axes, xlabel, ylabel, logx=log, logy=ylabel.endswith("loss"))
    axes.margins(x=0.08, y=0.12)
    if len(series) > 1:
        axes.legend(fontsize=13, frameon=False)
    return figure


def variant_update(named: dict, counts: dict[str, int], chosen: str, title: str):
    """Figure of matrices on one colour scale, their singular values, and how many numbers each variant trains.

    Parameters
    ----------
    named : dict title -> Tensor (rows, columns); the first is the target, whose root mean square sets the scale
    counts : dict name -> int >= 1
    chosen : str, the name that is drawn in blue
    title : str, of the counts
    """
    figure = empty_figure(12, 4)
    limit = 3 * float(next(iter(named.values())).square().mean().sqrt())
    panels = figure.subplots(1, len(named) + 2, width_ratios=[1] * len(named) + [1.6, 2.2])
    spectrum, bars = panels[-2:]
    for axes, (name, values), (color, dashes) in zip(panels, named.items(), ((GREY, ":"), (BLUE, "-")), strict=False):
        paint(axes, values, limit, name)
        spectrum.plot(range(1, min(values.shape) + 1), singular_values(values).tolist(), dashes, color=color,
                      linewidth=3, label=name)  # fmt: skip
    style_axes(spectrum)
    spectrum.set_xlabel("singular value", fontsize=14)
    spectrum.legend(fontsize=12, frameon=False)
    style_axes(bars)
    drawn = bars.barh(list(counts), list(counts.values()), color=[BLUE if name == chosen else GREY for name in counts])
    bars.bar_label(drawn, [f"{count:,}" for count in counts.values()], padding=4, fontsize=13)
    bars.margins(x=0.2)
    bars.set_xticks([])
    bars.invert_yaxis()
    bars.set_title(title, fontsize=14)
    return figure
