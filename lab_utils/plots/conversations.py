"""Chats by their length in tokens, and what a largest length leaves of them."""

from collections.abc import Sequence

from .style import BLUE, GREY, ORANGE, label_axes, new_figure


def lengths(tokens: Sequence[int], reach: Sequence[int], limit: int, chosen: int | None = None):
    """Figure of one bar per chat, the shortest first: what is read of it, and what is cut or left out.

    Parameters
    ----------
    tokens : sequence of int, of each chat
    reach : sequence of int, how many of them are read; 0 for a chat that is left out
    limit : int, the largest length: a dashed line
    chosen : int or None, the chat that gets a mark
    """
    figure, axes = new_figure(9, 3.8)
    order = sorted(range(len(tokens)), key=lambda index: (tokens[index], index))
    places = range(1, len(order) + 1)
    axes.bar(places, [tokens[index] for index in order], color=GREY, alpha=0.55, label="cut or left out")
    axes.bar(places, [reach[index] for index in order], color=BLUE, label="read")
    axes.axhline(limit, color=ORANGE, linestyle="--", linewidth=2.5, label=f"max_length {limit}")
    if chosen is not None:
        axes.plot(order.index(chosen) + 1, tokens[chosen], "o", color="#111111", markersize=10, label="this chat")
    label_axes(axes, "chats, the shortest first", "tokens")
    axes.legend(fontsize=13, frameon=False, loc="upper left", ncols=2)
    axes.margins(y=0.3)
    return figure
