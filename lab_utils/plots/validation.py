"""Training and validation loss of several runs in one picture."""

from collections.abc import Mapping, Sequence

from .style import BLUE, ORANGE, label_axes, new_figure
from .training import smooth

DASHES = ("-", "--", ":")
SKIPPED = 4  # the first steps, whose loss is so high that the rest would be flat


def validation_curves(runs: Mapping[str, Sequence[dict]]):
    """Figure of up to three runs on a logarithmic scale: blue is training, smoothed, and orange is validation.

    A run has its own dashes in both colours; its lowest validation loss, the one that is kept, is in a circle.

    Parameters
    ----------
    runs : label -> `Run.history`, rows of {"step", "loss"}, some with "validation_loss"
    """
    figure, axes = new_figure()
    for (label, history), dashes in zip(runs.items(), DASHES, strict=False):
        training = list(zip([row["step"] for row in history], smooth([row["loss"] for row in history]), strict=True))
        axes.plot(*zip(*(training[SKIPPED:] or training), strict=True), dashes, color=BLUE, linewidth=2.5,
                  label=f"{label}, training")  # fmt: skip
        held_out = [(row["step"], row["validation_loss"]) for row in history if "validation_loss" in row]
        if held_out:
            axes.plot(*zip(*held_out, strict=True), dashes, color=ORANGE, linewidth=2.5, marker="s", markersize=7,
                      label=f"{label}, validation")  # fmt: skip
            best = min(held_out, key=lambda point: point[1])
            axes.plot(*best, "o", color=ORANGE, markersize=16, fillstyle="none", markeredgewidth=2)
    label_axes(axes, "step", "loss, nats per token", logy=True)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=13, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
