"""`torch.cuda` and `torch.accelerator` as they answer on a machine with the card."""

import os
import time
import types

import torch

from .cards import ARCHITECTURES, Card
from .places import MEMORY, Memory, put_storage
from .random_numbers import DEFAULT, Generator
from .rules import Forked


class Current:
    """The card that is chosen."""

    index = 0


class Event:
    """`torch.cuda.Event`: the clock, since everything is done when a call returns."""

    def __init__(self, *args, **kwargs):
        self.at = 0.0

    def record(self, stream=None) -> None:
        """Remember the time."""
        self.at = time.perf_counter()

    def elapsed_time(self, end) -> float:
        """Milliseconds from this event to another."""
        return 1000 * (end.at - self.at)

    def synchronize(self) -> None:
        """Nothing to wait for."""

    wait = synchronize

    def query(self) -> bool:
        """Is it done? Always."""
        return True


class Stream:
    """`torch.cuda.Stream`: there is one, and it is never behind."""

    device = torch.device("cuda", 0)
    cuda_stream = 0

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def nothing(self, *args) -> None:
        """Wait for what is done."""

    synchronize = wait_stream = wait_event = nothing

    def is_capturing(self) -> bool:
        """Is a graph recorded? Never."""
        return False

    def record_event(self, event=None) -> Event:
        """An event of now."""
        event = event or Event()
        event.record()
        return event


def number(device=None) -> int:
    """A card's number, from whatever torch's functions take."""
    if device is None:
        return Current.index
    if isinstance(device, int):
        return device if device >= 0 else Current.index
    device = torch.device(device)
    return Current.index if device.index is None else device.index


def choose(device) -> int:
    """Choose a card; returns the one before."""
    before, Current.index = Current.index, number(device)
    return before


def nothing(*args, **kwargs) -> None:
    """For what a pretended card does not do."""


def answers(card: Card) -> dict:
    """`torch.cuda`'s functions by name."""
    memory = lambda device=None: MEMORY[number(device)]  # noqa: E731
    all_cards = range(card.count)
    properties = types.SimpleNamespace(
        name=card.name, major=card.capability[0], minor=card.capability[1], total_memory=card.memory_bytes,
        multi_processor_count=40, warp_size=32, max_threads_per_multi_processor=1024, regs_per_multiprocessor=65536,
        gcnArchName="", is_integrated=False, shared_memory_per_block=49152, L2_cache_size=4 * 2**20, uuid="pretended",
    )  # fmt: skip

    def fraction(share: float, device=None) -> None:
        memory(device).limit = int(share * memory(device).total)

    return {
        "is_available": lambda: True, "is_initialized": lambda: True, "_is_in_bad_fork": lambda: Forked.child,
        "init": nothing, "_lazy_init": nothing, "_lazy_call": lambda call, **kwargs: call(), "ipc_collect": nothing,
        "device_count": lambda: card.count, "current_device": lambda: Current.index, "set_device": choose,
        "_exchange_device": choose, "_maybe_exchange_device": choose, "synchronize": nothing,
        "get_device_name": lambda device=None: card.name, "get_device_capability": lambda device=None: card.capability,
        "get_device_properties": lambda device=None: properties, "get_arch_list": lambda: list(ARCHITECTURES),
        "is_bf16_supported": lambda including_emulation=True: card.bfloat16 or including_emulation,
        "mem_get_info": lambda device=None: (memory(device).total - memory(device).reserved, memory(device).total),
        "memory_allocated": lambda device=None: memory(device).used,
        "max_memory_allocated": lambda device=None: memory(device).peak,
        "memory_reserved": lambda device=None: memory(device).reserved,
        "max_memory_reserved": lambda device=None: memory(device).reserved_peak,
        "memory_stats": lambda device=None: statistics(memory(device)),
        "reset_peak_memory_stats": lambda device=None: memory(device).reset_peak(),
        "reset_max_memory_allocated": lambda device=None: memory(device).reset_peak(),
        "empty_cache": lambda: [one.empty_cache() for one in MEMORY] and None,
        "set_per_process_memory_fraction": fraction,
        "manual_seed": lambda seed: DEFAULT[Current.index].manual_seed(seed) and None,
        "manual_seed_all": lambda seed: [one.manual_seed(seed) for one in DEFAULT] and None,
        "initial_seed": lambda: DEFAULT[Current.index].initial_seed(),
        "get_rng_state": lambda device=None: DEFAULT[number(device)].get_state(),
        "set_rng_state": lambda state, device=None: DEFAULT[number(device)].set_state(state) and None,
        "get_rng_state_all": lambda: [one.get_state() for one in DEFAULT],
        "set_rng_state_all": lambda states: [DEFAULT[i].set_state(s) for i, s in zip(all_cards, states)] and None,  # noqa: B905
        "current_stream": lambda device=None: Stream(), "default_stream": lambda device=None: Stream(),
        "stream": lambda stream: Stream(), "Stream": Stream, "Event": Event,
        "is_current_stream_capturing": lambda: False,
    }  # fmt: skip


def statistics(memory: Memory) -> dict:
    """`torch.cuda.memory_stats`, as far as it is known."""
    return {
        "allocated_bytes.all.current": memory.used, "allocated_bytes.all.peak": memory.peak,
        "reserved_bytes.all.current": memory.reserved, "reserved_bytes.all.peak": memory.reserved_peak,
        "num_ooms": 0, "num_alloc_retries": 0,
    }  # fmt: skip


def install(card: Card) -> None:
    """Let torch answer as on a machine with the card."""
    MEMORY[:] = [Memory(card.memory_bytes) for _ in range(card.count)]
    DEFAULT[:] = [Generator(f"cuda:{index}") for index in range(card.count)]
    for one in DEFAULT:
        one.manual_seed(torch.initial_seed())
    found = answers(card)
    for name, answer in found.items():
        for home in (torch.cuda, torch.cuda.memory, torch.cuda.random):
            if home is torch.cuda or hasattr(home, name):
                setattr(home, name, answer)
    torch.cuda.default_generators = tuple(DEFAULT)
    torch.Generator = Generator
    torch.version.cuda = torch.version.cuda or "12.8"
    accelerator = torch.accelerator
    accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    accelerator.is_available, accelerator.device_count = lambda: True, lambda: card.count
    accelerator.current_device_index = accelerator.current_device_idx = lambda: Current.index
    accelerator.set_device_index = accelerator.set_device_idx = choose
    accelerator.synchronize, accelerator.current_stream = nothing, found["current_stream"]
    for name in ("empty_cache", "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved",
                 "memory_stats", "reset_peak_memory_stats"):  # fmt: skip
        setattr(accelerator, name, found[name])
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=Forked.note)
    torch.serialization.register_package(5, tag, restore)  # before the CPU's, 10


def tag(storage) -> str | None:
    """What `torch.save` notes of a storage on the card: where it was."""
    card = getattr(storage, "_card", None)
    return None if card is None else f"cuda:{card}"


def restore(storage, location: str):
    """Where `torch.load` puts a storage that was on a card: there again, unless `map_location` says otherwise."""
    return put_storage(storage, number(location)) if location.startswith("cuda") else None
