"""Overflow on demand: the next steps' gradients are infinite to GradScaler, as large ones are in float16."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import whole


class Left:
    """How many steps are still to overflow."""

    steps = 0


@contextmanager
def overflowing(steps: int = 1) -> Iterator[None]:
    """A context in which GradScaler finds an infinity in the gradients of the next `steps` updates.

    The gradients themselves stay as they are. Where no scaler unscales them, as in bfloat16, nothing happens.

    Parameters
    ----------
    steps : int >= 1
    """
    before, Left.steps = Left.steps, whole("steps", steps)
    try:
        yield
    finally:
        Left.steps = before
