"""The frame of every explorer: it draws in the browser, so it also lives on a page with no kernel."""

import base64
import weakref
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from ..errors import LabError

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "explorer.css").read_text(encoding="utf-8")
_explorers = weakref.WeakSet()  # all that were made and are still in use


def script(*names: str) -> str:
    """The module text of an explorer: the shared part, then each of `names` with .js."""
    return "\n".join((FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in ("explorer", *names))


def on_cpu(values, name: str, first: int | None = None):
    """What an explorer computes with, of numbers in any dtype on any device.

    Parameters
    ----------
    values : Tensor, array or nested list of numbers
    name : str, whose they are, for the message
    first : int, take so many of them only, in reading order

    Returns
    -------
    float32 Tensor on the CPU, without gradient; (first,) or the shape of `values`

    Raises
    ------
    LabError
        They are not numbers, are on the device "meta", which has none, or are the codes of a quantized weight.
    """
    import torch

    if any(getattr(values, mark, None) is not None for mark in ("quant_state", "CB")):  # bitsandbytes' 4 and 8 bits
        raise LabError(
            f"{name} holds quantized codes, not weights: take the layer of a base loaded with quantization='none'."
        )
    try:
        values = torch.as_tensor(values).detach()
        return (values if first is None else values.flatten()[:first]).cpu().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise LabError(f"{name} cannot be read as numbers: {error}") from error


def to_base64(values) -> str:
    """Numbers in [-1, 1] (a tensor or array of any shape) as base64 of int16, row by row; a step is 1/32767."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    numbers = np.clip(np.asarray(values, dtype=np.float64), -1, 1)
    return base64.b64encode(np.round(numbers * 32767).astype("<i2").tobytes()).decode("ascii")


class Explorer(anywidget.AnyWidget):
    """Base of the explorers. What the reader sets is a trait, so Python can read it: `explorer.rank`.

    A subclass names in `_moved` the traits that the reader moves, and gives `summary()` (one sentence) and
    `figure()` (a matplotlib Figure of the present state, for places where no widget is drawn).

    Attributes
    ----------
    question : str, the prediction to make first
    choices : list of str, what can be predicted
    guess : str, what the reader chose; "" is nothing yet
    predict_first : bool, hide the result while there is a question and nobody has answered it
    """

    _css = STYLE
    _moved: tuple[str, ...] = ()
    _predict_first = False  # what a new explorer starts with
    question = traitlets.Unicode().tag(sync=True)
    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    guess = traitlets.Unicode().tag(sync=True)
    predict_first = traitlets.Bool().tag(sync=True)
    start = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits):
        super().__init__(**traits)
        self.start = {name: getattr(self, name) for name in self._moved}
        _explorers.add(self)

    @traitlets.default("predict_first")
    def _as_all_others(self) -> bool:
        return Explorer._predict_first

    @property
    def waits(self) -> bool:
        """Whether the result is hidden now, until `guess` is set."""
        return self.predict_first and bool(self.choices) and not self.guess

    def reset(self) -> None:
        """Back to where it was at first, as its button does."""
        for name, value in self.start.items():
            setattr(self, name, value)

    def summary(self) -> str:
        """What is seen, in a sentence."""
        raise NotImplementedError

    def figure(self):
        """What is seen, as a Figure."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options):
        """The widget, and its picture and sentence for whatever cannot show a widget."""
        from ..plots import png

        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        still = {"image/png": base64.b64encode(png(self.figure())).decode("ascii"), "text/plain": self.summary()}
        return {**data, **still}, metadata


def reset_all() -> None:
    """Every explorer of this notebook back to where it was at first, with its question open again."""
    for explorer in list(_explorers):
        explorer.reset()
        explorer.guess = ""


def predict_first(on: bool = True) -> None:
    """Whether the explorers of this notebook, those still to be made too, hide their result until a guess is made.

    `explorer.predict_first = True` does it for one.
    """
    Explorer._predict_first = bool(on)
    for explorer in list(_explorers):
        explorer.predict_first = bool(on)
