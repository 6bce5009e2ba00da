"""The code explorer: sixteen numbers, and the weights that are rounded to them."""

import torch
import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lowrank import relative_error
from ..nf4 import af4_code, dequantize_4bit, e2m1_code, fp4_code, nf4_code, quantize_4bit
from .explorer import Explorer, encode, on_cpu, script

QUESTION = (
    "Which of the codes has the smallest error on real weights in blocks of 64? "
    "By how much does it beat the evenly spaced one?"
)
SHOWN = 16_384  # of the weights that are given
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


def codes() -> dict[str, torch.Tensor]:
    """The codes that are compared: name -> float32 Tensor (16,) or (15,), ascending in [-1, 1]."""
    even = torch.arange(-7, 8) / 7
    return {"int4": even, "NF4": nf4_code(), "AF4": af4_code(), "E2M1": e2m1_code(), "FP4": fp4_code()}


class CodeExplorer(Explorer):
    """A choice of weights and codes, and a slider for the block size.

    Parameters
    ----------
    weights : dict name -> Tensor of any shape, dtype and device; the first 16,384 numbers are shown
    code : "int4" (evenly spaced), "NF4", "AF4", "E2M1" or "FP4" (bitsandbytes')
    blocksize : int, one of 32, 64, … 4096

    Attributes
    ----------
    weight, code, blocksize : as chosen, at every moment

    Raises
    ------
    LabError
        No weights, none that can be read (see `on_cpu`), or a name or block size that is not there.
    """

    _esm = script("code_explorer")
    _moved = ("weight", "code", "blocksize")
    weights = traitlets.List().tag(sync=True)
    codes = traitlets.Dict().tag(sync=True)
    blocksizes = traitlets.List(list(BLOCKSIZES)).tag(sync=True)
    weight = traitlets.Unicode().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    blocksize = traitlets.Int(64).tag(sync=True)

    def __init__(
        self, weights: dict, code: str = "int4", blocksize: int = 64, question: str = QUESTION,
        choices=("NF4, by a fifth", "NF4, by half", "FP4"),
    ):  # fmt: skip
        if not weights:
            raise LabError("CodeExplorer needs at least one layer's weights, as {'a name': tensor}.")
        shown = {name: on_cpu(weight, name, first=SHOWN) for name, weight in weights.items()}
        self._weights = {name: values / values.abs().max().clamp_min(1e-30) for name, values in shown.items()}
        super().__init__(
            weights=[{"name": name, "values": encode(values)} for name, values in self._weights.items()],
            codes={name: values.tolist() for name, values in codes().items()},
            weight=next(iter(weights)), code=code, blocksize=blocksize, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("weight", "code", "blocksize")
    def _known(self, proposal):
        name = proposal["trait"].name
        choose(name, proposal["value"], {"weight": self._weights, "code": codes(), "blocksize": BLOCKSIZES}[name])
        return proposal["value"]

    def _rounded(self, code: str) -> torch.Tensor:
        """The weights on screen, rounded to one of the codes."""
        values = self._weights[self.weight]
        if code in ("NF4", "FP4"):
            return dequantize_4bit(quantize_4bit(values, blocksize=self.blocksize, quant_type=code.lower()))
        return torch.cat([_round_block(block, codes()[code]) for block in values.split(self.blocksize)])

    def errors(self) -> dict[str, float]:
        """Relative error of each code on the weights and blocks on screen."""
        values = self._weights[self.weight]
        return {code: relative_error(values[None], self._rounded(code)[None]) for code in codes()}

    def summary(self) -> str:
        errors = self.errors()
        told = ", ".join(f"{code} {error:.2%}" for code, error in errors.items())
        return (
            f"Code explorer, {self.weight}, {self.code}, blocks of {self.blocksize}: relative error "
            f"{errors[self.code]:.2%}. All codes: {told}."
        )

    def figure(self):
        size = min(self.blocksize, self._weights[self.weight].numel())
        blocks = self._weights[self.weight].split(size)
        shares = torch.cat([block / block.abs().max().clamp_min(1e-30) for block in blocks])
        code = codes()[self.code]
        used = torch.bincount(torch.bucketize(shares, (code[1:] + code[:-1]) / 2), minlength=len(code)) / len(shares)
        return plots.code_use(shares, code.tolist(), used.tolist(), f"{self.weight}, {self.code}, blocks of {size}")


def _round_block(block: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """A block's weights, each replaced by the nearest value of a code times the block's largest |weight|."""
    largest = block.abs().max().clamp_min(1e-30)
    return code[torch.bucketize(block / largest, (code[1:] + code[:-1]) / 2)] * largest
