"""The merge explorer: how much of an update arrives when W + ΔW is rounded, by the levels that W lies on."""

import base64

import torch
import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lowrank import best_rank_r
from ..merging import FORMATS, round_to, what_is_left
from ..nf4 import fp4_code, nf4_code
from .explorer import Explorer, on_cpu, script

QUESTION = (
    "W lies on NF4's levels. Round to Q4_0, and make ΔW smaller, from 10 % of W to 0.1 %. "
    "The share of ΔW that arrives …"
)
CHOICES = ("falls to 0", "stays near 1", "rises above 1")
BLOCK, SHOWN, SAMPLE = 64, 32, 2**14  # weights of the largest block; drawn; looked at, at most
GRIDS = ("NF4", "FP4", "Q4_0", "Q4_1", "Q8_0", "int8")
INTO = FORMATS[:-1]
PERCENTS = (
    0.1, 0.13, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1, 1.3, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8,
    10, 13, 16, 20, 25, 32, 40, 50, 63, 80, 100,
)  # fmt: skip


class MergeExplorer(Explorer):
    """Two choices, the levels that W lies on and the format of the result, and a slider for the size of ΔW.

    Parameters
    ----------
    weight : Tensor of any dtype and device, shape (out, in), with a multiple of 64 numbers in a row; taken in bfloat16,
        as models are shipped. Looked at are as many of its rows, spread evenly, as hold 16,384 numbers.
    update : Tensor, shape of `weight`, not zero: ΔW of a fine-tune; its best fit of rank `rank` is taken
    rank : int >= 1
    grid : str, of `GRIDS`: W is rounded to it first
    into : str, of `INTO`: W + ΔW is rounded to it
    percent : float, one of `PERCENTS`, ‖ΔW‖ in percent of ‖W‖, both of the sample
    recorded : dict (grid, into) -> str, what a whole model did after such a merge, to be said beside

    Attributes
    ----------
    grid, into, percent : as chosen, at every moment
    real_percent : float, ‖update‖ in percent of ‖weight‖

    Raises
    ------
    LabError
        Shapes that do not fit, tensors that cannot be read (see `on_cpu`), or a value that is not there.
    """

    _esm = script("merge_explorer")
    _moved = ("grid", "into", "percent")
    weight = traitlets.Unicode().tag(sync=True)
    direction = traitlets.Dict().tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)
    levels = traitlets.Dict({"NF4": nf4_code().tolist(), "FP4": fp4_code().tolist()}).tag(sync=True)
    formats = traitlets.List(list(INTO)).tag(sync=True)
    grids = traitlets.List(list(GRIDS)).tag(sync=True)
    percents = traitlets.List(list(PERCENTS)).tag(sync=True)
    real_percent = traitlets.Float().tag(sync=True)
    recorded = traitlets.Dict().tag(sync=True)
    grid = traitlets.Unicode().tag(sync=True)
    into = traitlets.Unicode().tag(sync=True)
    percent = traitlets.Any().tag(sync=True)  # a whole number stays one

    def __init__(
        self, weight, update, rank: int = 8, grid: str = "NF4", into: str = "NF4", percent: float = 1.6, recorded=None,
        question: str = QUESTION, choices=CHOICES,
    ):  # fmt: skip
        weight, update = on_cpu(weight, "weight"), on_cpu(update, "update")
        if weight.dim() != 2 or weight.shape[1] % BLOCK or update.shape != weight.shape or not bool(update.any()):
            raise LabError(
                f"MergeExplorer needs a weight (out, in), in a multiple of {BLOCK}, and an update as large that is not "
                f"zero: weight has shape {tuple(weight.shape)}, update {tuple(update.shape)}."
            )
        rows = max(1, min(len(weight), SAMPLE // weight.shape[1]))
        sample = torch.linspace(0, len(weight) - 1, rows).round().long()
        shipped = weight[sample].bfloat16()
        self._weight = shipped.float().view(-1)
        B, A = best_rank_r(update, rank)
        B = float(self._weight.double().norm()) / float((B[sample].double() @ A.double()).norm()) * B[sample]
        self._direction = (B.double() @ A.double()).float().view(-1)  # as large as W
        choose("percent", percent, PERCENTS)
        super().__init__(
            weight=_bytes(shipped.view(torch.int16), "<i2"),
            direction={"B": _bytes(B, "<f4"), "A": _bytes(A, "<f4")},
            sizes={
                "rows": rows, "columns": weight.shape[1], "rank": rank,
                "shown": _drawn(self._weight, self._direction, percent),
            },
            real_percent=100 * float(update.norm() / weight.norm()),
            recorded={f"{a} to {b}": text for (a, b), text in (recorded or {}).items()},
            grid=grid, into=into, percent=percent, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("grid", "into", "percent")
    def _known(self, proposal):
        name = proposal["trait"].name
        choose(name, proposal["value"], {"grid": GRIDS, "into": INTO, "percent": PERCENTS}[name])
        return proposal["value"]

    def _sides(self, percent: float) -> tuple[torch.Tensor, torch.Tensor]:
        """W on its grid, and ΔW of that size."""
        return round_to(self._weight, self.grid).values, percent / 100 * self._direction

    def results(self, percent: float | None = None) -> dict:
        """What `merging.what_is_left` finds in the sample, at the slider's size or another: kept, noise, changed."""
        left = what_is_left(*self._sides(percent or self.percent), self.into)
        return {"kept": left.kept, "noise": left.noise, "changed": round(left.changed * self._weight.numel())}

    def summary(self) -> str:
        found, count = self.results(), self._weight.numel()
        recorded = self.recorded.get(f"{self.grid} to {self.into}", "")
        return (
            f"W on {self.grid}'s levels, an update of {self.percent:g} % of W, rounded to {self.into}: "
            f"{found['kept']:.1%} of the update arrives, with an error of {found['noise']:.2%} of W; "
            f"{found['changed']:,} of {count:,} codes change." + (f" {recorded}" if recorded else "")
        )

    def figure(self):
        before, delta = self._sides(self.percent)
        old, new = round_to(before, self.into), round_to(before + delta, self.into)
        here = slice(self.sizes["shown"], self.sizes["shown"] + SHOWN)
        block = {
            "before": before[here], "wanted": (before + delta)[here], "after": new.values[here],
            "changed": (new.codes != old.codes)[here],
        }  # fmt: skip
        curve = [self.results(percent) for percent in PERCENTS]
        return plots.merge_survival(
            block, PERCENTS, [one["changed"] / self._weight.numel() for one in curve],
            [one["kept"] for one in curve], self.percent, f"W on {self.grid}'s levels, rounded to {self.into}",
            real=self.real_percent,
        )  # fmt: skip


def _drawn(weight: torch.Tensor, direction: torch.Tensor, percent: float) -> int:
    """Where a block begins whose first weights show what happens to all of them at `percent`.

    They are lopsided: no small ΔW changes which end is the larger, and so the scale. And from NF4 to Q4_0 at least as
    many of their codes change as in the average block, rounded down.
    """
    parts = weight.view(-1, BLOCK)[:, :SHOWN]
    lopsided = (parts.amax(1) + parts.amin(1)).abs() / parts.abs().amax(1).clamp(min=1e-38)
    before = round_to(weight, "NF4").values
    moved = round_to(before + percent / 100 * direction, "Q4_0").codes != round_to(before, "Q4_0").codes
    count = moved.view(-1, BLOCK)[:, :SHOWN].sum(1)
    return BLOCK * int(lopsided.masked_fill(count < count.float().mean().floor(), -1).argmax())


def _bytes(values: torch.Tensor, kind: str) -> str:
    """Numbers row by row as base64: kind "<i2" or "<f4"."""
    return base64.b64encode(values.contiguous().numpy().astype(kind).tobytes()).decode("ascii")
