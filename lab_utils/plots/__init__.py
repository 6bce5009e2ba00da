"""Numbers in, Figure out: every picture of the course, legible from the last row."""

from .counting import layer_to_scale, parameter_bars, shares_by_size, stacked_gigabytes
from .curves import code_use, lines, rounding, spread
from .exercises import target_and_yours
from .matrices import approximations, grid, matrices, moved
from .style import BLUE, GREEN, GREY, ORANGE, new_figure, png, style_axes
from .training import before_after, compare_losses, draw_loss, fits, loss_curve, memory_bars, smooth

__all__ = [
    "BLUE", "GREEN", "GREY", "ORANGE", "approximations", "before_after", "code_use", "compare_losses", "draw_loss",
    "fits", "grid", "layer_to_scale", "lines", "loss_curve", "matrices", "memory_bars", "moved", "new_figure",
    "parameter_bars", "png", "rounding", "shares_by_size", "smooth", "spread", "stacked_gigabytes", "style_axes",
    "target_and_yours",
]  # fmt: skip
