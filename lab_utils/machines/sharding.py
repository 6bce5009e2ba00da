"""Training on several processes: what each one holds, and what it sends in a step.

Every process computes on its own examples; what is shared out is what each would otherwise hold a copy of.

    strategy   weights    gradients  optimizer states   ZeRO's stage
    ddp        whole      whole      whole              0
    zero1      whole      whole      shared out         1
    zero2      whole      shared out shared out         2
    fsdp       shared out shared out shared out         3

The bytes are those of `memory.estimate`, shared out by whole bytes. PyTorch's `fully_shard` (FSDP2) splits each tensor
by rows and pads it to the same number on every process: by nothing where the rows divide evenly, otherwise by up to a
row of each tensor. tests/training/test_traffic.py compares both with two real processes.

Sources: Rajbhandari et al. 2019 (ZeRO), sections 5 and 7, https://arxiv.org/abs/1910.02054; Zhao et al. 2023 (PyTorch
FSDP), sections 3 and 4, https://arxiv.org/abs/2304.11277; Patarasu and Yuan 2009, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", https://doi.org/10.1016/j.jpdc.2008.09.002
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..counts.architectures import Architecture, named
from ..errors import LabError, choose, real, shown, whole
from ..memory import MemoryEstimate, estimate
from ..memory.step import as_record, checked_settings, nf4_bytes

STRATEGIES = ("ddp", "zero1", "zero2", "fsdp")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter")
AHEAD = 1  # layers that FSDP gathers while another one computes (prefetching)
LINKS = MappingProxyType(
    {
        "Ethernet, 1 Gb/s": 1e9 / 8,  # IEEE 802.3ab, over twisted pairs
        "Ethernet, 10 Gb/s": 10e9 / 8,  # IEEE 802.3an
        "Ethernet, 100 Gb/s": 100e9 / 8,  # IEEE 802.3ba
        "InfiniBand HDR, 200 Gb/s": 200e9 / 8,  # InfiniBand Trade Association's roadmap, a port of 4 lanes
        "PCIe 4.0, 16 lanes": 16e9 * 16 * 128 / 130 / 8,  # PCI-SIG: 16 GT/s a lane, 128 of 130 bits are data
        "InfiniBand NDR, 400 Gb/s": 400e9 / 8,  # as HDR
        "PCIe 5.0, 16 lanes": 32e9 * 16 * 128 / 130 / 8,  # PCI-SIG: 32 GT/s a lane
        "NVLink 3 (A100)": 300e9,  # NVIDIA's A100 data sheet: 600 GB/s, both directions together
        "NVLink 4 (H100)": 450e9,  # NVIDIA's H100 data sheet: 900 GB/s, both directions together
    }
)  # nominal bytes per second in one direction; what programs see is less


@dataclass(frozen=True)
class ShardedEstimate:
    """Bytes of one training step on one of several processes.

    Attributes
    ----------
    local : MemoryEstimate, what this process holds; `gathered_bytes` are in its begin_bytes and end_bytes
    gathered_bytes : int, the most of other processes' weights that are here at one time; this process's own shard
        counts again, because the whole tensors are copies
    """

    local: MemoryEstimate
    gathered_bytes: int

    @property
    def total_bytes(self) -> int:
        """The peak of this process."""
        return self.local.total_bytes

    def parts(self) -> dict[str, int]:
        """What the peak is made of; adds up to `total_bytes`. As `MemoryEstimate.parts`, and "gathered"."""
        parts = self.local.parts()
        transients = parts.pop("transients") - self.gathered_bytes
        return {**parts, "gathered": self.gathered_bytes, "transients": transients}


@dataclass(frozen=True)
class Communication:
    """What the processes exchange in one optimizer step.

    Attributes
    ----------
    processes : int
    collectives : dict of int, bytes of the whole tensors that go through "all_reduce", "all_gather", "reduce_scatter"

    Raises
    ------
    LabError
        `processes` is not a whole number of 1 or more, or a collective's bytes are not one of 0 or more.
    """

    processes: int
    collectives: dict[str, int]

    def __post_init__(self):
        object.__setattr__(self, "processes", whole("processes", self.processes))
        if not isinstance(self.collectives, Mapping):
            raise LabError(f"collectives={shown(self.collectives)} is out of range: bytes of {', '.join(COLLECTIVES)}.")
        sent = dict(self.collectives)
        for name in COLLECTIVES:
            sent[name] = whole(name, sent.get(name), 0, 10**30)
        object.__setattr__(self, "collectives", sent)

    @property
    def sent_bytes(self) -> int:
        """What each process sends, and receives, by the ring algorithm: on average no algorithm sends less.

        On a ring of N processes an all-gather or a reduce-scatter takes N - 1 rounds, in each of which every process
        passes one N-th of the tensor to its neighbor. An all-reduce is a reduce-scatter and an all-gather.

        Source: Patarasu and Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002
        """
        one_way = self.collectives["all_gather"] + self.collectives["reduce_scatter"]
        total = one_way + 2 * self.collectives["all_reduce"]
        return -(-total * (self.processes - 1) // self.processes)

    def seconds(self, bytes_per_second: float) -> float:
        """How long sending takes at `bytes_per_second` (see `LINKS`): no latency, no overlap with computing.

        Raises
        ------
        LabError
            `bytes_per_second` is not a finite number above 0.
        """
        return self.sent_bytes / real("bytes_per_second", bytes_per_second)


def sharded(
    architecture: Architecture | str, method: str, processes: int, strategy: str, **settings
) -> ShardedEstimate:  # fmt: skip
    """Bytes that a training step takes at its peak on each of several processes.

    Exact, as tensors: this process's share of weights, adapter, gradients and optimizer states (see the module for
    padding). A 4-bit base is shared out as its packed bytes; the scales of its blocks stay whole on every process,
    because bitsandbytes keeps them beside the tensor that FSDP splits.

    A model: what FSDP gathers. Whole at one time are the layer that computes, the next one, which arrives meanwhile,
    and all that is outside the layers (embedding, last norm, output matrix), which `fully_shard` keeps from the forward
    to the end of the backward pass. They are gathered as they are held: a 4-bit base in 4 bits, each matrix dequantized
    when it is used, as on one process. When the backward pass ends, the gradients outside the layers are still whole.
    Copies of gradients that wait to be sent come on top: DDP's too, unless it is told `gradient_as_bucket_view=True`.

    Parameters
    ----------
    architecture : Architecture, or a name in `ARCHITECTURES`
    method : "full", "lora" or "qlora"
    processes : int >= 1, each with its own device
    strategy : "ddp", "zero1", "zero2" or "fsdp"
    settings : the other arguments of `memory.estimate`, by name; batch_size is that of one process

    Returns
    -------
    ShardedEstimate: of the process with the largest share. With one process it is `memory.estimate`.

    Raises
    ------
    LabError
        As `memory.estimate`; a setting or the strategy is unknown; or `processes` is not a whole number of 1 or more.

    Sources: Rajbhandari et al. 2019 (ZeRO), section 5, https://arxiv.org/abs/1910.02054; Zhao et al. 2023 (PyTorch
    FSDP), section 3, https://arxiv.org/abs/2304.11277
    """
    processes, strategy = whole("processes", processes), choose("strategy", strategy, STRATEGIES)
    settings = checked_settings({"architecture": architecture, "method": method, **settings})
    alone = estimate(**settings)
    if processes == 1:
        return ShardedEstimate(alone, 0)
    shares = {}
    if strategy != "ddp":
        shares["optimizer_bytes"] = -(-alone.optimizer_bytes // processes)
    if strategy in ("zero2", "fsdp"):
        shares["gradients_bytes"] = -(-alone.gradients_bytes // processes)
    if strategy != "fsdp":
        return ShardedEstimate(replace(alone, **shares), 0)
    groups = _groups(settings)
    gathered = groups.outside + min(1 + AHEAD, groups.layers) * groups.layer
    shares |= {
        "weights_bytes": -(-(alone.weights_bytes - groups.scales) // processes) + groups.scales,
        "adapter_bytes": -(-alone.adapter_bytes // processes),
        "begin_bytes": alone.begin_bytes + gathered,
        "end_bytes": alone.end_bytes + gathered + groups.outside_gradients,
    }
    return ShardedEstimate(replace(alone, **shares), gathered)


def communication(
    architecture: Architecture | str,
    method: str,
    processes: int,
    strategy: str,
    rank: int = 8,
    target_modules: str | Iterable[str] = "all-linear",
    *,
    dtype: str = "bfloat16",
    adapter_dtype: str = "float32",
    rest_dtype: str | None = None,
) -> Communication:
    """What the processes exchange in an optimizer step of one forward and one backward pass.

    DDP adds up the gradients of what is trained, and nothing else: with LoRA the adapters'. ZeRO-1 and ZeRO-2 add them
    up where their optimizer states are, and gather the updated weights: the same bytes. FSDP gathers every layer,
    frozen or not, in the forward pass and again in the backward pass, because even a frozen layer's weights are needed
    to pass the gradient on; what is outside the layers once; and adds up the gradients of what is trained. With k
    batches per optimizer step FSDP gathers k times; DDP still adds up once, if told to (`no_sync`).

    Parameters
    ----------
    architecture, method, processes, strategy : as in `sharded`
    rank, target_modules, dtype, adapter_dtype, rest_dtype : as in `memory.estimate`. Numbers travel in the dtype that
        they are held in; of a 4-bit base the packed bytes travel, and not the scales of its blocks, which every process
        has.

    Returns
    -------
    Communication

    Raises
    ------
    LabError
        As `sharded`.

    Sources: Rajbhandari et al. 2019 (ZeRO), section 7, https://arxiv.org/abs/1910.02054; Zhao et al. 2023 (PyTorch
    FSDP), sections 3 and 4, https://arxiv.org/abs/2304.11277
    """
    processes, strategy = whole("processes", processes), choose("strategy", strategy, STRATEGIES)
    settings = checked_settings(
        {"architecture": architecture, "method": method, "rank": rank, "target_modules": target_modules, "dtype": dtype,
         "adapter_dtype": adapter_dtype, "rest_dtype": rest_dtype}
    )  # fmt: skip
    gradients = estimate(**settings).gradients_bytes
    collectives = dict.fromkeys(COLLECTIVES, 0)
    if strategy == "ddp":
        collectives["all_reduce"] = gradients
    else:
        collectives["reduce_scatter"] = collectives["all_gather"] = gradients
    if strategy == "fsdp":
        groups = _groups(settings)
        collectives["all_gather"] = 2 * groups.layers * groups.layer + groups.outside
    return Communication(processes, collectives)


@dataclass(frozen=True)
class _Groups:
    """Bytes that FSDP gathers at once: one layer, adapters included, and all that is outside; scales of the whole."""

    layers: int
    layer: int
    outside: int
    outside_gradients: int
    scales: int


def _groups(settings: dict) -> _Groups:
    """A layer is the difference between the model and the same model with one more layer."""
    architecture, method = named(settings["architecture"]), settings["method"]
    layers = architecture.n_layers
    one, more = (
        estimate(**settings | {"architecture": replace(architecture, n_layers=count)}) for count in (layers, layers + 1)
    )
    scales = 0  # of one layer
    if method == "qlora":
        inner = (one for one in as_record(architecture)["modules"].values() if one["group"] != "head")
        sizes = [one["out"] * one["in"] for one in inner]
        scales = sum(nf4_bytes(size, settings.get("double_quant", True)) - -(-size // 2) for size in sizes)
    held = [each.weights_bytes + each.adapter_bytes for each in (one, more)]
    layer = held[1] - held[0]
    return _Groups(
        layers=layers,
        layer=layer - scales,
        outside=held[0] - layers * layer,
        outside_gradients=one.gradients_bytes - layers * (more.gradients_bytes - one.gradients_bytes),
        scales=layers * scales,
    )
