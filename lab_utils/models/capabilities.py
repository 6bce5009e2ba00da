"""What this machine can do, line by line, and what to do about the rest."""

import os
import platform
import shutil
import sys

from ..counts import ARCHITECTURES
from ..device import GIB, find_device, use_threads
from ..errors import LabError
from ..memory import estimate
from ..memory.budget import fits
from ..memory.free import free_memory_bytes, total_memory_bytes
from .choice import decide_larger
from .embedded import FOLDER, cache_folder
from .hub import hub_reachable
from .registry import four_bit_problem

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate", "trl", "ipywidgets", "anywidget")
MIN_FREE_BYTES = 3 * GIB  # notebook 08 at its default settings peaks at about two
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # examples per step, for the hint on a GPU


def report() -> list[dict]:
    """Look at this machine.

    Returns
    -------
    list of {"what": str, "found": str, "ok": bool, "advice": str}, one for each thing a notebook relies on
    """
    looks = {
        "device": _processor, "4-bit weights": _four_bit, "memory": _memory, "disk": _disk, "embedded model": _model,
        "Hugging Face hub": _hub,
    }  # fmt: skip
    rows = [_python(), *_packages(), *(_look(what, look) for what, look in looks.items())]
    return [dict(zip(("what", "found", "ok", "advice"), row, strict=True)) for row in rows]


def _look(what: str, look):
    """A row; if the lab refuses something there, such as an environment variable, that is the finding."""
    try:
        return look()
    except LabError as error:
        return what, "not found out", False, str(error)


def _python():
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return "Python", found, sys.version_info >= (3, 11), "3.11 to 3.13; `make lab` sets one up."


def _packages():
    """One row for all installed packages, one for each missing one."""
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
        total = total_memory_bytes()
        name, _ = decide_larger("cuda", total, device.compute_dtype, hub_reachable())
        hint = gpu_hint(total / GIB, device.compute_dtype, name)
        hint += " Before a class, `make gpu-check` tries the whole course on this card."
        return "device", f"{device}; {total / GIB:.1f} GiB", True, hint
    advice = (
        f"{threads} thread(s). Everything runs here; a GPU is not needed. "
        "If other programs share these cores, LORA_LAB_THREADS=1 may be faster."
    )
    if device.unused_gpu:
        advice += (
            f" To use the {device.unused_gpu}, install a torch that was built for it: the builds for CUDA 12.6 have "
            "code for the oldest cards, see https://pytorch.org/get-started/previous-versions."
        )
    return "device", str(device), True, advice


def gpu_hint(gib: float, dtype: str, name: str) -> str:
    """What fits on a GPU with QLoRA, estimated by `lab_utils.memory`, not measured.

    Parameters
    ----------
    gib : float, the GPU's memory, of which a tenth stays free (`budget.HEADROOM`)
    dtype : "bfloat16", "float16" or "float32", the compute dtype
    name : str, in `models.MODELS` and, in capitals, in `ARCHITECTURES`: the model to name a batch for

    Returns
    -------
    str, one sentence or two: the largest decoder of `ARCHITECTURES` for one example of 512 tokens with gradient
    checkpointing, and the largest of `BATCHES` of 256 tokens for `name` without it.
    """
    how = {"method": "qlora", "rank": 8, "dtype": dtype, "moments": "8bit", "device": "cuda"}
    one = {"batch_size": 1, "sequence_length": 512, "gradient_checkpointing": True}
    sizes = {
        model.total_parameters(): key
        for key, model in ARCHITECTURES.items()
        if "bert" not in model.family and fits(estimate(key, **how, **one), gib)
    }
    known = {key.lower(): key for key in ARCHITECTURES}[name]
    batches = [size for size in BATCHES if fits(estimate(known, **how, batch_size=size, sequence_length=256), gib)]
    if not sizes or not batches:
        return "Little memory: take the embedded model, and see page 07 for what fits."
    return (
        f"Estimated for QLoRA, rank 8 (page 07): models up to {sizes[max(sizes)]} train on 512 tokens with gradient "
        f"checkpointing; {name} takes batches of up to {batches[-1]} × 256 tokens without it."
    )


def _four_bit():
    """Quantize a small matrix and dequantize it again."""
    problem = four_bit_problem()
    if problem is None:
        try:
            error = four_bit_error()
            return "4-bit weights", f"NF4 round trip works, error {error:.1%} of the weights", True, "nothing to do"
        except Exception as raised:  # whatever the native library raises is the finding
            problem = f"quantizing failed ({type(raised).__name__}: {raised})"
    return "4-bit weights", problem, False, "Notebooks 01 to 07 run without it; 08 to 10, 15, 16, A need bitsandbytes."


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
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # False where the way is barred
    free, problem = shutil.disk_usage(there).free, ""
    if not there.is_dir():
        problem = ", a file and not a folder"
    elif not os.access(there, os.W_OK):
        problem = ", not writable"
    # A model that is there needs no room: a shared cache.
    ok = (free > GIB and not problem) or os.path.isdir(folder / FOLDER)
    advice = "nothing to do" if ok else "Set LORA_LAB_CACHE to a folder you may write to, with 1 GiB free."
    return "disk", f"{free / GIB:.0f} GiB free at {there}{problem}", ok, advice


def _model():
    ready = os.path.isdir(cache_folder() / FOLDER)
    found = "ready" if ready else "not fetched yet"
    return "embedded model", found, True, "nothing to do" if ready else "Fetched by itself (93 MB) at first use."


def _hub():
    reachable = hub_reachable()
    advice = "Not needed: the embedded model works offline."
    if reachable:
        advice = "Not needed: the embedded model is the default. `models.larger_model()` says what a larger one takes."
    return "Hugging Face hub", "reachable" if reachable else "not reachable", True, advice


def require_four_bit() -> None:
    """Raise a LabError with advice unless 4-bit weights work here."""
    row = _four_bit()
    if not row[2]:
        raise LabError(f"4-bit weights do not work here: {row[1]}. {row[3]}")
