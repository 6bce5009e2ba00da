"""Pictures of training on several processes."""

from .style import BLUE, GREY, ORANGE, STACKED, empty_figure, label_axes, new_figure, style_axes

COLORS = {"full": GREY, "lora": BLUE, "qlora": ORANGE}
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def readable(count: float) -> str:
    """Bytes with three digits and a unit: 14.7 MB."""
    for unit, size in UNITS:
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def memory_by_processes(panels: dict[str, dict[int, dict[str, int]]], title: str, *, room_bytes: float | None = None):
    """Figure of stacked bars: what one process holds, part by part, against how many there are.

    Parameters
    ----------
    panels : dict of dict of dict, panel's label (a strategy) -> processes -> part -> bytes on one process; the same
        parts everywhere, at most seven
    title : str
    room_bytes : float, optional, drawn as a line: what one device has
    """
    figure = empty_figure(4.0 + 3.4 * len(panels), 5.4)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    rows = [parts for bars in panels.values() for parts in bars.values()]
    for axes, (label, bars) in zip(every, panels.items(), strict=True):
        style_axes(axes)
        places, bottoms = range(len(bars)), [0.0] * len(bars)
        for part, (color, hatch) in zip(rows[0], STACKED, strict=False):
            if any(parts[part] for parts in rows):
                heights = [parts[part] / 1e9 for parts in bars.values()]
                axes.bar(places, heights, 0.75, bottoms, color=color, hatch=hatch, edgecolor="white", linewidth=0,
                         label=part)  # fmt: skip
                bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
        for place, total in zip(places, bottoms, strict=True):
            axes.text(place, total, f"{total:.1f}", fontsize=13, ha="center", va="bottom")
        if room_bytes is not None:
            axes.axhline(room_bytes / 1e9, color="#b91c1c", linewidth=2.5, linestyle="--", label="one device has")
        axes.set_xticks(places, [str(processes) for processes in bars])
        axes.grid(False, axis="x")
        label_axes(axes, "processes", "", title=label)
    every[0].set_ylabel("GB on each process", fontsize=15)
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], fontsize=14, frameon=False, loc="outside right center")
    figure.suptitle(title, fontsize=17, x=0.01, ha="left")
    return figure


def sent_bars(computed: dict[str, dict[str, int]], title: str, *, measured: dict[str, dict[str, int]] | None = None):
    """Figure of what each process sends in a step: a bar as computed, a dot as measured, on a logarithmic scale.

    Parameters
    ----------
    computed : dict of dict, strategy -> method ("full", "lora", "qlora") -> bytes above 0
    title : str
    measured : dict of dict, optional, likewise; it may have fewer entries
    """
    rows = [(strategy, method) for strategy, methods in computed.items() for method in methods]
    sizes = [computed[strategy][method] for strategy, method in rows]
    dots = [(measured or {}).get(strategy, {}).get(method) for strategy, method in rows]
    figure, axes = new_figure(11.0, 1.8 + 0.55 * len(rows))
    axes.set_xscale("log")
    least = 10 ** (len(str(int(min(sizes)))) - 2)  # the decade below the shortest bar's
    places = [-place - 0.6 * list(computed).index(strategy) for place, (strategy, _) in enumerate(rows)]
    for place, (_, method), size, dot in zip(places, rows, sizes, dots, strict=True):
        axes.barh(place, size - least, 0.8, left=least, color=COLORS[method])
        if dot is not None:
            axes.plot(dot, place, "o", color="white", markeredgecolor="#111111", markeredgewidth=2.5, markersize=12)
        text = readable(size) if dot is None else f"{readable(size)}, measured {readable(dot)}"
        axes.annotate(text, (max(size, dot or 0), place), (14, 0), textcoords="offset points", fontsize=14, va="center")
    axes.set_xlim(least, max(sizes) * (100 if any(dots) else 8))  # room for the text
    axes.set_yticks(places, [f"{strategy}, {method}" for strategy, method in rows], fontsize=14)
    axes.xaxis.set_major_formatter(lambda value, _: readable(value))
    axes.grid(False, axis="y")
    axes.set_xlabel("sent by each process in a step", fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")
    return figure
