"""Numbers in, Figure out: every picture of the course, legible from the last row."""

from .capacity import capacity
from .choosing import differences, merge_survival, rate_race
from .conversations import lengths
from .counting import layer_to_scale, shares_by_size, stacked_gigabytes
from .curves import code_use, histograms, lines, panels, rounding
from .exercises import target_and_yours
from .formats import labelled_dots, loss_at_bits
from .intervals import changes, dots
from .machines import many_machines
from .matrices import approximations, grid, matrices, moved
from .memory import memory_over_time
from .paths import paths
from .pictures import picture_rows
from .style import BLUE, GREEN, GREY, ORANGE, new_figure, png, style_axes
from .sweeps import strips, timeline, with_errors
from .training import before_after, compare_losses, draw_loss, fits, loss_curve, memory_bars, smooth
from .validation import validation_curves

__all__ = [
    "BLUE", "GREEN", "GREY", "ORANGE", "approximations", "before_after", "capacity", "changes", "code_use",
    "compare_losses", "differences", "dots", "draw_loss", "fits", "grid", "histograms", "labelled_dots",
    "layer_to_scale", "lengths", "lines", "loss_at_bits", "loss_curve", "many_machines", "matrices",
    "memory_bars", "memory_over_time", "merge_survival", "moved", "new_figure",
    "panels", "paths", "picture_rows", "png", "rate_race", "rounding", "shares_by_size", "smooth", "stacked_gigabytes",
    "strips", "style_axes", "target_and_yours", "timeline", "validation_curves", "with_errors",
]  # fmt: skip
