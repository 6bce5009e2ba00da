"""What a rank can hold beside what training made of it."""

from .style import BLUE, GREEN, GREY, empty_figure, label_axes, style_axes
from .sweeps import reaches

LOOKS = ((GREY, "s", "--"), (BLUE, "o", "-"), (GREEN, "D", ":"))


def capacity(jobs: dict, ylabel: str = "correct, % (bars: 95 %)"):
    """Figure of one column per job: the singular values of its exact update, and below them accuracy against rank.

    Parameters
    ----------
    jobs : dict name -> (singular values, curves). The values are a sequence in descending order; curves is a dict
        label -> (ranks, means, errors) of up to three, the same labels in all; an error is a number or a pair (down,
        up), and errors are None for a curve that has none
    ylabel : str, of the lower row
    """
    figure = empty_figure(5.6 * len(jobs), 6.8)
    rows = figure.add_gridspec(2, len(jobs), height_ratios=(1, 2))
    largest = max(max(map(float, values)) for values, _ in jobs.values())
    for column, (name, (values, curves)) in enumerate(jobs.items()):
        upper, lower = figure.add_subplot(rows[0, column]), figure.add_subplot(rows[1, column])
        style_axes(upper)
        upper.bar(range(1, len(values) + 1), [float(value) for value in values], color=GREY)
        upper.set_ylim(0, 1.05 * largest)
        label_axes(upper, "number of the direction", "singular value" if column == 0 else "", title=name)
        style_axes(lower)
        for (label, (ranks, means, errors)), (color, marker, dashes) in zip(curves.items(), LOOKS, strict=False):
            lower.errorbar(
                list(ranks), list(means), None if errors is None else reaches(errors), color=color, marker=marker,
                linestyle=dashes, linewidth=2.5, markersize=8, capsize=5, label=label,
            )  # fmt: skip
        label_axes(lower, "rank", ylabel if column == 0 else "", logx=2)
        lower.set_ylim(0, 103)
    figure.axes[1].legend(fontsize=13, frameon=False, loc="lower right")
    return figure
