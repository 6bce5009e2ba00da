"""Pictures of counts."""

from .style import BLUE, GREEN, GREY, ORANGE, new_figure, stack_gib

WEIGHT = "#d1d5db"  # a frozen matrix


def layer_to_scale(shapes: dict[str, tuple[int, int]], rank: int | dict[str, int], title: str):
    """Figure of a layer's matrices W side by side, all on one scale, each with B to its left and A above it.

    Parameters
    ----------
    shapes : dict module -> (out, in)
    rank : int, the width of B and the height of A on the same scale, drawn one pixel thick where that is less; or a
        dict module -> int, where the matrices differ: 0 is a matrix without B and A
    title : str
    """
    from matplotlib.patches import Rectangle

    ranks = rank if isinstance(rank, dict) else dict.fromkeys(shapes, rank)
    thickest, tallest = max(ranks.values()), max(out for out, _ in shapes.values())
    gap = 0.13 * tallest  # between matrices
    span = sum(into for _, into in shapes.values()) + gap * len(shapes)
    figure, axes = new_figure(11.0, 0.5 + 11.0 * 1.3 * tallest / span)
    pixel, left = span / (11.0 * figure.dpi), gap / 2
    for name, (out, into) in shapes.items():
        axes.add_patch(Rectangle((left, 0), into, -out, color=WEIGHT, linewidth=0))
        if ranks[name]:
            thick = max(ranks[name], pixel)
            axes.add_patch(Rectangle((left, 0), -thick, -out, color=BLUE, linewidth=0))
            axes.add_patch(Rectangle((left, 0), into, thick, color=ORANGE, linewidth=0))
        words = name.replace(".", "\n")
        axes.text(left + into / 2, 0.02 * tallest + ranks[name], words, fontsize=13, ha="center", va="bottom")
        axes.text(left + into / 2, -out - 0.02 * tallest, f"{out}\n× {into}", fontsize=13, ha="center", va="top")
        left += into + gap
    axes.set_xlim(0, span)
    axes.set_ylim(-1.18 * tallest, 0.12 * tallest + thickest)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize=16, loc="left")
    colors = {"W": WEIGHT, "B": BLUE, "A": ORANGE}
    key = [Rectangle((0, 0), 1, 1, color=color, label=label) for label, color in colors.items()]
    axes.legend(handles=key, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=13, frameon=False,
                handlelength=1, handleheight=1, borderpad=0)  # fmt: skip
    return figure


def shares_by_size(series: dict[str, list[tuple[str, int, float]]], line: tuple[str, list[int], list[float]]):
    """Figure of the trained share against the model's size, both logarithmic, with one line for comparison.

    Parameters
    ----------
    series : dict label -> list of (model, numbers in the model, trained share in (0, 1]), at most three
        The models' names are written at the points of the first series.
    line : (label, sizes, shares)
    """
    figure, axes = new_figure(11.0, 6.0)
    looks = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))
    for (label, points), (color, mark) in zip(series.items(), looks, strict=False):
        _, sizes, shares = zip(*points, strict=True)
        axes.plot(sizes, [100 * share for share in shares], mark, color=color, markersize=9, label=label)
    for index, (model, size, share) in enumerate(sorted(next(iter(series.values())), key=lambda point: point[1])):
        place = {"ha": "right", "xytext": (-4, -19)} if index % 2 else {"ha": "left", "xytext": (4, 7)}
        axes.annotate(model, (size, 100 * share), textcoords="offset points", fontsize=13, color="#374151", **place)
    label, sizes, shares = line
    axes.plot(sizes, [100 * share for share in shares], "--", color=GREY, linewidth=3, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.set_xlabel("numbers in the model, billions", fontsize=15)
    axes.set_ylabel("trained, percent", fontsize=15)
    axes.legend(fontsize=14, frameon=False)
    return figure


def stacked_gigabytes(rows: dict[str, dict[str, int]], title: str):
    """Figure of one horizontal bar per row, in GiB, stacked from parts, with the sum at its end.

    Parameters
    ----------
    rows : dict label -> dict part -> bytes; the same parts in every row, at most six
    title : str
    """
    many = len(next(iter(rows.values()))) > 4
    figure, axes = new_figure(10.0, (2.2 if many else 1.7) + 0.6 * len(rows))
    stack_gib(axes, rows, " GiB")
    axes.set_xlabel("GiB (2³⁰ bytes)", fontsize=14)
    axes.set_title(title, fontsize=16, loc="left", pad=58 if many else 34)
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    axes.legend(fontsize=13, frameon=False, ncols=3 if many else 4, **above)
    axes.grid(False, axis="y")
    return figure
