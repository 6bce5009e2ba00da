"""Training on several processes: what each one holds, and what it sends in a step.

Every process computes on its own examples; what is spread is what they would otherwise all hold alike.

    strategy   weights    gradients  optimizer states   ZeRO's stage
    ddp        whole      whole      whole              0
    zero1      whole      whole      shared out         1
    zero2      whole      shared out shared out         2
    fsdp       shared out shared out shared out         3

The bytes are those of `memory.estimate`, shared out by whole bytes. PyTorch's `fully_shard` (FSDP2) cuts each tensor
by rows and pads it to as many on every process: nothing where the rows divide evenly, up to a row of each tensor
otherwise. tests/test_traffic.py holds both bytes against two real processes.

Sources: Rajbhandari et al. 2019 (ZeRO), sections 5 and 7, https://arxiv.org/abs/1910.02054; Zhao et al. 2023 (PyTorch
FSDP), sections 3 and 4, https://arxiv.org/abs/2304.11277; Patarasu and Yuan 2009, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", https://doi.org/10.1016/j.jpdc.2008.09.002
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from .architectures import ARCHITECTURES, Architecture
from .errors import LabError, at_least, choose
from .memory import MemoryEstimate, as_record, estimate, nf4_bytes

STRATEGIES = ("ddp", "zero1", "zero2", "fsdp")
AHEAD = 1  # layers that FSDP gathers while another one computes (prefetching)
LINKS = MappingProxyType(
    {
        "Wi-Fi 5": 866.7e6 / 8,  # IEEE 802.11ac: 2 streams, 80 MHz, 256-QAM 5/6, shared by all who listen
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
    gathered_bytes : int, other processes' weights that stand here for a while, at most; this process's own shard of
        them counts again, for the whole tensors are copies
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
    """

    processes: int
    collectives: dict[str, int]

    @property
    def sent_bytes(self) -> int:
        """What each process sends, and receives, by the ring algorithm: on average no algorithm sends less.

        On a ring of N processes an all-gather or a reduce-scatter takes N - 1 rounds, in each of which every process
        passes one N-th of the tensor to its neighbour. An all-reduce is a reduce-scatter and an all-gather.

        Source: Patarasu and Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002
        """
        one_way = self.collectives["all_gather"] + self.collectives["reduce_scatter"]
        whole = one_way + 2 * self.collectives["all_reduce"]
        return -(-whole * (self.processes - 1) // self.processes)

    def seconds(self, bytes_per_second: float) -> float:
        """How long sending takes at `bytes_per_second` (see `LINKS`): no latency, no overlap with computing.

        Raises
        ------
        LabError
            `bytes_per_second` is not above 0.
        """
        if not bytes_per_second > 0:
            raise LabError(f"bytes_per_second={bytes_per_second!r} is out of range: above 0.")
        return self.sent_bytes / bytes_per_second


def sharded(
    architecture: Architecture | str, method: str, processes: int, strategy: str, **settings
) -> ShardedEstimate:  # fmt: skip
    """Bytes that a training step takes at its peak on each of several processes.

    Exact, as tensors: this process's share of weights, adapter, gradients and optimizer states (see the module for
    padding). A 4-bit base is shared out as its packed bytes; the scales of its blocks stay whole on every process, for
    bitsandbytes keeps them beside the tensor that FSDP cuts.

    A model: what FSDP gathers. Whole at one time are the layer that computes, the next one, which arrives meanwhile,
    and all that is outside the layers (embedding, last norm, output matrix), which `fully_shard` keeps from the forward
    to the end of the backward pass. They are gathered as they are held: a 4-bit base in 4 bits, each matrix dequantized
    when it is used, as on one process. When the backward pass ends, the gradients outside the layers are still whole.
    Copies of gradients that wait to be sent come on top: DDP's too, unless it is told `gradient_as_bucket_view=True`.

    Parameters
    ----------
    architecture : Architecture, or a name in `ARCHITECTURES`
    method : "full", "lora" or "qlora"
    processes : int >= 1, each with a device of its own
    strategy : "ddp", "zero1", "zero2" or "fsdp"
    settings : the other arguments of `memory.estimate`, by name; batch_size is that of one process

    Returns
    -------
    ShardedEstimate: of the process with the largest share. With one process it is `memory.estimate`.

    Raises
    ------
    LabError
        As `memory.estimate`; or the strategy is unknown, or `processes` no whole number of 1 or more.

    Sources: Rajbhandari et al. 2019 (ZeRO), section 5, https://arxiv.org/abs/1910.02054; Zhao et al. 2023 (PyTorch
    FSDP), section 3, https://arxiv.org/abs/2304.11277
    """
    _check(processes, strategy)
    whole = estimate(architecture, method, **settings)
    if processes == 1:
        return ShardedEstimate(whole, 0)
    shares = {}
    if strategy != "ddp":
        shares["optimizer_bytes"] = -(-whole.optimizer_bytes // processes)
    if strategy in ("zero2", "fsdp"):
        shares["gradients_bytes"] = -(-whole.gradients_bytes // processes)
    if strategy != "fsdp":
        return ShardedEstimate(replace(whole, **shares), 0)
    groups = _groups(architecture, method, settings)
    gathered = groups.outside + min(1 + AHEAD, groups.layers) * groups.layer
    shares |= {
        "weights_bytes": -(-(whole.weights_bytes - groups.scales) // processes) + groups.scales,
        "adapter_bytes": -(-whole.adapter_bytes // processes),
        "begin_bytes": whole.begin_bytes + gathered,
        "end_bytes": whole.end_bytes + gathered + groups.outside_gradients,
    }
    return ShardedEstimate(replace(whole, **shares), gathered)


def communication(
    architecture: Architecture | str,
    method: str,
    processes: int,
    strategy: str,
    rank: int = 8,
    target_modules: str | Sequence[str] = "all-linear",
    *,
    dtype: str = "bfloat16",
    adapter_dtype: str = "float32",
) -> Communication:
    """What the processes exchange in an optimizer step of one forward and one backward pass.

    DDP adds up the gradients of what is trained, and nothing else: with LoRA the adapters'. ZeRO-1 and ZeRO-2 add them
    up where their optimizer states are, and gather the updated weights: the same bytes. FSDP gathers every layer,
    frozen or not, in the forward pass and again in the backward pass, for even a frozen layer's weights are needed to
    pass the gradient on; what is outside the layers once; and adds up the gradients of what is trained. With k batches
    an optimizer step FSDP gathers k times; DDP still adds up once, if told so (`no_sync`).

    Parameters
    ----------
    architecture, method, processes, strategy : as in `sharded`
    rank, target_modules, dtype, adapter_dtype : as in `memory.estimate`. Numbers travel in the dtype that they are held
        in; of a 4-bit base the packed bytes travel, and not the scales of its blocks, which every process has.

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
    _check(processes, strategy)
    settings = {"rank": rank, "target_modules": target_modules, "dtype": dtype, "adapter_dtype": adapter_dtype}
    gradients = estimate(architecture, method, **settings).gradients_bytes
    collectives = {"all_reduce": 0, "all_gather": 0, "reduce_scatter": 0}
    if strategy == "ddp":
        collectives["all_reduce"] = gradients
    else:
        collectives["reduce_scatter"] = collectives["all_gather"] = gradients
    if strategy == "fsdp":
        groups = _groups(architecture, method, settings)
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


def _groups(architecture: Architecture | str, method: str, settings: dict) -> _Groups:
    """A layer is what the model has more than one with a layer less."""
    if isinstance(architecture, str):
        architecture = ARCHITECTURES[architecture]
    layers = architecture.n_layers
    whole, less = (
        estimate(replace(architecture, n_layers=count), method, **settings) for count in (layers, layers - 1)
    )
    scales = 0  # of one layer
    if method == "qlora":
        inner = (one for one in as_record(architecture)["modules"].values() if one["group"] != "head")
        sizes = [one["out"] * one["in"] for one in inner]
        scales = sum(nf4_bytes(size, settings.get("double_quant", True)) - -(-size // 2) for size in sizes)
    held = [one.weights_bytes + one.adapter_bytes for one in (whole, less)]
    return _Groups(
        layers=layers,
        layer=held[0] - held[1] - scales,
        outside=held[0] - layers * (held[0] - held[1]),
        outside_gradients=whole.gradients_bytes - layers * (whole.gradients_bytes - less.gradients_bytes),
        scales=layers * scales,
    )


def _check(processes: object, strategy: object) -> None:
    """Raise a LabError that names what is unknown or out of range."""
    choose("strategy", strategy, STRATEGIES)
    at_least(1, processes=processes)
