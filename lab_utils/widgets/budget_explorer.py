"""The memory budget: what one training step holds from beginning to end, and whether it fits on a card."""

from collections.abc import Iterable

import traitlets

from .. import plots
from ..counts import ARCHITECTURES
from ..counts.architectures import Architecture
from ..errors import LabError, choose
from ..memory import METHODS, MemoryEstimate, advice, estimate, timeline
from ..memory.budget import GIB, GPUS, fits, room_bytes
from ..memory.step import as_record
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Count, Switch, Word, three

QUESTION = (
    "Llama-2-7B, QLoRA, one example of 512 tokens: will a step fit on a T4 with 16 GB? "
    "And full fine-tuning on an A100 with 80 GB?"
)
NAMES = ("model", "method", "gpu", "rank", "batch_size", "sequence_length", "checkpointing", "moments")


class _Model(traitlets.Unicode):
    """The name of a model that the explorer has."""

    def validate(self, obj, value) -> str:
        return choose(self.name, value, obj._known_models)


class BudgetExplorer(Explorer):
    """Choices of model, method and card, sliders for rank, batch and length, ticks for checkpointing and 8-bit Adam.

    The browser estimates, with the bytes of `lab_utils.memory.estimate` on CUDA, and draws `memory.timeline`.

    Parameters
    ----------
    model : str, the name of one of `others` or of `lab_utils.counts.ARCHITECTURES`
    method : "full", "lora" or "qlora"
    gpu : str, a name in `lab_utils.memory.budget.GPUS`
    rank, batch_size, sequence_length : int >= 1
    checkpointing : bool
    moments : "float32" or "8bit", of Adam
    others : more Architectures to choose from, such as `lab_utils.counts.from_config` makes

    Attributes
    ----------
    all of the parameters but `others`, at every moment
    budget : dict with the bytes of each part at the peak, their total, the room on the card, and what to change

    Raises
    ------
    LabError
        An unknown name, a value of another kind than above, or one of `others` is no Architecture or has experts.
    """

    _esm = script("memory_estimate", "budget_explorer")
    _css = STYLE + (FOLDER / "memory.css").read_text(encoding="utf-8")
    _moved = NAMES
    _known_models = ARCHITECTURES
    records = traitlets.List().tag(sync=True)
    rooms = traitlets.Dict({name: room_bytes(name) for name in GPUS}).tag(sync=True)
    model = _Model("SmolLM2-1.7B").tag(sync=True)
    method = Word("lora", allowed=METHODS).tag(sync=True)
    gpu = Word("L4, 24 GB", allowed=GPUS).tag(sync=True)
    rank = Count(8).tag(sync=True)
    batch_size = Count(1).tag(sync=True)
    sequence_length = Count(512).tag(sync=True)
    checkpointing = Switch(False).tag(sync=True)
    moments = Word("float32", allowed=("float32", "8bit")).tag(sync=True)

    def __init__(
        self, question: str = QUESTION, choices=("both fit", "only the first", "only the second"),
        others: Iterable[Architecture] = (), **settings,
    ):  # fmt: skip
        for name in settings:
            choose("setting", name, NAMES)
        others = list(others)
        for one in others:
            if not isinstance(one, Architecture):
                raise LabError(f"others: {one!r} is no Architecture. counts.from_config makes one of a config.json.")
            if one.experts:
                raise LabError(f"{one.name} is a mixture of experts: its step is not estimated. Choose a dense model.")
        self._known_models = {**ARCHITECTURES, **{one.name: one for one in others}}
        records = [browser_record(one) for one in self._known_models.values()]
        super().__init__(question=question, choices=list(choices), records=records, **settings)

    def _settings(self) -> dict:
        """The arguments of `memory.estimate`."""
        return {
            "architecture": self._known_models[self.model], "method": self.method, "rank": self.rank,
            "batch_size": self.batch_size, "sequence_length": self.sequence_length, "moments": self.moments,
            "gradient_checkpointing": self.checkpointing, "device": "cuda",
        }  # fmt: skip

    def _now(self) -> MemoryEstimate:
        """The estimate of what is chosen."""
        return estimate(**self._settings())

    @property
    def budget(self) -> dict:
        """What the browser shows: "parts", "total", "room" and "changes"."""
        now = self._now()
        changes = [] if fits(now, self.gpu) else advice(self.gpu, **self._settings())
        return {
            "parts": now.parts(), "total": now.total_bytes, "room": room_bytes(self.gpu),
            "changes": [str(one) for one in changes],
        }  # fmt: skip

    def summary(self) -> str:
        now = self._now()
        verdict = "it fits" if fits(now, self.gpu) else "it does not fit"
        when = "ends" if now.parts()["gradients"] else "begins"
        return (
            f"{self.model}, {self.method}, rank {self.rank}, batch {self.batch_size} of {self.sequence_length} tokens: "
            f"{three(now.total_bytes / GIB)} GiB of {three(room_bytes(self.gpu) / GIB)} GiB on {self.gpu}, at the "
            f"peak, as the backward pass {when}: {verdict}."
        )

    def figure(self):
        moments = timeline(self._now(), self.method, self.checkpointing)
        title = f"{self.model}, {self.method}: one step, batch {self.batch_size} of {self.sequence_length} tokens"
        return plots.memory_over_time(
            [(one.at, one.phase, one.parts) for one in moments], title, room_bytes=room_bytes(self.gpu)
        )


def browser_record(architecture: Architecture, target_modules: str | Iterable[str] = "all-linear") -> dict:
    """What `memory_estimate.js` needs of a model: its record, all of its linear layers, and those with an adapter."""
    plain, targets = (list(architecture.select(which)) for which in ("all-linear", target_modules))
    return {**as_record(architecture), "plain": plain, "targets": targets}
