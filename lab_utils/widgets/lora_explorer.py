"""What LoRA adds: W, B · A and their sum, and what the model does with them, at every measured step and alpha."""

import math

import torch
import traitlets

from .. import plots
from ..errors import LabError, choose
from .explorer import STYLE, Explorer, on_cpu, script, to_base64

QUESTION = "Before the first step: how many entries of W + scaling · B · A differ from W? And after the first step?"
INK = ".lab-chart .line.ink { stroke: var(--lab-text); } .lab-chart .mark.ink { fill: var(--lab-text); }"  # the loss
FACTORS = (0, 0.25, 0.5, 1, 2, 4, 8)  # of the alpha trained with, where nothing was measured


class LoraExplorer(Explorer):
    """Sliders for the training step and for alpha.

    Moving alpha makes the adapter of the chosen step weaker or stronger; it does not train again. What the model then
    does is shown where it was measured, so with `losses` or `shares` alpha takes the measured values only.

    Parameters
    ----------
    weight : Tensor, shape (out, in), the frozen W; this and the others of any dtype and device
    history : list of (A, B), Tensors of shapes (rank, in) and (out, rank), one pair a recorded step
    alpha : float > 0, the one trained with
    losses : dict alpha -> list of float, one a recorded step; or such a list, measured at `alpha` alone
    steps : list of int, the numbers of the recorded steps, ascending; default 0, 1, 2, …
    shares : dict label -> (dict alpha -> list of float in [0, 1]), up to two labels: images read right

    Attributes
    ----------
    step : int, one of `steps`
    alpha : float, one of `alphas`

    Raises
    ------
    LabError
        Shapes that do not fit, no history, a table of losses or shares with a gap or a number that is none, or a
        tensor that cannot be read (see `on_cpu`).
    """

    _esm = script("lora_explorer")
    _css = STYLE + INK
    _moved = ("step", "alpha")
    weight, lora_A, lora_B = (traitlets.Unicode().tag(sync=True) for _ in range(3))
    sizes, scales, shares = (traitlets.Dict().tag(sync=True) for _ in range(3))
    steps, alphas, losses = (traitlets.List().tag(sync=True) for _ in range(3))
    step = traitlets.Int().tag(sync=True)
    alpha = traitlets.Float().tag(sync=True)

    def __init__(
        self, weight, history, alpha: float, losses=(), *, steps=None, shares=None, question: str = QUESTION,
        choices=("none, then nearly all", "none, then a few rows", "all, then all"),
    ):  # fmt: skip
        self._weight = on_cpu(weight, "weight")
        steps = list(range(len(history)) if steps is None else steps)
        if not history or len(steps) != len(history) or steps != sorted(set(steps)):
            raise LabError(f"LoraExplorer needs one number a recorded step, ascending: {len(history)} steps, {steps}.")
        self._A, self._B = (torch.stack([on_cpu(pair[side], "AB"[side]) for pair in history]) for side in (0, 1))
        self._fit()
        tables = {"losses": losses if isinstance(losses, dict) else {alpha: losses}} if losses else {}
        alphas, grids = _grids({**tables, **(shares or {})}, alpha, steps)
        scales = {
            name: float(values.abs().max()) or 1.0
            for name, values in (("weight", self._weight), ("lora_A", self._A), ("lora_B", self._B))
        }
        (rows, columns), rank = self._weight.shape, self._A.shape[1]
        super().__init__(
            weight=to_base64(self._weight / scales["weight"]), lora_A=to_base64(self._A / scales["lora_A"]),
            lora_B=to_base64(self._B / scales["lora_B"]), scales=scales, losses=grids.pop("losses", []), shares=grids,
            steps=steps, alphas=alphas, step=steps[0], alpha=float(alpha), question=question, choices=list(choices),
            sizes={"rows": rows, "columns": columns, "rank": rank, "limit": self._limit()},
        )  # fmt: skip

    def _fit(self) -> None:
        """Raise a LabError unless A and B make an update of W."""
        (rows, columns), rank = self._weight.shape, self._A.shape[1]
        if self._A.shape[1:] != (rank, columns) or self._B.shape[1:] != (rows, rank):
            raise LabError(
                f"A {tuple(self._A.shape[1:])} and B {tuple(self._B.shape[1:])} do not fit W ({rows}, {columns}): "
                f"A must be (rank, {columns}) and B ({rows}, rank)."
            )

    def _limit(self) -> float:
        """The value that is painted in full colour: three times W's root mean square."""
        return 3 * float(self._weight.square().mean().sqrt())

    @traitlets.validate("step")
    def _recorded(self, proposal):
        if self.steps:
            choose("step", proposal["value"], self.steps)
        return proposal["value"]

    @traitlets.validate("alpha")
    def _measured(self, proposal):
        if self.alphas:
            choose("alpha", proposal["value"], self.alphas)
        return proposal["value"]

    def _now(self) -> int:
        """The place of the chosen step in the history."""
        return self.steps.index(self.step)

    def _delta(self) -> torch.Tensor:
        """The update at the chosen step and alpha, (out, in)."""
        return self.alpha / self._A.shape[1] * (self._B[self._now()] @ self._A[self._now()])

    def shown(self) -> dict[str, float]:
        """What is measured at the chosen step and alpha: "loss", if there is one, and the share of every label."""
        at, now = self.alphas.index(self.alpha), self._now()
        loss = {"loss": self.losses[at][now]} if self.losses else {}
        return {**loss, **{label: grid[at][now] for label, grid in self.shares.items()}}

    def summary(self) -> str:
        delta = self._delta()
        size = float(delta.norm() / self._weight.norm())
        shown = self.shown()
        measured = [f"loss {shown.pop('loss'):.2f}"] if "loss" in shown else []
        measured += [f"{label} {share:.1%} right" for label, share in shown.items()]
        return (
            f"What LoRA adds, step {self.step}, alpha {self.alpha:g}, scaling {self.alpha / self._A.shape[1]:.3g}: "
            + (f"{', '.join(measured)}; " if measured else "")
            + f"the update is {size:.1%} of W in size, {int((delta != 0).sum()):,} of {delta.numel():,} "
            "entries differ from W."
        )

    def figure(self):
        delta, name = self._delta(), f"{self.alpha / self._A.shape[1]:.3g} · B · A"
        parts = {"W, frozen": self._weight, name: delta, f"W + {name}": self._weight + delta}
        return plots.matrices(parts, self._limit())


def _grids(tables: dict[str, dict], alpha: float, steps: list[int]) -> tuple[list[float], dict[str, list]]:
    """The alphas that can be chosen, ascending, with the one trained with, and each table as rows of them."""
    if not tables:
        return sorted(float(alpha * factor) for factor in FACTORS), {}
    alphas = sorted(float(one) for one in next(iter(tables.values())))
    grids = {}
    for name, table in tables.items():
        rows = {float(one): [float(value) for value in row] for one, row in table.items()}
        if sorted(rows) != alphas or float(alpha) not in rows:
            raise LabError(f"LoraExplorer: {name} has the alphas {sorted(rows)}; {alphas} with {alpha:g} are needed.")
        for one, row in rows.items():
            if len(row) != len(steps):
                what = "losses" if name == "losses" else f"shares of {name}"
                raise LabError(f"LoraExplorer: {len(row)} {what} at alpha {one:g}, but {len(steps)} steps.")
            if not all(map(math.isfinite, row)):
                raise LabError(f"LoraExplorer: {name} at alpha {one:g} has a number that is not finite.")
        grids[name] = [rows[one] for one in alphas]
    return alphas, grids
