"""What this machine can do, line by line, and what to do about what it cannot."""

import os
import platform
import shutil
import sys

from .device import GIB, find_device, free_memory_bytes, hub_reachable, use_threads
from .embedded import FOLDER, cache_folder
from .errors import LabError
from .models import default_model, four_bit_problem

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate", "trl", "ipywidgets", "anywidget")
MIN_FREE_BYTES = 3 * GIB  # notebook 08 at its default settings peaks at about two


def report() -> list[dict]:
    """Look at this machine.

    Returns
    -------
    list of {"what": str, "found": str, "ok": bool, "advice": str}, one for each thing a notebook relies on
    """
    rows = [_python(), *_packages(), _processor(), _four_bit(), _memory(), _disk(), _model(), _hub()]
    return [dict(zip(("what", "found", "ok", "advice"), row, strict=True)) for row in rows]


def _python():
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return "Python", found, sys.version_info >= (3, 11), "3.11 to 3.13; `make lab` sets one up."


def _packages():
    """One row for all packages that are there, one for each that is missing."""
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append((f"package {name}", "missing", False, f"`pip install {name}`, then restart the kernel."))
    return [("packages", ", ".join(found), True, "nothing to do"), *missing]


def _processor():
    device, threads = find_device(), use_threads()
    if device.kind == "cuda":
        return "device", str(device), True, "Larger models than the embedded one are within reach."
    advice = (
        f"{threads} thread(s). Everything runs here; a GPU is not needed. "
        "If other programs share these cores, LORA_LAB_THREADS=1 may be faster."
    )
    return "device", str(device), True, advice


def _four_bit():
    """Really quantize a small matrix and get it back."""
    problem = four_bit_problem()
    if problem is None:
        try:
            error = four_bit_error()
            return "4-bit weights", f"NF4 round trip works, error {error:.1%} of the weights", True, "nothing to do"
        except Exception as raised:  # whatever the native library raises is the finding
            problem = f"quantizing failed ({type(raised).__name__}: {raised})"
    return "4-bit weights", problem, False, "Notebooks 01 to 07 run without it; 08 to 10 need bitsandbytes."


def four_bit_error() -> float:
    """Relative RMS error of a bitsandbytes NF4 round trip on a normal random matrix: about 0.092 at block 64."""
    import bitsandbytes.functional as bnb
    import torch

    device = find_device()
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(device.kind)
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    return float((bnb.dequantize_4bit(packed, state) - weight).norm() / weight.norm())


def _memory():
    free = free_memory_bytes("cpu")
    ok = free >= MIN_FREE_BYTES
    advice = "nothing to do" if ok else "Close other notebooks and programs: notebook 08 wants 3 GiB."
    return "memory", f"{free / GIB:.1f} GiB free", ok, advice


def _disk():
    folder = cache_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
    ok = free > GIB and writable
    advice = "nothing to do" if ok else "Set LORA_LAB_CACHE to a folder you may write to, with 1 GiB free."
    return "disk", f"{free / GIB:.0f} GiB free at {there}{'' if writable else ', not writable'}", ok, advice


def _model():
    ready = (cache_folder() / FOLDER).is_dir()
    found = "ready" if ready else "not fetched yet"
    return "embedded model", found, True, "nothing to do" if ready else "Fetched by itself (93 MB) at first use."


def _hub():
    reachable = hub_reachable()
    advice = "Not needed: the embedded model works offline."
    if reachable:
        advice = f"Larger models can be loaded; the default here is {default_model()}."
    return "Hugging Face hub", "reachable" if reachable else "not reachable", True, advice


def require_four_bit() -> None:
    """Raise a LabError with advice unless 4-bit weights work here."""
    row = _four_bit()
    if not row[2]:
        raise LabError(f"4-bit weights do not work here: {row[1]}. {row[3]}")
