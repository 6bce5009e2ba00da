"""The memory that is free on this machine, and keeping what a step frees for the next one."""

import re
from pathlib import Path


def free_memory_bytes(kind: str = "cpu") -> int:
    """Bytes that a new tensor could take on the device, within the limits of a container or systemd unit.

    On a GPU that includes what torch holds in its cache: freed tensors, whose blocks it gives to the next ones.
    """
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    free = psutil.virtual_memory().available
    root = Path("/sys/fs/cgroup")
    try:
        own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), flags=re.MULTILINE)
    except (OSError, ValueError):
        own = None
    group = root / own[1] if own else root
    for folder in (group, *group.parents):
        if folder.is_relative_to(root):
            free = min(free, _free_in(folder, free))
    return max(free, 0)


def total_memory_bytes() -> int:
    """Bytes of the current GPU's whole memory, whichever process uses it."""
    import torch

    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def _free_in(group: Path, otherwise: int) -> int:
    """Bytes left below a control group's limit; `otherwise` where it has none."""
    try:
        limit = int((group / "memory.max").read_text())  # "max", no limit, is not a number
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # File cache counts as used, but is given back when memory runs short.
        return limit - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return otherwise


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for the next tensor instead of giving them back to the system.

    A training step frees and takes the same buffers thousands of times; without this, each is returned as pages
    that must be zeroed again. Measured alternately on two Zen 4 cores: 0.83 and 0.93 of the time per token, with the
    same peak memory. Returns False, and does nothing, with another C library (macOS, Windows, musl).
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # glibc's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, 2**30))
