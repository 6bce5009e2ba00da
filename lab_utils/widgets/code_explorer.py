"""The code explorer: sixteen levels to drag, over the weights that are rounded to them."""

import math

import numpy as np
import torch
import traitlets

from .. import nf4, plots
from ..errors import LabError, choose
from .explorer import FOLDER, STYLE, Explorer, on_cpu, script, to_base64
from .values import Switch

QUESTION = (
    "Blocks of 64. Sixteen levels fitted to these very weights, against NF4's, which know nothing of them: "
    "how much lower is their error?"
)
SHOWN = 32_768  # of the weights that are given
BLOCKSIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
FITTED, ZERO_POINT = "Lloyd-Max", "zero-point"


def codes() -> dict[str, torch.Tensor]:
    """The codes that are compared: name -> float32 Tensor (16,) or (15,), ascending in [-1, 1]."""
    int4 = torch.arange(-7, 8) / 7
    return {
        "NF4": nf4.nf4_code(), "AF4": nf4.af4_code(), "E2M1": nf4.e2m1_code(), "FP4": nf4.fp4_code(), "int4": int4,
    }  # fmt: skip


class Levels(traitlets.List):
    """Sixteen finite numbers in [-1, 1]; kept in ascending order."""

    def validate(self, obj, value) -> list[float]:
        try:
            levels = sorted(float(one) for one in value)
        except (TypeError, ValueError) as error:
            raise LabError(f"{self.name}={value!r}: sixteen numbers in [-1, 1] are needed.") from error
        if len(levels) != 16 or not all(math.isfinite(one) and abs(one) <= 1 for one in levels):
            raise LabError(f"{self.name}={levels}: sixteen numbers in [-1, 1] are needed, these are {len(levels)}.")
        return levels


class CodeExplorer(Explorer):
    """Sixteen levels to move by mouse or keyboard, a choice of weights, a slider for the block size.

    Every format costs as many bits: 4 for an index, and 32 per block for its scale (a float32 absmax; a zero-point
    has a float16 step and a float16 smallest weight instead). Levels of one's own also have to be stored: sixteen
    float32 per matrix.

    Parameters
    ----------
    weights : dict name -> Tensor of any shape, dtype and device; the first 32,768 numbers are shown
    code : the levels to begin with: "even", "NF4", "AF4", "E2M1", "FP4" (bitsandbytes'), "int4" or "Lloyd-Max"
    blocksize : int, one of 16, 32, … 4096
    weight : str, the name to begin with; by default the first

    Attributes
    ----------
    levels : list of 16 floats in [-1, 1], ascending
    level : int, 1 to 16, the chosen one
    compared : bool, whether the errors of the other codes are shown
    weight, blocksize : as chosen, at every moment

    Raises
    ------
    LabError
        No weights, none that can be read (see `on_cpu`), or a name, level or block size that is not there.
    """

    _esm = script("levels", "code_explorer")
    _css = STYLE + (FOLDER / "code.css").read_text(encoding="utf-8")
    _moved = ("weight", "blocksize", "levels", "level", "compared")
    weights = traitlets.List().tag(sync=True)
    codes = traitlets.Dict().tag(sync=True)
    blocksizes = traitlets.List(list(BLOCKSIZES)).tag(sync=True)
    weight = traitlets.Unicode().tag(sync=True)
    blocksize = traitlets.Int(64).tag(sync=True)
    levels = Levels(nf4.even_code().tolist()).tag(sync=True)
    level = traitlets.Int(9).tag(sync=True)
    compared = Switch().tag(sync=True)

    def __init__(
        self, weights: dict, code: str = "even", blocksize: int = 64, *, weight: str | None = None,
        question: str = QUESTION, choices=("less than a tenth", "about a quarter", "about half"),
    ):  # fmt: skip
        if not weights:
            raise LabError("CodeExplorer needs at least one layer's weights, as {'a name': tensor}.")
        first = {name: on_cpu(one, name, first=SHOWN) for name, one in weights.items()}
        self._counts = {
            name: int(one.numel() if hasattr(one, "numel") else np.size(one)) for name, one in weights.items()
        }
        sent = {name: (one / one.abs().max().clamp_min(1e-30)).double() for name, one in first.items()}
        # what the browser reads of them: whole numbers of steps
        self._weights = {name: ((one * 32767).round() / 32767).float() for name, one in sent.items()}
        super().__init__(
            weights=[
                {"name": name, "values": to_base64(one), "count": self._counts[name]} for name, one in sent.items()
            ],
            codes={name: values.tolist() for name, values in codes().items()},
            weight=next(iter(weights)) if weight is None else weight,
            blocksize=blocksize, question=question, choices=list(choices),
        )  # fmt: skip
        self.copy(code)
        self.start = {name: getattr(self, name) for name in self._moved}

    @traitlets.validate("weight", "blocksize", "level")
    def _known(self, proposal):
        name = proposal["trait"].name
        allowed = {"weight": self._weights, "blocksize": BLOCKSIZES, "level": range(1, 17)}[name]
        choose(name, proposal["value"], allowed)
        return proposal["value"]

    def copy(self, code: str) -> None:
        """Make a code's levels one's own: "even", "NF4", "AF4", "E2M1", "FP4", "int4" or "Lloyd-Max".

        E2M1 and int4 have fifteen: their 0 is taken twice.
        """
        choose("code", code, ("even", *codes(), FITTED))
        if code == FITTED:
            levels = self._fitted()
        else:
            levels = nf4.even_code() if code == "even" else codes()[code]
        self.levels = levels.tolist() + [0.0] * (16 - len(levels))

    def _fitted(self) -> torch.Tensor:
        return nf4.lloyd_max(self._weights[self.weight], self.blocksize)

    def _error(self, levels: torch.Tensor) -> float:
        return nf4.levels_error(self._weights[self.weight], levels, self.blocksize)

    def _yours(self) -> float:
        return self._error(torch.tensor(self.levels, dtype=torch.float64))

    def errors(self) -> dict[str, float]:
        """Relative error on the weights and blocks on screen: "yours", each code's, "zero-point" and "Lloyd-Max"."""
        return {
            "yours": self._yours(), **{name: self._error(code) for name, code in codes().items()},
            ZERO_POINT: nf4.zeropoint_error(self._weights[self.weight], self.blocksize),
            FITTED: self._error(self._fitted()),
        }  # fmt: skip

    def bits(self) -> dict[str, float]:
        """Bits per weight: "index", "scale", "levels" (those of one's own, stored once), and "total" of the three."""
        parts = {"index": 4.0, "scale": 32 / self._size(), "levels": 16 * 32 / self._counts[self.weight]}
        return {**parts, "total": sum(parts.values())}

    def _size(self) -> int:
        return min(self.blocksize, self._weights[self.weight].numel())

    def _shares(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The weights divided by the largest of their block (n,); of each level the share of them and of the error."""
        divided, largest = nf4.divided(self._weights[self.weight], self.blocksize)
        levels = torch.tensor(self.levels, dtype=torch.float64)
        index = torch.bucketize(divided, (levels[1:] + levels[:-1]) / 2)
        missed = torch.zeros(16, dtype=torch.float64)
        missed.index_add_(0, index, ((divided - levels[index]) * largest).square())
        used = torch.bincount(index, minlength=16) / len(divided)
        return divided, used, missed / missed.sum().clamp_min(1e-300)

    def summary(self) -> str:
        bits, at = self.bits(), self.level - 1
        _, used, missed = self._shares()
        place = f"{self.levels[at]:.3f}".replace("-", "−")
        told = (
            f"Code explorer, yours on {self.weight}, blocks of {self._size()}: relative error {self._yours():.2%} at "
            f"{_thousandths(bits['total'])} bits per weight. Level {self.level}, at {place}, holds {used[at]:.1%} of "
            f"the weights and makes {missed[at]:.1%} of the squared error."
        )
        if not self.compared:
            return told
        others = sorted((error, name) for name, error in self.errors().items() if name != "yours")
        return f"{told} With scales of as many bits: {', '.join(f'{name} {error:.2%}' for error, name in others)}."

    def figure(self):
        divided, used, _ = self._shares()
        title = f"{self.weight}, blocks of {self._size()}, sixteen levels: relative error {self._yours():.2%}"
        return plots.code_use(divided, self.levels, used.tolist(), title)


def _thousandths(value: float) -> str:
    """Three decimals, halves up: what JavaScript's toFixed(3) writes of a sum that float64 holds exactly."""
    return f"{math.floor(value * 1000 + 0.5) / 1000:.3f}"
