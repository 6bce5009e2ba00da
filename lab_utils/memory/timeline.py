"""One training step from beginning to end: which part takes how many bytes when, by the estimate of its peak.

The order is that of the step, the widths are multiplications and not seconds: a layer's forward pass is 1; its backward
pass is 1 where its weight is frozen, for the gradient of its input, and 2 where the weight is trained too; with
checkpointing 1 more. Each layer's backward pass is drawn at the moment at which it takes most. What a layer takes for
a moment in the forward pass is left out: it is less than in the backward pass.
"""

from dataclasses import dataclass

from ..errors import LabError, choose, flag
from .estimates import MemoryEstimate
from .step import METHODS

PHASES = ("forward", "backward", "optimizer")
OPTIMIZER_SHARE = 0.25  # of the forward pass's width: drawn wide enough to be seen


@dataclass(frozen=True)
class Moment:
    """What is in memory at one moment of a step.

    Attributes
    ----------
    at : float >= 0, from the beginning of the step, in forward passes of one layer
    phase : "forward", "backward" or "optimizer"
    parts : dict part -> bytes, as in `MemoryEstimate.parts`
    """

    at: float
    phase: str
    parts: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def timeline(one: MemoryEstimate, method: str, checkpointing: bool = False) -> list[Moment]:
    """The moments of a step, from the second step on: the optimizer's states are there.

    Parameters
    ----------
    one : MemoryEstimate, of `memory.estimate`
    method : "full", "lora" or "qlora"
    checkpointing : bool; both as the estimate was made with

    Returns
    -------
    list of Moment, in order. The largest `total_bytes` among them is that of the estimate.

    Raises
    ------
    LabError
        An unknown method, or an estimate that says nothing of single layers.
    """
    method, checkpointing = choose("method", method, METHODS), flag("checkpointing", checkpointing)
    if not one.layers:
        raise LabError("This estimate says nothing of single layers: pass one of memory.estimate.")
    begins, ends = one.both_moments().values()
    always = {name: begins[name] for name in ("weights", "adapter", "optimizer")}
    found, layers = [], one.layers

    def add(at: float, phase: str, gradients: int, activations: int, transients: int) -> None:
        parts = {"gradients": gradients, "activations": activations, "transients": transients}
        found.append(Moment(at, phase, always | parts))

    for layer in range(layers + 1):
        add(layer, "forward", 0, layer * one.kept_bytes, 0)
    found.append(Moment(layers + 1, "backward", begins))
    width = (2 if method == "full" else 1) + checkpointing
    for done in range(layers):
        left = (layers - done) * one.kept_bytes
        add(layers + 2 + width * done, "backward", one.head_bytes + done * one.gradient_bytes, left, one.work_bytes)
    end = layers + 2 + width * layers
    found.append(Moment(end, "backward", ends | {"transients": one.end_bytes}))
    add(end + 1, "optimizer", one.gradients_bytes, 0, one.update_bytes)
    add(end + 1 + OPTIMIZER_SHARE * layers, "optimizer", one.gradients_bytes, 0, one.update_bytes)
    add(end + 2 + OPTIMIZER_SHARE * layers, "optimizer", 0, 0, 0)
    return found
