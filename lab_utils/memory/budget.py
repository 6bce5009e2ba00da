"""Will it fit? A training step's estimate against a GPU's memory, and what to change when it does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from numbers import Real
from types import MappingProxyType

from ..errors import LabError, choose, real, shown
from .step import MemoryEstimate, checked_settings, estimate

GIB = 2**30
GPUS = MappingProxyType(
    {
        "laptop GPU, 8 GB": 7.6,
        "T4, 16 GB": 14.5,
        "L4, 24 GB": 22.0,
        "RTX 3090, 24 GB": 23.5,
        "RTX 4090, 24 GB": 23.5,
        "RTX 5090, 32 GB": 31.3,
        "A100, 40 GB": 39.3,
        "L40S, 48 GB": 44.4,
        "A100, 80 GB": 79.1,
        "H100, 80 GB": 79.1,
        "H200, 141 GB": 139.7,
        "B200, 180 GB": 178.3,
    }
)  # usable GiB: the "total capacity" in torch's out-of-memory message, the least that was seen in public reports of
# 2024 to 2026, rounded down. `nvidia-smi` shows up to half a GiB more, of which the driver keeps that
HEADROOM = 0.1  # share of it left to CUDA's own code, other libraries, and gaps between tensors
LARGEST = 1e12  # GiB, an upper limit for `gpu`: no machine has more
SHORTEST = 128  # tokens: the advice never goes below this


@dataclass(frozen=True)
class Change:
    """One thing to do about a step that does not fit.

    Attributes
    ----------
    argument : str, of `memory.estimate`
    old, new : its values
    price : str, what it costs
    estimate : MemoryEstimate, after this change and those before it
    """

    argument: str
    old: object
    new: object
    price: str
    estimate: MemoryEstimate

    def __str__(self) -> str:
        return f"{self.argument}: {self.old} → {self.new} ({self.price}) — {self.estimate.total_bytes / GIB:.1f} GiB"


PRICES = {
    "gradient_checkpointing": "the forward pass is computed twice",
    "batch_size": "more steps, noisier ones; accumulate gradients over several",
    "method": "a low-rank update; with qlora also a rounded base, and time to dequantize it",
    "moments": "rounded optimizer states",
    "sequence_length": "longer examples are cut or left out",
}
DEFAULTS = {  # of `memory.estimate`, for what may change
    name: parameter.default
    for name, parameter in signature(estimate).parameters.items()
    if name in PRICES and name != "method"
}


def room_bytes(gpu: str | float, headroom: float = HEADROOM) -> int:
    """Bytes that training may take.

    Parameters
    ----------
    gpu : str, a name in `GPUS`; or a number, usable GiB
    headroom : float in [0, 1), share that stays free

    Raises
    ------
    LabError
        An unknown GPU, or a number out of range.
    """
    if not isinstance(gpu, Real) or isinstance(gpu, bool):
        gpu = GPUS[choose("GPU", gpu, GPUS)]
    gpu = real("gpu", gpu, "a name, or GiB above 0")
    headroom = real("headroom", headroom, "a number in [0, 1)", zero=True)
    if headroom >= 1:
        raise LabError(f"headroom={headroom!r} is out of range: a number in [0, 1).")
    return int(min(gpu, LARGEST) * GIB * (1 - headroom))


def fits(one: MemoryEstimate, gpu: str | float, headroom: float = HEADROOM) -> bool:
    """True if the step's peak leaves `headroom` of the GPU's memory free.

    Parameters
    ----------
    one : MemoryEstimate, or a `sharding.ShardedEstimate`
    gpu, headroom : as in `room_bytes`

    Raises
    ------
    LabError
        As `room_bytes`; or `one` is not an estimate.
    """
    if not hasattr(one, "total_bytes"):
        raise LabError(f"{shown(one)} is not an estimate: pass what `memory.estimate` returns.")
    return one.total_bytes <= room_bytes(gpu, headroom)


def advice(gpu: str | float, headroom: float = HEADROOM, **settings) -> list[Change]:
    """What to change, in this order, until the step fits.

    First what costs only time, then what changes the training, last what changes the data: checkpointing, a halved
    batch size, LoRA for full fine-tuning and QLoRA for LoRA, 8-bit moments, the length halved down to `SHORTEST`.
    Halving stops as soon as the step fits, and a change that turns out not to be needed is dropped.

    Parameters
    ----------
    gpu, headroom : as in `room_bytes`
    settings : the arguments of `memory.estimate`, by name. Without supervised_tokens the whole batch is supervised;
        with it, their share stays the same.

    Returns
    -------
    list of Change: empty if the step fits as it is. If the last one's estimate does not fit either, only a smaller
    model or a larger GPU helps.

    Raises
    ------
    LabError
        As `memory.estimate` and `room_bytes`; or a setting is missing or unknown.
    """
    settings = checked_settings(settings)
    room, now = room_bytes(gpu, headroom), estimate(**settings)
    settings = DEFAULTS | settings
    chosen: dict[str, object] = {}
    for argument in PRICES:
        for new in _lower(argument, settings[argument]):
            after = estimate(**_changed(settings, chosen | {argument: new}))
            if now.total_bytes <= room or after.total_bytes >= now.total_bytes:
                break
            chosen[argument], now = new, after
    if now.total_bytes <= room:
        for argument in reversed(tuple(chosen)):
            others = {name: new for name, new in chosen.items() if name != argument}
            if estimate(**_changed(settings, others)).total_bytes <= room:
                chosen = others
    changes, sofar = [], {}
    for argument, new in chosen.items():
        sofar[argument] = new
        after = estimate(**_changed(settings, sofar))
        changes.append(Change(argument, settings[argument], new, PRICES[argument], after))
    return changes


def _lower(argument: str, value) -> Iterator:
    """The values to try for an argument that is `value` now."""
    if argument == "gradient_checkpointing" and not value:
        yield True
    elif argument == "method":
        yield from {"full": ("lora", "qlora"), "lora": ("qlora",)}.get(value, ())
    elif argument == "moments" and value != "8bit":
        yield "8bit"
    elif argument in ("batch_size", "sequence_length"):
        least = 1 if argument == "batch_size" else SHORTEST
        while value // 2 >= least:
            value //= 2
            yield value


def _changed(settings: dict, new: dict) -> dict:
    """The settings with some values changed; the share of supervised tokens stays."""
    after = settings | new
    if settings.get("supervised_tokens") is not None:
        old, now = (one["batch_size"] * one["sequence_length"] for one in (settings, after))
        after["supervised_tokens"] = max(1, settings["supervised_tokens"] * now // old)
    return after
