"""The curve of a run as an SVG: the loss of training, smoothed, and of validation where it was measured."""

import math
from collections.abc import Sequence

from .blocks import Picture

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 300, 56, 36, 16, 96
SMOOTH = 0.9  # of the running mean that is kept each step


def curve(history: Sequence[dict]) -> Picture | None:
    """The picture of a run's history; None if nothing was trained.

    Parameters
    ----------
    history : rows of {"step", "loss"}, some with "validation_loss"
    """
    steps = [(row["step"], row["loss"]) for row in history if _is_finite(row.get("loss"))]
    measured = [(row["step"], row["validation_loss"]) for row in history if _is_finite(row.get("validation_loss"))]
    if not steps:
        return None
    smoothed = _smoothed(steps)
    values = [loss for _, loss in (*smoothed, *measured)]
    low, high = 0.0, max(values) * 1.05 or 1.0
    last = max(steps[-1][0], 2)

    def place(step: int, loss: float) -> tuple[float, float]:
        across = LEFT + (step - 1) / (last - 1) * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [_axes(last, high, place), _line(smoothed, place, "train"), _name(smoothed, place, "train", "training")]
    if measured:
        parts += [_line(measured, place, "validation"), _name(measured, place, "validation", "validation")]
        dots = (place(*one) for one in measured)
        parts += [f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"/>' for x, y in dots]
    said = f"Loss in nats per token: {smoothed[0][1]:.3f} at first, {smoothed[-1][1]:.3f} after {last} steps (smoothed)"
    if measured:
        best = min(measured, key=lambda one: one[1])
        said += f"; on validation lowest at step {best[0]}, {best[1]:.3f}"
    return Picture(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}.">{"".join(parts)}</svg>', f"{said}."
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _smoothed(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """A running mean that forgets, corrected for its beginning (as Adam's moments are)."""
    found, mean, weight = [], 0.0, 0.0
    for step, loss in steps:
        mean, weight = SMOOTH * mean + (1 - SMOOTH) * loss, SMOOTH * weight + 1 - SMOOTH
        found.append((step, mean / weight))
    return found


def _line(points, place, kind: str) -> str:
    every = max(1, len(points) // 600)
    kept = [*points[:-1:every], points[-1]]
    text = " ".join(f"{x},{y}" for x, y in (place(*one) for one in kept))
    return f'<polyline class="{kind}" stroke-width="2" points="{text}"/>'


def _name(points, place, kind: str, name: str) -> str:
    x, y = place(*points[-1])
    return f'<text class="{kind}" x="{x + 8}" y="{y + (4 if kind == "train" else -8)}">{name}</text>'


def _axes(last: int, high: float, place) -> str:
    """Lines of the grid at round losses, and the first and last step."""
    size = 10 ** math.floor(math.log10(high))
    step = next(size * part for part in (0.1, 0.2, 0.5, 1, 2) if high / (size * part) <= 5)
    parts = []
    for number in range(int(high / step) + 1):
        x, y = place(1, number * step)
        parts.append(f'<line class="axis" x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{number * step:.3g}</text>')
    for at in (1, last):
        x, _ = place(at, 0)
        parts.append(f'<text x="{x}" y="{HEIGHT - 12}" text-anchor="middle">{at}</text>')
    x, _ = place((1 + last) / 2, 0)
    parts.append(f'<text x="{x}" y="{HEIGHT - 12}" text-anchor="middle">steps</text>')
    return "".join(parts)
