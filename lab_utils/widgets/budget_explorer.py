"""The memory budget: will a training step fit on a GPU, and what to change if not."""

import traitlets

from .. import plots
from ..counts import ARCHITECTURES
from ..errors import choose
from ..memory import METHODS, MemoryEstimate, advice, estimate
from ..memory.budget import GIB, GPUS, fits, room_bytes
from .explorer import Explorer, script
from .values import Count, Switch, Word, three

QUESTION = (
    "Llama-2-7B, QLoRA, one example of 512 tokens: will a step fit on a T4 with 16 GB? "
    "And full fine-tuning on an A100 with 80 GB?"
)
NAMES = ("model", "method", "gpu", "rank", "batch_size", "sequence_length", "checkpointing")


class BudgetExplorer(Explorer):
    """Choices of model, method and GPU, sliders for rank, batch and length, and a tick for checkpointing.

    Python estimates at every move; the peak is that of a step on CUDA (`lab_utils.memory.estimate`).

    Parameters
    ----------
    model : str, a name in `lab_utils.counts.ARCHITECTURES`
    method : "full", "lora" or "qlora"
    gpu : str, a name in `lab_utils.memory.budget.GPUS`
    rank, batch_size, sequence_length : int >= 1
    checkpointing : bool

    Attributes
    ----------
    all of the parameters, at every moment
    budget : dict with the bytes of each part, their total, the room on the GPU, and what to change

    Raises
    ------
    LabError
        An unknown name, or a value of another kind than above.
    """

    _esm = script("budget_explorer")
    _moved = NAMES
    models = traitlets.List(list(ARCHITECTURES)).tag(sync=True)
    gpus = traitlets.List(list(GPUS)).tag(sync=True)
    model = Word("Llama-2-7B", allowed=ARCHITECTURES).tag(sync=True)
    method = Word("qlora", allowed=METHODS).tag(sync=True)
    gpu = Word("T4, 16 GB", allowed=GPUS).tag(sync=True)
    rank = Count(8).tag(sync=True)
    batch_size = Count(1).tag(sync=True)
    sequence_length = Count(512).tag(sync=True)
    checkpointing = Switch(False).tag(sync=True)
    budget = traitlets.Dict().tag(sync=True)

    def __init__(self, question: str = QUESTION, choices=("both fit", "only the first", "only the second"), **settings):
        for name in settings:
            choose("setting", name, NAMES)
        super().__init__(question=question, choices=list(choices), **settings)
        self.observe(self._estimate, NAMES)
        self._estimate()

    def _settings(self) -> dict:
        """The arguments of `memory.estimate`."""
        return {
            "architecture": self.model, "method": self.method, "rank": self.rank, "batch_size": self.batch_size,
            "sequence_length": self.sequence_length, "gradient_checkpointing": self.checkpointing, "device": "cuda",
        }  # fmt: skip

    def _now(self) -> MemoryEstimate:
        """The estimate of what is chosen."""
        return estimate(**self._settings())

    def _estimate(self, _change=None) -> None:
        now = self._now()
        changes = [] if fits(now, self.gpu) else advice(self.gpu, **self._settings())
        self.budget = {
            "parts": now.parts(), "total": now.total_bytes, "room": room_bytes(self.gpu),
            "changes": [str(one) for one in changes],
        }  # fmt: skip

    def summary(self) -> str:
        now = self._now()
        verdict = "it fits" if fits(now, self.gpu) else "it does not fit"
        return (
            f"Memory budget, {self.model}, {self.method}, rank {self.rank}, batch {self.batch_size} of "
            f"{self.sequence_length} tokens on {self.gpu}: {three(now.total_bytes / GIB)} GiB of "
            f"{three(room_bytes(self.gpu) / GIB)} GiB: {verdict}."
        )

    def figure(self):
        named = {f"{self.model}, {self.method}": self._now().parts()}
        return plots.stacked_gigabytes(named, f"one step: batch {self.batch_size} of {self.sequence_length} tokens")
