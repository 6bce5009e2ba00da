"""Numbers in, Figure out: every picture of the course, legible from the last row."""

from .counting import parameter_bars
from .exercises import target_and_yours
from .matrices import approximations, grid, matrices
from .style import BLUE, GREEN, GREY, ORANGE, lines, new_figure, png, style_axes
from .training import before_after, compare_losses, draw_loss, fits, loss_curve, memory_bars, smooth

__all__ = [
    "BLUE", "GREEN", "GREY", "ORANGE", "approximations", "before_after", "compare_losses", "draw_loss", "fits", "grid",
    "lines", "loss_curve", "matrices", "memory_bars", "new_figure", "parameter_bars", "png", "smooth", "style_axes",
    "target_and_yours",
]  # fmt: skip
