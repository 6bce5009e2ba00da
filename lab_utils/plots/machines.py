"""Many machines: what each holds, and how long their exchange takes."""

from .style import GREY, empty_figure, stack_gib, style_axes


def many_machines(
    rows: dict[str, dict[str, int]], room: int, title: str, seconds: dict[str, list[float]], links: list[str],
    chosen: str, wire: str,
):  # fmt: skip
    """Figure of the memory on each of several GPUs by strategy, and of the seconds of sending per step, by link.

    Parameters
    ----------
    rows : dict strategy -> dict part -> bytes; the same parts in every row, at most seven
    room : int, bytes that a GPU has room for: a dashed line
    title : str, of the bars
    seconds : dict method -> list of float >= 0, one a link; where a method sends nothing it has no dots
    links : list of str
    chosen : str, the method whose dots are filled
    wire : str, title of the dots
    """
    figure = empty_figure(12, 4.4)
    bars, dots = figure.subplots(1, 2, width_ratios=[1.1, 1])
    style_axes(bars)
    stack_gib(bars, rows)
    bars.axvline(room / 2**30, color="#111111", linestyle="--", linewidth=2)
    bars.set_xlabel("GiB; dashed: the GPU's room", fontsize=14)
    bars.set_title(title, fontsize=14, loc="left")
    bars.legend(fontsize=12, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    style_axes(dots)
    for (method, times), marker in zip(seconds.items(), "s^o", strict=False):
        if max(times) > 0:
            look = {"color": "#111111"} if method == chosen else {"markerfacecolor": "white", "color": GREY}
            dots.plot(times, range(len(links)), marker, markersize=9, linestyle="none", label=method, **look)
    dots.set_xscale("log")
    dots.set_yticks(range(len(links)), links)
    dots.invert_yaxis()
    dots.set_xlabel("seconds per step", fontsize=14)
    dots.set_title(wire, fontsize=14, loc="left")
    if dots.lines:
        dots.legend(fontsize=12, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.2))
    return figure
