"""The cluster explorer: what each of many processes holds, what it sends in a step, and how long that takes."""

from functools import cache

import traitlets

from .. import plots
from ..errors import choose
from ..machines.hybrid import PER_MACHINE, hybrid_communication, hybrid_sharded
from ..machines.sharding import LINKS, STRATEGIES, Communication, ShardedEstimate, communication, sharded
from ..memory import METHODS, estimate
from ..memory.budget import GIB, GPUS, room_bytes
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Count, Word, three

QUESTION = (
    "LLaMA-65B with QLoRA takes 35.6 GiB on one process, and an L4 has room for 19.8. How many L4 does fsdp need?"
)
MODELS = (
    "GPT-2", "SmolLM2-135M", "Qwen2.5-0.5B", "Qwen2.5-1.5B", "Gemma-2B", "Qwen2.5-7B", "Mistral-7B", "Llama-2-7B",
    "Llama-3-8B", "Llama-2-13B", "LLaMA-33B", "LLaMA-65B", "Llama-3-70B", "GPT-3", "Falcon-180B",
)  # fmt: skip
PROCESSES = tuple(2**power for power in range(10))
RANKS = (1, 2, 4, 8, 16, 32, 64)
TOKENS = 1024  # of the one example that each process computes
STEP = {"batch_size": 1, "sequence_length": TOKENS, "gradient_checkpointing": True, "device": "cuda"}
WAYS = (*STRATEGIES, "hsdp")
CHOICES = {
    "model": MODELS, "method": METHODS, "strategy": WAYS, "processes": PROCESSES, "rank": RANKS, "link": LINKS,
    "gpu": GPUS,
}  # fmt: skip


class ClusterExplorer(Explorer):
    """Choices of model, method, strategy, GPU and link, and sliders for the number of processes and the rank.

    A step is one example of 1,024 tokens per process, with gradient checkpointing, on CUDA; adapters on all linear
    layers. The bytes are those of `lab_utils.machines`. With "hsdp" a machine has eight GPUs, and the link is the one
    between machines.

    Parameters
    ----------
    model : str, a name in `MODELS`
    method : "full", "lora" or "qlora"
    strategy : "ddp", "zero1", "zero2", "fsdp" or "hsdp"
    processes : int, one of `PROCESSES`, each with its own GPU
    rank : int, one of `RANKS`
    link : str, a name in `lab_utils.machines.sharding.LINKS`
    gpu : str, a name in `lab_utils.memory.budget.GPUS`

    Attributes
    ----------
    all of the parameters, at every moment

    Raises
    ------
    LabError
        An unknown name, or a number that is not there.
    """

    _esm = script("cluster_explorer")
    _css = STYLE + "".join((FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in ("choosing", "cluster"))
    _moved = tuple(CHOICES)
    records, options = (traitlets.Dict().tag(sync=True) for _ in range(2))
    model, method, strategy, link, gpu = (
        Word(next(iter(CHOICES[name])), allowed=CHOICES[name]).tag(sync=True)
        for name in ("model", "method", "strategy", "link", "gpu")
    )
    processes, rank = (Count(1).tag(sync=True) for _ in range(2))

    def __init__(
        self, model: str = "Llama-2-7B", method: str = "full", strategy: str = "ddp", processes: int = 8, rank: int = 8,
        link: str = "InfiniBand HDR, 200 Gb/s", gpu: str = "A100, 80 GB", question: str = QUESTION,
        choices=("2", "4", "8"),
    ):  # fmt: skip
        options = {name: list(values) for name, values in CHOICES.items()}
        super().__init__(
            records=_records(),
            options=options | {"rooms": [room_bytes(name) for name in GPUS], "speeds": list(LINKS.values()),
                               "machine": PER_MACHINE},
            model=model, method=method, strategy=strategy, processes=processes, rank=rank, link=link, gpu=gpu,
            question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("processes", "rank")
    def _known(self, proposal):
        name = proposal["trait"].name
        choose(name, proposal["value"], CHOICES[name])
        return proposal["value"]

    def _memory(self, strategy: str) -> ShardedEstimate:
        if strategy == "hsdp":
            return hybrid_sharded(self.model, self.method, self.processes, rank=self.rank, **STEP)
        return sharded(self.model, self.method, self.processes, strategy, rank=self.rank, **STEP)

    def _exchange(self, method: str) -> Communication:
        """What goes over the chosen link."""
        if self.strategy != "hsdp":
            return communication(self.model, method, self.processes, self.strategy, rank=self.rank)
        inside, between = hybrid_communication(self.model, method, self.processes, rank=self.rank)
        return between if self.processes > PER_MACHINE else inside

    def _wire(self) -> str:
        """What is sent, in words."""
        sent, inside = self._exchange(self.method).sent_bytes, ""
        if not sent:
            return "Nothing is sent."
        if self.strategy == "hsdp" and self.processes > PER_MACHINE:
            within, _ = hybrid_communication(self.model, self.method, self.processes, rank=self.rank)
            inside = f"{_size(within.sent_bytes)} inside its machine and, between machines, "
        return f"Each sends {inside}{_size(sent)} per step: {_time(sent / LINKS[self.link])} over {self.link}."

    def summary(self) -> str:
        total, room = self._memory(self.strategy).total_bytes, room_bytes(self.gpu)
        rank = "" if self.method == "full" else f" of rank {self.rank}"
        many = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return (
            f"{self.model}, {self.method}{rank}, {self.strategy} on {many}: {three(total / GIB)} GiB on each; there "
            f"is room for {three(room / GIB)} ({self.gpu}): it {'fits' if total <= room else 'does not fit'}. "
            f"{self._wire()}"
        )

    def figure(self):
        ways = WAYS if self.processes > PER_MACHINE else STRATEGIES  # on one machine hsdp is fsdp
        rows = {name: self._memory(name).parts() for name in ways}
        seconds = {name: [self._exchange(name).seconds(speed) for speed in LINKS.values()] for name in METHODS}
        return plots.many_machines(
            rows, room_bytes(self.gpu), f"{self.model}, {self.method}, {self.processes} processes: on each GPU",
            seconds, list(LINKS), self.method, f"time to send, {self.strategy}",
        )  # fmt: skip


@cache
def _records() -> dict:
    """What the browser needs of each model and method: model -> method -> one record a rank ("full" has one)."""
    return {
        model: {method: [_record(model, method, rank) for rank in (RANKS if method != "full" else RANKS[:1])]
                for method in METHODS}
        for model in MODELS
    }  # fmt: skip


def _record(model: str, method: str, rank: int) -> dict[str, int]:
    """Bytes on one process; those of fsdp where they are not simply divided; and what fsdp gathers in a step."""
    whole = estimate(model, method, rank=rank, **STEP)
    # On as many processes as there are bytes, one byte is left of whatever is shared out.
    fsdp = sharded(model, method, whole.weights_bytes, "fsdp", rank=rank, **STEP)
    return {
        "weights": whole.weights_bytes, "kept": fsdp.local.weights_bytes - 1, "adapter": whole.adapter_bytes,
        "optimizer": whole.optimizer_bytes, "gradients": whole.gradients_bytes, "activations": whole.activations_bytes,
        "begin": whole.begin_bytes, "end": whole.end_bytes, "gathered": fsdp.gathered_bytes,
        "fsdp_begin": fsdp.local.begin_bytes, "fsdp_end": fsdp.local.end_bytes,
        "travels": communication(model, method, 2, "fsdp", rank=rank).collectives["all_gather"],
    }  # fmt: skip


def _size(count: int) -> str:
    """Bytes in units of 1000."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{three(value)} {units[0]}"


def _time(seconds: float) -> str:
    """Seconds, milliseconds or microseconds."""
    value, units = seconds, ["s", "ms", "µs"]
    while value < 0.9995 and len(units) > 1:
        value, units = 1000 * value, units[1:]
    return f"{three(value)} {units[0]}"
