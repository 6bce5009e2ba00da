"""The loss curve that grows while the model trains."""

import time

import ipywidgets

from ..plots import draw_loss, new_figure, png
from ..plots.style import DARK

LOSSES = {"tokens": "nats per token", "pictures": "mean square error"}  # what is counted -> unit of the loss


class LiveLoss:
    """One image that is redrawn in place, never a second one.

    Parameters
    ----------
    steps : int, steps of the whole run
    every_seconds : float, at most one redraw in that time; the last step is always drawn
    unit : str, a key of LOSSES: what a history's rows count

    Use it as `finetune(..., on_step=live)` after `display(live.widget)`.
    """

    def __init__(self, steps: int, every_seconds: float = 1.0, unit: str = "tokens"):
        self.steps, self.every_seconds, self.unit = steps, every_seconds, unit
        self.figure, self.axes = new_figure(8, 3.6)
        self.image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width="800px", height="360px"))
        self.image.add_class("lab-figure")  # dark on a dark page, as every figure
        self.text = ipywidgets.HTML("Not started.")
        self.widget = ipywidgets.VBox([self.image, self.text, ipywidgets.HTML(DARK)])
        self._drawn_at = -1e9
        self._draw([])

    def __call__(self, history: list[dict]) -> None:
        """Show the history so far (see `lab_utils.finetune.Run`)."""
        last = history[-1]["step"] >= self.steps
        if not last and time.monotonic() - self._drawn_at < self.every_seconds:
            return
        self._draw(history)

    def _draw(self, history: list[dict]) -> None:
        draw_loss(self.axes, history, self.steps, LOSSES[self.unit])
        self.image.value = png(self.figure)
        if history:
            row = history[-1]
            left = sum(r["seconds"] for r in history[-10:]) / len(history[-10:]) * (self.steps - row["step"])
            self.text.value = (
                f"Step {row['step']} of {self.steps}, loss of this batch {row['loss']:.3f}, "
                f"{row[self.unit] / row['seconds']:.0f} {self.unit}/s, {left:.0f} s left.{_held_out(history)}"
            )
        self._drawn_at = time.monotonic()


def _held_out(history: list[dict]) -> str:
    """The last validation loss and the lowest, in words; "" if none was measured."""
    rows = [row for row in history if "validation_loss" in row]
    if not rows:
        return ""
    best = min(rows, key=lambda row: row["validation_loss"])
    now, lowest = rows[-1]["validation_loss"], best["validation_loss"]
    return f" Validation loss {now:.3f}, lowest {lowest:.3f} at step {best['step']}."
