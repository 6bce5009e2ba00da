"""Pictures of the explorers of notebooks 09 to 11, for places where no widget is drawn."""

from ..lowrank import singular_values
from .matrices import paint
from .style import BLUE, GREY, ORANGE, empty_figure, new_figure, style_axes


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


def differences(rows: dict[str, tuple], xlabel: str, seeds: dict[str, list] | None = None):
    """Figure of one interval per row around zero, the mean a disc: filled where the interval leaves zero out.

    Parameters
    ----------
    rows : dict label -> (mean, low, high), from the top down
    xlabel : str
    seeds : dict label -> sequence of numbers, small dots below that row
    """
    figure, axes = new_figure(9, 1.6 + 0.6 * len(rows))
    for row, (label, (mean, low, high)) in enumerate(rows.items()):
        axes.plot([low, high], [row, row], color="#111111", linewidth=3, marker="|", markersize=16, markeredgewidth=3)
        axes.plot(mean, row, "o", color="#111111", markersize=11, markeredgewidth=3,
                  markerfacecolor="#111111" if low > 0 or high < 0 else "white")  # fmt: skip
        dots = (seeds or {}).get(label, [])
        axes.plot(dots, [row + 0.22] * len(dots), "o", color=GREY, markersize=7)
    axes.axvline(0, color="#111111", linestyle=":", linewidth=2)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=14)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=14)
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
