"""Pictures of training: losses, scores before and after, bytes."""

from collections.abc import Sequence

from .style import BLUE, GREEN, GREY, ORANGE, empty_figure, label_axes, log_ticks, new_figure, style_axes


def smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average, corrected for its start.

    Parameters
    ----------
    values : floats, one per step
    weight : float in [0, 1), how much of the past stays

    Returns
    -------
    list of float, as long as `values`
    """
    average, result = 0.0, []
    for count, value in enumerate(values, 1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def draw_loss(axes, history: list[dict], steps: int, unit: str = "nats per token") -> None:
    """Draw loss, in `unit`, against step on `axes`: each step as a dot, the moving average as a line.

    Where the history has validation losses, they are a second line, and the lowest is marked.
    """
    axes.clear()
    style_axes(axes)
    axes.set_xlim(0, max(steps, 2))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("step", fontsize=15)
    axes.set_ylabel(f"loss, {unit}", fontsize=15)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    if not history:
        return
    x = [row["step"] for row in history]
    losses = [max(row["loss"], 1e-5) for row in history]
    axes.plot(x, losses, "o", color=BLUE, alpha=0.35, markersize=5, label="one batch")
    axes.plot(x, smooth(losses), color=BLUE, linewidth=3, label="moving average")
    held_out = [row for row in history if "validation_loss" in row]
    if held_out:
        values = [max(row["validation_loss"], 1e-5) for row in held_out]
        axes.plot([row["step"] for row in held_out], values, "s--", color=ORANGE, linewidth=2, label="validation")
        best = values.index(min(values))
        axes.plot([held_out[best]["step"]], [values[best]], "o", color=ORANGE, markersize=14, fillstyle="none")
    axes.legend(fontsize=13, frameon=False, loc="upper right")
    last = history[-1]
    title = f"step {last['step']} of {steps}: loss {smooth(losses)[-1]:.3f}, {sum(r['seconds'] for r in history):.0f} s"
    axes.set_title(title, fontsize=16, loc="left")


def loss_curve(history: list[dict], steps: int | None = None):
    """Figure of the loss over the steps of a run (`Run.history`), on a logarithmic scale."""
    figure, axes = new_figure()
    draw_loss(axes, history, steps or len(history))
    return figure


def compare_losses(histories: dict[str, list[dict]]):
    """Figure of several runs' losses over the same steps, one line per run, on a logarithmic scale.

    Parameters
    ----------
    histories : dict label -> list of {"step", "loss"}
    """
    figure, axes = new_figure()
    for (label, history), color, style in zip(
        histories.items(), (BLUE, ORANGE, GREEN, GREY), ("-", "--", "-.", ":"), strict=False
    ):
        axes.plot(
            [row["step"] for row in history], [row["loss"] for row in history],
            color=color, linestyle=style, linewidth=3, label=label,
        )
    label_axes(axes, "step", "loss, nats per token", logy=True)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=14, frameon=False)
    return figure


def before_after(panels: dict[str, dict[str, dict]]):
    """Figure of one row of bars per set of examples: for each measure a bar per model, with its 95 % interval.

    Parameters
    ----------
    panels : dict set -> dict model -> dict measure -> `scores.Measure`; the same models and measures in every set, and
        for all bars of a set the same n
    """
    figure = empty_figure(9.6, 2.6 * len(panels) + 0.4)  # both rows fit on 1024 × 768
    for number, (title, models) in enumerate(panels.items()):
        axes = figure.add_subplot(len(panels), 1, number + 1)
        style_axes(axes)
        for place, ((model, found), color) in enumerate(zip(models.items(), (GREY, ORANGE, BLUE), strict=False)):
            _bars(axes, found, model, color, (place - (len(models) - 1) / 2) * 0.28)
        n = next(iter(next(iter(models.values())).values())).n
        axes.set_title(f"{title}: {n} messages per bar", fontsize=15, loc="left")
        axes.set_xticks(range(len(found)), list(found), fontsize=14)
        axes.set_ylim(0, 118)
        axes.set_yticks(range(0, 101, 25))
        axes.set_ylabel("percent right", fontsize=13)
        axes.grid(False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), fontsize=14, frameon=False, ncols=3, loc="outside upper right")
    return figure


def _bars(axes, found: dict, label: str, color: str, shift: float) -> None:
    """One model's bars, each with its interval and its value above that."""
    x = [place + shift for place in range(len(found))]
    values = [100 * one.value for one in found.values()]
    ends = [(100 * one.low, 100 * one.high) for one in found.values()]
    reach = [[value - low for value, (low, _) in zip(values, ends, strict=True)],
             [high - value for value, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
    axes.bar(x, values, width=0.26, label=label, color=color)
    axes.errorbar(x, values, yerr=reach, fmt="none", ecolor="#111111", elinewidth=1.5, capsize=4)
    for place, value, (_, high) in zip(x, values, ends, strict=True):
        axes.text(place, high + 1, f"{value:.0f}", ha="center", va="bottom", fontsize=12)


def memory_bars(parts: dict[str, int], title: str):
    """Figure of one horizontal bar a part.

    Parameters
    ----------
    parts : dict name -> bytes
    """
    figure, axes = new_figure(height=0.6 + 0.55 * len(parts))
    names = list(parts)[::-1]
    bars = axes.barh(names, [parts[name] / 1e6 for name in names], color=BLUE)
    axes.bar_label(bars, fmt=" %.0f MB", fontsize=13)
    axes.margins(x=0.15)
    axes.set_xlabel("megabytes (10⁶ bytes)", fontsize=14)
    axes.set_title(title, fontsize=16, loc="left")
    axes.grid(False, axis="y")
    return figure


def fits(runs: list[dict]):
    """Figure of several short trainings: their losses, and the accuracy that each reached against its rank.

    Parameters
    ----------
    runs : list of dict with rank, scaling, losses, accuracy (share, or None) and before (share); the last stands out
    """
    figure = empty_figure(11, 4)
    curve, dots = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for run in runs:
        last = run is runs[-1]
        label = f"the last, rank {run['rank']}" if last else "earlier runs" if run is runs[0] else None
        look = {"color": BLUE, "linewidth": 3} if last else {"color": GREY, "linewidth": 1.5, "alpha": 0.7}
        curve.plot(run["losses"], label=label, **look)
        if run["accuracy"] is not None:
            color, size = (ORANGE, 11) if last else (GREY, 8)
            dots.plot([run["rank"]], [100 * run["accuracy"]], "o", color=color, markersize=size)
    if runs[-1]["accuracy"] is not None:
        spot = (runs[-1]["rank"], 100 * runs[-1]["accuracy"])
        dots.annotate(f"{spot[1]:.1f} %", spot, (10, -18), textcoords="offset points", fontsize=14)
    before = 100 * runs[-1]["before"]
    dots.axhline(before, color=GREY, linestyle=":", linewidth=2)
    dots.annotate("before training", (1, before), (0, -16), textcoords="offset points", fontsize=13, color=GREY)
    for axes, xlabel, ylabel in ((curve, "step", "loss, nats per image"), (dots, "rank", "correct on new images, %")):
        style_axes(axes)
        axes.set_xlabel(xlabel, fontsize=14)
        axes.set_ylabel(ylabel, fontsize=14)
    curve.legend(fontsize=13, frameon=False, loc="upper right")
    curve.set_yscale("log")
    curve.set_ylim(0.001, 30)  # the trainer draws the same range
    curve.yaxis.set_major_formatter("{x:g}")
    dots.set_xscale("log", base=2)
    dots.xaxis.set_major_formatter("{x:g}")
    dots.set_xlim(0.8, 80)
    dots.set_ylim(0, 105)
    return figure
