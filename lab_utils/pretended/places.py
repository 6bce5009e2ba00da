"""Where a tensor lies: a label on its storage, and what the labelled storages take of the card's memory."""

import weakref

import torch

BLOCK, SEGMENT = 512, 2 * 2**20  # bytes: what torch's allocator rounds a tensor up to, and what it asks the driver for


class Memory:
    """One card's memory, as torch's caching allocator counts it.

    Attributes
    ----------
    total : int, bytes of the card
    limit : int, bytes that this process may take (`set_per_process_memory_fraction`)
    used, peak : int, bytes of tensors now, and at most since the last reset
    reserved, reserved_peak : the same of what the allocator keeps, freed blocks included, until `empty_cache`
    """

    def __init__(self, total: int):
        self.total = self.limit = total
        self.used = self.peak = self.reserved = self.reserved_peak = 0

    def take(self, count: int) -> int:
        """Count a new tensor of so many bytes; returns what it takes.

        Raises
        ------
        torch.OutOfMemoryError
            The card, or this process's share of it, has no room.
        """
        size = -(-count // BLOCK) * BLOCK
        if self.used + size > self.limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB; {self.used / 2**20:.2f} of "
                f"{self.limit / 2**20:.2f} MiB are in use (a pretended card)."
            )
        self.used += size
        self.peak = max(self.peak, self.used)
        self.reserved = min(max(self.reserved, -(-self.used // SEGMENT) * SEGMENT), self.limit)
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return size

    def give(self, size: int) -> None:
        """A tensor that took so many bytes is gone; the allocator keeps its block."""
        self.used -= size

    def empty_cache(self) -> None:
        """Give the driver back what no tensor needs."""
        self.reserved = -(-self.used // SEGMENT) * SEGMENT

    def reset_peak(self) -> None:
        """Count peaks from now on."""
        self.peak, self.reserved_peak = self.used, self.reserved


MEMORY: list[Memory] = []  # one for each card; `enable` fills it


def storage_of(tensor: torch.Tensor):
    """A tensor's storage, or None where it has none, as a sparse one."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def place(tensor: torch.Tensor) -> int | None:
    """The number of the card that a tensor is on; None on the CPU."""
    return getattr(storage_of(tensor), "_card", None)


def put(tensor: torch.Tensor, card: int | None, counted: bool = True) -> torch.Tensor:
    """Label a tensor's storage, unless it has a label or is of another real device; returns the tensor.

    Parameters
    ----------
    tensor : Tensor
    card : int, the card's number; None changes nothing
    counted : bool, False for memory that torch's allocator does not give, as bitsandbytes' pages
    """
    storage = storage_of(tensor) if card is not None else None
    if storage is not None and storage.device.type == "cpu":
        put_storage(storage, card, counted)
    return tensor


def put_storage(storage, card: int, counted: bool = True):
    """`put`, for a storage."""
    if getattr(storage, "_card", None) is None:
        if counted:
            size = MEMORY[card].take(storage.nbytes())
            weakref.finalize(storage, MEMORY[card].give, size)
        storage._card = card
    return storage
