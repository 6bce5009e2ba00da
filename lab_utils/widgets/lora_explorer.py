"""What LoRA adds: W, B · A and their sum, at every recorded step of a training."""

import torch
import traitlets

from .. import plots
from ..errors import LabError
from .explorer import Explorer, encode, on_cpu, script

QUESTION = "Before the first step: how many entries of W + scaling · B · A differ from W? And after the first step?"


class LoraExplorer(Explorer):
    """Sliders for the training step and for alpha.

    Parameters
    ----------
    weight : Tensor, shape (out, in), the frozen W; this and the others of any dtype and device
    history : list of (A, B), Tensors of shapes (rank, in) and (out, rank), one pair a recorded step
    alpha : float > 0, the one trained with
    losses : list of float, as long as `history`, or nothing

    Attributes
    ----------
    step : int, index into `history`
    alpha : float; moving it rescales the update of the finished training, it does not train again

    Raises
    ------
    LabError
        Shapes that do not fit, no history, or a tensor that cannot be read (see `on_cpu`).
    """

    _esm = script("lora_explorer")
    _moved = ("step", "alpha")
    weight, lora_A, lora_B = (traitlets.Unicode().tag(sync=True) for _ in range(3))
    sizes, scales = (traitlets.Dict().tag(sync=True) for _ in range(2))
    losses = traitlets.List().tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    step = traitlets.Int().tag(sync=True)
    alpha = traitlets.Float().tag(sync=True)

    def __init__(
        self, weight, history, alpha: float, losses=(), question: str = QUESTION,
        choices=("none, then nearly all", "none, then a few rows", "all, then all"),
    ):  # fmt: skip
        if not history or (losses and len(losses) != len(history)):
            raise LabError(f"LoraExplorer needs one loss a recorded step: {len(history)} steps, {len(losses)} losses.")
        self._weight = on_cpu(weight, "weight")
        self._A, self._B = (torch.stack([on_cpu(pair[side], "AB"[side]) for pair in history]) for side in (0, 1))
        (rows, columns), rank = self._weight.shape, self._A.shape[1]
        if self._A.shape[1:] != (rank, columns) or self._B.shape[1:] != (rows, rank):
            raise LabError(
                f"A {tuple(self._A.shape[1:])} and B {tuple(self._B.shape[1:])} do not fit W ({rows}, {columns}): "
                f"A must be (rank, {columns}) and B ({rows}, rank)."
            )
        scales = {
            name: float(values.abs().max()) or 1.0
            for name, values in (("weight", self._weight), ("lora_A", self._A), ("lora_B", self._B))
        }
        super().__init__(
            weight=encode(self._weight / scales["weight"]), lora_A=encode(self._A / scales["lora_A"]),
            lora_B=encode(self._B / scales["lora_B"]), scales=scales, losses=list(losses), steps=len(history),
            sizes={"rows": rows, "columns": columns, "rank": rank, "limit": self._limit()},
            step=0, alpha=float(alpha), question=question, choices=list(choices),
        )  # fmt: skip

    def _limit(self) -> float:
        """The value that is painted in full colour: three times W's root mean square."""
        return 3 * float(self._weight.square().mean().sqrt())

    @traitlets.validate("step")
    def _recorded(self, proposal):
        if not 0 <= proposal["value"] < max(self.steps, 1):
            raise LabError(f"step={proposal['value']} was not recorded: 0 to {self.steps - 1}.")
        return proposal["value"]

    def _delta(self) -> torch.Tensor:
        """The update at the chosen step and alpha, (out, in)."""
        return self.alpha / self._A.shape[1] * (self._B[self.step] @ self._A[self.step])

    def summary(self) -> str:
        delta = self._delta()
        size = float(delta.norm() / self._weight.norm())
        return (
            f"What LoRA adds, step {self.step}, scaling {self.alpha / self._A.shape[1]:.3g}: "
            f"{int((delta != 0).sum()):,} of {delta.numel():,} entries differ from W; "
            f"the update is {size:.1%} of W in size."
        )

    def figure(self):
        delta, name = self._delta(), f"{self.alpha / self._A.shape[1]:.3g} · B · A"
        parts = {"W, frozen": self._weight, name: delta, "W + scaling · B · A": self._weight + delta}
        return plots.matrices(parts, self._limit())
