"""The quantizer: weights, the levels they are rounded to, and what that costs each group of them.

What is shown is the error of the other weights: an outlier that was put among them is rounded and not counted.
"""

import torch
import traitlets

from .. import plots, quantize
from ..errors import LabError, choose
from ..lowrank import relative_error
from .explorer import Explorer, on_cpu, script, to_base64

QUESTION = (
    "With an outlier of 32 σ and one block for all weights: how many bits does absmax need until the other weights are "
    "kept as well as in 4 bits and blocks of 64?"
)
METHODS = {
    "absmax": (quantize.quantize_absmax, quantize.dequantize_absmax),
    "zero-point": (quantize.quantize_zeropoint, quantize.dequantize_zeropoint),
}
BLOCKSIZES = (64, 128, 256, 512, 1024, 2048)
COUNT, OUTLIER_AT = 2048, 100  # weights shown, and which of them the outlier replaces


class QuantizerExplorer(Explorer):
    """A choice of weights and method, and sliders for bits, block size and the size of one outlier.

    Parameters
    ----------
    weights : dict name -> Tensor of any shape, dtype and device, with 2,048 numbers or more; the first 2,048 are shown
    bits : int, 2 to 8
    blocksize : int, one of 64, 128, … 2048
    method : "absmax" or "zero-point"
    outlier : float >= 0, in units of the weights' root mean square σ; 0 is none

    Attributes
    ----------
    weight, method, bits, blocksize, outlier : as chosen, at every moment

    Raises
    ------
    LabError
        No weights, too few, none that can be read (see `on_cpu`), or a value that is not there.
    """

    _esm = script("quantizer_explorer")
    _moved = ("weight", "method", "bits", "blocksize", "outlier")
    weights = traitlets.List().tag(sync=True)
    blocksizes = traitlets.List(list(BLOCKSIZES)).tag(sync=True)
    outlier_at = traitlets.Int(OUTLIER_AT).tag(sync=True)
    weight = traitlets.Unicode().tag(sync=True)
    method = traitlets.Unicode("absmax").tag(sync=True)
    bits = traitlets.Int(4).tag(sync=True)
    blocksize = traitlets.Int(2048).tag(sync=True)
    outlier = traitlets.Float(0.0).tag(sync=True)

    def __init__(
        self, weights: dict, bits: int = 4, blocksize: int = 2048, method: str = "absmax", outlier: float = 0.0,
        question: str = QUESTION, choices=("5", "6", "7", "8"),
    ):  # fmt: skip
        shown = {name: on_cpu(weight, name, first=COUNT) for name, weight in weights.items()}
        if not weights or any(len(values) < COUNT for values in shown.values()):
            raise LabError(f"QuantizerExplorer needs weights, as {{'a name': tensor}}, with {COUNT:,} numbers or more.")
        self._scales = {name: float(values.abs().max()) or 1.0 for name, values in shown.items()}
        self._weights = shown
        super().__init__(
            weights=[
                {"name": name, "scale": self._scales[name], "values": to_base64(values / self._scales[name])}
                for name, values in shown.items()
            ],
            weight=next(iter(weights)), method=method, bits=bits, blocksize=blocksize, outlier=float(outlier),
            question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("weight", "method", "bits", "blocksize", "outlier")
    def _possible(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "outlier":
            if not 0 <= value < 1000:
                raise LabError(f"outlier={value} is out of range: 0 to 1000 times σ.")
        else:
            allowed = {"weight": self._weights, "method": METHODS, "bits": range(2, 9), "blocksize": BLOCKSIZES}
            choose(name, value, allowed[name])
        return value

    def _values(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights with the outlier among them, and what quantization makes of them; both (2048,), in σ."""
        values = self._weights[self.weight]
        values = values / values.square().mean().sqrt()
        if self.outlier:
            values = values.clone()
            values[OUTLIER_AT] = self.outlier
        to, back = METHODS[self.method]
        return values, back(to(values, self.bits, blocksize=self.blocksize))

    def _counted(self) -> torch.Tensor:
        """Which of the weights count: all but the outlier; bool (2048,)."""
        counted = torch.ones(COUNT, dtype=torch.bool)
        counted[OUTLIER_AT] = not self.outlier
        return counted

    def summary(self) -> str:
        values, rounded = (one[self._counted()] for one in self._values())
        error = relative_error(values[None], rounded[None])
        return (
            f"Quantizer, {self.weight}, {self.bits} bits, {self.method}, blocks of {self.blocksize}, outlier "
            f"{f'{self.outlier:g} σ' if self.outlier else 'none'}: relative error "
            f"{'of the others ' if self.outlier else ''}{error:.2%}, signal to noise "
            f"{quantize.sqnr_db(values, rounded):.1f} dB."
        )

    def figure(self):
        values, rounded = self._values()
        title = self.summary().partition(", ")[2]
        return plots.rounding(values, rounded, title, self.blocksize, counted=self._counted())
