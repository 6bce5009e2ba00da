"""A model of 8 billion parameters: loaded in 4 bits and trained for a step, within what a card of 16 GB has."""

import sys
import time
from pathlib import Path

from ..device import GIB, find_device
from ..finetune import attach_adapter, build_optimizer
from ..memory import estimate
from ..models import load_base
from .card import need_bytes
from .memory import step_on
from .sections import Finding, Setting, Skipped
from .stand_in import MODEL, shape, standing_in, write_model
from .training import recipe

LIMIT = 15 * GIB
TOKENS = 512


def large(setting: Setting) -> Finding:
    """Its weights are zeros, read from a file that takes no room on the disk: memory and loading do not see that."""
    import torch

    name, device = setting.size("Llama-3-8B", "tiny"), find_device()
    one, tokens = shape(name), setting.size(TOKENS, 64)
    said = estimate(one, "qlora", rank=8, sequence_length=tokens, dtype=device.compute_dtype, device="cuda",
                    gradient_checkpointing=True)  # fmt: skip
    need_bytes(said.total_bytes + GIB // 2, f"{name} in 4 bits with a training step")
    if sys.platform != "linux" or is_in_memory(setting.scratch):
        raise Skipped("its weights, 16 GB of zeros, need a disk that stores holes: Linux, and TMPDIR on a disk")
    folder = write_model(setting.scratch / "large", name, zeros=True)
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, LIMIT / total))
    try:
        with standing_in(folder):
            values = _load_and_step(device, tokens)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    values["estimate of a step GiB"] = said.total_bytes / GIB
    values["estimate of the weights GiB"] = said.weights_bytes / GIB
    passed = values["peak reserved GiB"] * GIB <= LIMIT
    text = f"loaded in {values['seconds to load']:.0f} s, {values['peak reserved GiB']:.1f} GiB reserved at the peak"
    return Finding(passed, text, values)


def is_in_memory(folder: Path) -> bool:
    """Is a folder on a disk in memory (tmpfs), where a hole that is read takes as much as numbers?"""
    import psutil

    mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    nearest = next((mounts[one] for one in (folder, *folder.parents) if one in mounts), "")
    return nearest in ("tmpfs", "ramfs")


def _load_and_step(device, tokens: int) -> dict:
    """The measurements."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    model, _ = load_base(MODEL, "nf4", verbose=False)
    torch.cuda.synchronize()
    values = {
        "seconds to load": time.perf_counter() - began,
        "peak while loading GiB": torch.cuda.max_memory_allocated() / GIB,
        "weights GiB": torch.cuda.memory_allocated() / GIB,
    }
    adapted = attach_adapter(model, recipe(1, rank=8))
    adapted.activation_checkpointing_enable({"use_reentrant": False})
    step = step_on(adapted, build_optimizer(adapted, 1e-4, device), device, 1, tokens)
    values["loss"], values["loss after a step"] = step(), step()
    torch.cuda.synchronize()
    return values | {
        "peak GiB": torch.cuda.max_memory_allocated() / GIB,
        "peak reserved GiB": torch.cuda.max_memory_reserved() / GIB,
    }
