"""Pictures of counts."""

from .style import BLUE, new_figure


def parameter_bars(numbers: dict[str, int], title: str):
    """Figure of one horizontal bar a matrix, as long as its adapter has numbers.

    Parameters
    ----------
    numbers : dict module -> numbers in its adapters
    title : str
    """
    figure, axes = new_figure(height=0.9 + 0.5 * max(len(numbers), 1))
    bars = axes.barh(list(numbers)[::-1], list(numbers.values())[::-1], color=BLUE)
    axes.bar_label(bars, fmt=" {:,.0f}", fontsize=13)
    axes.margins(x=0.2)
    axes.set_xlabel("numbers in the adapters", fontsize=14)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.set_title(title, fontsize=16, loc="left")
    axes.grid(False, axis="y")
    return figure
