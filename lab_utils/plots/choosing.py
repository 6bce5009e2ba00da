"""Pictures of the explorers of notebooks 09 to 11, for places where no widget is drawn."""

from .style import BLUE, GREY, ORANGE, disc, empty_figure, label_axes, new_figure, style_axes

SPAN = 30  # a loss of so many times the smallest, or more, is drawn at the upper edge


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
    for axes in (upper, lower):
        style_axes(axes)
    upper.grid(False, axis="y")
    unit = float(block["before"].abs().max()) or 1.0
    places = zip(*((block[name] / unit).tolist() for name in ("before", "wanted", "after")), strict=True)
    for (before, wanted, after), flipped in zip(places, block["changed"].tolist(), strict=True):
        look = {"color": ORANGE, "linewidth": 2.5} if flipped else {"color": BLUE, "linewidth": 1}
        upper.plot([before, before, wanted, after, after], [2.15, 1.85, 1, 0.15, -0.15], **look)
    upper.set_yticks([2, 1, 0], ["W", "W + ΔW", "stored"], fontsize=14)
    upper.set_xlabel("weight / largest of them; orange: another code than without ΔW", fontsize=14)
    upper.set_title(title, fontsize=14, loc="left")
    lower.plot(sizes, kept, color=BLUE, linewidth=3, label="share of ΔW that arrives")
    lower.plot(sizes, changed, "--", color=ORANGE, linewidth=3, label="share of codes that change")
    lower.axvline(size, color=GREY, linestyle=":", linewidth=2, label=f"shown above: {size:g} %")
    if real is not None:
        lower.axvline(real, color=GREY, linewidth=1.5, label=f"the real ΔW: {real:.2f} %")
    outside = min(kept) < -0.05 or max(kept) > 1.55
    lower.set_xscale("log")
    lower.xaxis.set_major_formatter("{x:g}")
    lower.set_ylim(-0.05, 1.55)
    lower.set_ylabel("share", fontsize=14)
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
                  markerfacecolor=disc(low, high))  # fmt: skip
        dots = (seeds or {}).get(label, [])
        axes.plot(dots, [row + 0.22] * len(dots), "o", color=GREY, markersize=7)
    axes.axvline(0, color="#111111", linestyle=":", linewidth=2)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=14)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=14)
    return figure


def rate_race(runs: dict, used: dict, ylabel: str, title: str):
    """Figure of loss against learning rate, a panel per variant, and beside them their losses at one rate each.

    Parameters
    ----------
    runs : dict name -> sequence of (learning rate, loss), one dot each, up to eight names
    used : dict name -> (learning rate or None, losses, mean or None, half width of its interval), from the top down; of
        these runs, LoRA's are blue and the others orange. A loss of 30 times the smallest, or more, is drawn there
    ylabel, title : str
    """
    figure = empty_figure(13, 5)
    left, right = figure.subfigures(1, 2, width_ratios=[3, 2])
    left.suptitle(title, fontsize=14)
    panels = left.subplots(2, 4, sharex=True, sharey=True)
    least = min(loss for dots in runs.values() for _, loss in dots)
    most = min(SPAN * least, max(loss for dots in runs.values() for _, loss in dots))
    for axes, (name, dots) in zip(panels.flat, runs.items(), strict=False):
        rate, losses, _, _ = used[name]
        style_axes(axes)
        axes.plot([rate for rate, _ in dots], [min(loss, most) for _, loss in dots], "o", color=GREY, markersize=4)
        axes.set_title(name, fontsize=13)
        if rate is not None:
            axes.axvline(rate, color=_color(name), linewidth=1.5)
            axes.plot([rate] * len(losses), [min(loss, most) for loss in losses], "o", color=_color(name), markersize=7)
        label_axes(axes, "", "", logx=10, logy=True)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="x", labelsize=11)  # side by side at 13 they touch
    panels[0, 0].set_ylim(0.8 * least, 1.25 * most)
    for axes in panels.flat[len(runs):]:
        axes.set_visible(False)
    left.supxlabel("learning rate", fontsize=14)
    left.supylabel(ylabel, fontsize=14)
    axes = right.subplots()
    style_axes(axes)
    for row, (name, (_, losses, mean, reach)) in enumerate(used.items()):
        axes.plot(losses, [row + 0.2] * len(losses), "o", color=_color(name), markersize=6, alpha=0.6)
        if len(losses) > 1:
            axes.errorbar(mean, row, xerr=reach, color=_color(name), marker="|", markersize=16, markeredgewidth=4)
    names = [name if rate is None else f"{name}  {rate:g}" for name, (rate, *_) in used.items()]
    label_axes(axes, ylabel, "")
    axes.set_yticks(range(len(used)), names, fontsize=13)
    axes.set_ylim(len(used) - 0.5, -0.5)
    return figure


def _color(name: str) -> str:
    return BLUE if name == "LoRA" else ORANGE
