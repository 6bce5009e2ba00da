"""Pictures of matrices: blue below zero, white at zero, orange above; or grey from black to white."""

from collections.abc import Sequence
from functools import cache

from .style import BLUE, GREY, ORANGE, empty_figure, new_figure, plain, style_axes


@cache
def signed_colors():
    """The colour map for numbers with a sign; safe for colour-blind eyes."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("lab", [BLUE, "white", ORANGE])


def paint(axes, values, limit: float, title: str, grey: bool = False):
    """Paint a matrix on `axes`: signed from -limit to limit, or grey from 0 to limit; returns the image."""
    lowest, colors = (0, "gray") if grey else (-limit, signed_colors())
    if grey:
        axes.figure.photograph = True
    image = axes.imshow(plain(values), cmap=colors, vmin=lowest, vmax=limit, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    frame(axes)
    axes.set_title(title, fontsize=15)
    return image


def frame(axes) -> None:
    """Draw a thin line on all four sides: a matrix whose outer fields are white still has an edge."""
    for side in axes.spines.values():
        side.set(visible=True, color=GREY, linewidth=0.8)


def matrices(
    named: dict, limit: float | Sequence[float] | None = None, columns: int | None = None, *,
    numbers: bool = False, grey: bool = False, inches: float = 3.1,
):  # fmt: skip
    """Figure of matrices side by side, on one colour scale or on one each.

    Parameters
    ----------
    named : dict title -> Tensor (rows, columns)
    limit : float, the value in full colour, or one for each picture; default the largest absolute value of all
    columns : int, pictures in a row; default all of them
    numbers : bool, write every entry into its field, with two decimals (small matrices only)
    grey : bool, paint from black (0) to white (`limit`) instead of blue, white and orange
    inches : float, width of one picture
    """
    if not isinstance(limit, Sequence):
        limit = [limit or max(abs(values).max().item() for values in named.values()) or 1.0] * len(named)
    columns = columns or len(named)
    lines = -(-len(named) // columns)
    figure = empty_figure(inches * columns, (inches + 0.25) * lines)
    for index, ((title, values), full) in enumerate(zip(named.items(), limit, strict=True)):
        axes = figure.add_subplot(lines, columns, index + 1)
        paint(axes, values, full, title, grey)
        if numbers:
            for row, line in enumerate(values.tolist()):
                for column, value in enumerate(line):
                    color = "white" if abs(value) > 0.7 * full else "#111111"
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=12, color=color)
    return figure


def approximations(named: dict, singular_values, rank: int):
    """Figure of a matrix beside its approximation, and the relative error at every rank with one rank marked.

    Parameters
    ----------
    named : dict title -> Tensor (rows, columns); the first is the matrix itself
    singular_values : Tensor (min(rows, columns),), descending
    rank : int
    """
    squares = singular_values.double().square()
    rest = squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(1e-300)
    errors = [float(share) ** 0.5 for share in rest] + [0.0]
    figure = empty_figure(4 * (len(named) + 1), 3.6)
    original = next(iter(named.values()))
    grey = bool((original >= 0).all())
    limit = float(original.max()) if grey else 3 * float((original**2).mean()) ** 0.5
    for index, (title, values) in enumerate(named.items()):
        paint(figure.add_subplot(1, len(named) + 1, index + 1), values, limit or 1.0, title, grey)
    curve = figure.add_subplot(1, len(named) + 1, len(named) + 1)
    style_axes(curve)
    curve.plot(range(len(errors)), [100 * error for error in errors], color=BLUE, linewidth=3)
    curve.plot([rank], [100 * errors[rank]], "o", color=ORANGE, markersize=11)
    curve.annotate(f"{errors[rank]:.1%}", (rank, 100 * errors[rank]), (8, 8), textcoords="offset points", fontsize=14)
    curve.set_xlabel("rank", fontsize=14)
    curve.set_ylabel("relative error, %", fontsize=14)
    curve.set_ylim(0, 105)
    return figure


def grid(values, rows, columns, xlabel: str, ylabel: str, *, title: str = ""):
    """Figure of a table of positive numbers, painted by their logarithm (dark is small), with the numbers in it.

    Parameters
    ----------
    values : Tensor (rows, columns), > 0
    rows, columns : labels of the rows and columns
    xlabel, ylabel : str
    title : str, what the numbers are, with their unit
    """
    figure, axes = new_figure(8, 4.6)
    logs = values.detach().log()
    axes.imshow(plain(logs), cmap="cividis", aspect="auto")
    middle = float(logs.min() + logs.max()) / 2
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            color = "white" if float(logs[row, column]) < middle else "black"
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=15, color=color)
    axes.set_xticks(range(len(columns)), columns, fontsize=14)
    axes.set_yticks(range(len(rows)), rows, fontsize=14)
    axes.set_xlabel(xlabel, fontsize=15)
    axes.set_ylabel(ylabel, fontsize=15)
    axes.set_title(title, fontsize=16, loc="left")
    axes.grid(False)
    return figure


def moved(named: dict):
    """Figure of matrices side by side on one scale: entries that are True in blue, the others in grey, counted above.

    Parameters
    ----------
    named : dict title -> bool Tensor (rows, columns), True where an entry moved
    """
    from matplotlib.colors import ListedColormap

    tallest = max(mask.shape[0] for mask in named.values())
    slots = [max(mask.shape[1], 0.3 * tallest) for mask in named.values()]  # a thin matrix has to carry its title too
    gap, left = 0.08 * tallest, 0.0
    width = sum(slots) + gap * (len(slots) - 1)
    figure, axes = new_figure(11.0, 11.0 * 1.25 * tallest / width)
    for slot, (title, mask) in zip(slots, named.items(), strict=True):
        rows, columns = mask.shape
        start = left + (slot - columns) / 2
        axes.imshow(
            plain(mask), cmap=ListedColormap(["#d1d5db", BLUE]), vmin=0, vmax=1, interpolation="nearest",
            extent=(start, start + columns, rows, 0),
        )
        axes.text(
            left + slot / 2, -0.03 * tallest, f"{title}\n{int(mask.sum()):,} of {mask.numel():,}",
            ha="center", va="bottom", fontsize=14,
        )
        left += slot + gap
    axes.set_xlim(0, width)
    axes.set_ylim(tallest, -0.22 * tallest)
    counted = (f"{title} {int(mask.sum()):,} of {mask.numel():,}" for title, mask in named.items())
    axes.set_xlabel(f"entries that moved: {'; '.join(counted)}")  # not drawn, but what a screen reader says
    axes.set_axis_off()
    return figure
