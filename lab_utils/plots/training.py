"""Numbers in, Figure out: every picture of the course, legible from the last row."""

from collections.abc import Sequence

BLUE, ORANGE, GREEN, GREY = "#0b5fa5", "#d1540a", "#1d7a46", "#6b7280"


def new_figure(width: float = 9.0, height: float = 4.2):
    """An empty white Figure of `width` × `height` inches, and its one Axes, in the course's style."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style_axes(axes)
    return figure, axes


def style_axes(axes) -> None:
    """Large type, a light grid behind the data, no box."""
    axes.grid(True, color="#e5e7eb", linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=13)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average, corrected for its start.

    Parameters
    ----------
    values : floats, one a step
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


def draw_loss(axes, history: list[dict], steps: int) -> None:
    """Draw loss against step on `axes`: each step as a dot, the moving average as a line."""
    axes.clear()
    style_axes(axes)
    axes.set_xlim(0, max(steps, 2))
    axes.set_xlabel("step", fontsize=15)
    axes.set_ylabel("loss, nats a token", fontsize=15)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    if not history:
        return
    x = [row["step"] for row in history]
    losses = [max(row["loss"], 1e-5) for row in history]
    axes.plot(x, losses, "o", color=BLUE, alpha=0.35, markersize=5, label="one batch")
    axes.plot(x, smooth(losses), color=BLUE, linewidth=3, label="moving average")
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
    """Figure of several runs' losses over the same steps, one line a run.

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
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("step", fontsize=15)
    axes.set_ylabel("loss, nats a token", fontsize=15)
    axes.legend(fontsize=14, frameon=False)
    return figure


def before_after(before: dict[str, float], after: dict[str, float], title: str):
    """Figure of two bars a measure, before and after.

    Parameters
    ----------
    before, after : dict measure -> share in [0, 1], the same measures in the same order
    title : str
    """
    figure, axes = new_figure()
    for shift, shares, label, color in ((-0.2, before, "before", GREY), (0.2, after, "after", BLUE)):
        bars = axes.bar(
            [i + shift for i in range(len(shares))], [100 * share for share in shares.values()],
            width=0.38, label=label, color=color,
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=13)
    axes.set_xticks(range(len(after)), list(after), fontsize=15)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    axes.set_ylabel("percent right", fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")
    axes.legend(fontsize=14, frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.16))
    axes.grid(False, axis="x")
    return figure


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
