"""Pictures of memory over the time of a training step."""

from .style import LOOKS, new_figure

WORDS = {"forward": "forward pass", "backward": "backward pass", "optimizer": "optimizer"}
UNITS = {"GiB": 2**30, "MB": 10**6}
COLUMNS = 4  # of the legend
INK = "#111111"  # the measured line; no part that is drawn here has its colour


def memory_over_time(
    moments: list[tuple[float, str, dict[str, int]]], title: str, *, room_bytes: int | None = None,
    measured: dict[str, list[tuple[float, int]]] | None = None, unit: str = "GiB",
):  # fmt: skip
    """Figure of the parts of a step's memory, stacked, from its beginning to its end, with the peak marked.

    Parameters
    ----------
    moments : list of (place on the axis, "forward", "backward" or "optimizer", dict part -> bytes), in order; parts are
        those of `memory.Moment`, or some of them
    title : str
    room_bytes : int, what the card has: a dashed line, or only words where it is far above the peak
    measured : dict phase -> list of (share of the phase's time in [0, 1], bytes), drawn as a line over its phase
    unit : "GiB" or "MB"
    """
    scale, at = UNITS[unit], [one[0] for one in moments]
    figure, axes = new_figure(10.0, 4.4)
    stacked = {part: [one[2][part] / scale for one in moments] for part in moments[0][2]}
    colors = [LOOKS[part][0] for part in stacked]
    drawn = axes.stackplot(at, stacked.values(), labels=stacked, colors=colors, edgecolor="white", linewidth=0.4)
    for area, part in zip(drawn, stacked, strict=True):
        area.set_hatch(LOOKS[part][1])
    totals = [sum(one[2].values()) / scale for one in moments]
    peak = max(range(len(totals)), key=totals.__getitem__)
    spans = phase_spans(moments)
    top = 1.2 * totals[peak]
    if measured:
        lines = [
            (start + share * (end - start), held / scale)
            for phase, (start, end) in spans.items()
            for share, held in measured.get(phase, ())
        ]
        axes.plot(*zip(*lines, strict=True), color="white", linewidth=4)
        axes.plot(*zip(*lines, strict=True), color=INK, linewidth=2.2, label="measured")
        top = max(top, 1.05 * max(held for _, held in lines))
    if room_bytes is not None:
        top = _draw_room(axes, room_bytes / scale, totals[peak], top, unit, left=at[peak] > at[-1] / 2)
    axes.plot(at[peak], totals[peak], "o", color="white", markeredgecolor="black", markeredgewidth=2.5, markersize=9)
    side = "left" if at[peak] < at[-1] / 2 else "right"
    axes.annotate(
        f"peak {totals[peak]:,.{1 if unit == 'GiB' else 0}f} {unit}", (at[peak], totals[peak]),
        (10 if side == "left" else -10, 9), textcoords="offset points", fontsize=14, ha=side,
    )  # fmt: skip
    for start, _ in list(spans.values())[1:]:
        axes.axvline(start, color=INK, linewidth=1, linestyle=":")
    axes.set_xticks([(start + end) / 2 for start, end in spans.values()], [WORDS[one] for one in spans], fontsize=13)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(at[0], at[-1])
    axes.set_ylim(0, top)
    axes.set_xlabel("one step, in order (widths are multiplications, not seconds)", fontsize=13)
    axes.set_ylabel(unit, fontsize=14)
    rows = -(-len(axes.get_legend_handles_labels()[1]) // COLUMNS)
    axes.set_title(title, fontsize=15, loc="left", pad=14 + 21 * rows)  # above the legend, however many rows it has
    axes.legend(fontsize=12, frameon=False, ncols=COLUMNS, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    axes.grid(False, axis="x")
    return figure


def phase_spans(moments: list) -> dict[str, tuple[float, float]]:
    """(start, end) of each phase on the axis: one begins where the other ends."""
    starts = {}
    for place, phase, _ in moments:
        starts.setdefault(phase, place)
    ends = [*list(starts.values())[1:], moments[-1][0]]
    return {phase: (start, end) for (phase, start), end in zip(starts.items(), ends, strict=True)}


def _draw_room(axes, room: float, peak: float, top: float, unit: str, left: bool) -> float:
    """Draw the card's room, its words on the side where the peak is not; return the top of the axis."""
    words, place = f"room on the card {room:,.1f} {unit}", {"fontsize": 13, "ha": "left" if left else "right"}
    edge = 0.005 if left else 0.995
    if room >= 2.5 * peak:
        axes.text(edge, 0.97, f"↑ {words}", transform=axes.transAxes, va="top", **place)
        return 1.3 * peak
    axes.axhline(room, color="black", linewidth=2, linestyle=(0, (6, 4)))
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # neither the grid nor a phase's line runs through
    sides = axes.get_yaxis_transform()
    axes.annotate(words, (edge, room), (0, 5), sides, "offset points", va="bottom", bbox=paper, **place)
    return max(top, 1.15 * room)
