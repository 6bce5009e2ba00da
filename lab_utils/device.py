"""What this machine can do: device, compute dtype, memory, threads, optimizer.

Every choice is a plain function of a few facts, so that the choice for a GPU is tested on a machine without one.
"""

import os
import platform
import re
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from .errors import LabError
from .files import user_path

GIB = 2**30
MOST_THREADS = 1024
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
A_FILE = "HuggingFaceTB/SmolLM2-360M-Instruct/resolve/main/config.json"  # the smallest that may be wanted


@dataclass(frozen=True)
class Device:
    """A device and what to do on it.

    Attributes
    ----------
    kind : "cuda" or "cpu"
    name : the processor's own name
    compute_dtype : "bfloat16", "float16" or "float32", the fastest in which training is sound
    reason : one sentence, why this dtype
    """

    kind: str
    name: str
    compute_dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.name}), computing in {self.compute_dtype}: {self.reason}"

    @property
    def torch_dtype(self):
        """`compute_dtype` as a torch.dtype."""
        import torch

        return getattr(torch, self.compute_dtype)

    @property
    def mixed_precision(self) -> str:
        """accelerate's `mixed_precision`: autocast on CUDA only; on CPU the layers choose their dtype."""
        names = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}
        return names[self.compute_dtype] if self.kind == "cuda" else "no"


def decide_dtype(kind: str, has_fast_bf16: bool) -> tuple[str, str]:
    """The compute dtype for a device, and why.

    Parameters
    ----------
    kind : "cuda" or "cpu"
    has_fast_bf16 : bool
        The device multiplies bfloat16 matrices in hardware.

    Returns
    -------
    (dtype, reason) : two strings
    """
    if has_fast_bf16:
        return "bfloat16", "the hardware multiplies bfloat16 matrices"
    if kind == "cuda":
        return "float16", "this GPU (T4, V100 or older) has no bfloat16 units, so float16 with loss scaling"
    return "float32", "this processor would only emulate bfloat16, which is slower than float32"




def find_device() -> Device:
    """Look at this machine. `LORA_LAB_DEVICE=cpu` in the environment hides a GPU, `cuda` insists on one.

    Raises
    ------
    LabError
        `LORA_LAB_DEVICE` is neither, or is `cuda` where torch sees no GPU.
    """
    import torch

    wanted = _setting("LORA_LAB_DEVICE", ("cpu", "cuda"))
    if wanted != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Device("cuda", torch.cuda.get_device_name(), *decide_dtype("cuda", fast))
    if wanted == "cuda":
        raise LabError("LORA_LAB_DEVICE=cuda, and torch sees no GPU here. Unset it, or set it to cpu.")
    capabilities = torch.cpu.get_capabilities()
    fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    return Device("cpu", name, *decide_dtype("cpu", fast))


def _setting(name: str, allowed) -> str:
    """What the environment says of `name`, one of the words `allowed`; "" where it says nothing."""
    value = os.environ.get(name, "").strip().lower()
    if value and value not in allowed:
        raise LabError(f"{name}={os.environ[name]!r} in the environment is unknown. Set it to {' or '.join(allowed)}, "
                       "or unset it.")
    return value


def machine(*packages: str) -> dict:
    """Where and with what something is measured, for a record's provenance.

    Parameters
    ----------
    packages : names as pip knows them, whose versions count

    Returns
    -------
    dict of "cpu" (the device's name), "threads" (int, of torch), "date" (ISO) and "versions" (dict of str)
    """
    import torch

    return {
        "cpu": find_device().name,
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def free_memory_bytes(kind: str = "cpu") -> int:
    """Bytes that a new tensor could take on the device, the limits of a container or of a systemd unit included."""
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    free = psutil.virtual_memory().available
    root = Path("/sys/fs/cgroup")
    try:
        own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), flags=re.MULTILINE)
    except (OSError, ValueError):
        own = None
    group = root / own[1] if own else root
    for folder in (group, *group.parents):
        if folder.is_relative_to(root):
            free = min(free, _free_in(folder, free))
    return max(free, 0)


def _free_in(group: Path, otherwise: int) -> int:
    """Bytes left below a control group's limit; `otherwise` where it has none."""
    try:
        limit = int((group / "memory.max").read_text())  # "max" is no limit, and no number
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # File cache counts as used, and is given back when memory runs short.
        return limit - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return otherwise


def hub_reachable(timeout_seconds: float = 2.0) -> bool:
    """Does the Hugging Face hub answer, asked as its own client asks?

    That is the hub in `HF_ENDPOINT`, through the proxies of the environment, and never where `HF_HUB_OFFLINE` is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        return _is_answer(get_session().head(f"{constants.ENDPOINT}/{A_FILE}", timeout=timeout_seconds).status_code)
    except Exception:  # of the client's library, which has been another before; a proxy's address that is none
        return False


def answers(host: str, timeout_seconds: float = 2.0) -> bool:
    """Does a host answer over HTTPS, asked through the proxies of the environment?"""
    try:
        import requests

        return _is_answer(requests.head(f"https://{host}", timeout=timeout_seconds).status_code)
    except Exception:  # requests raises a dozen types, and ValueErrors for what the environment says of proxies
        return False


def _is_answer(status: int) -> bool:
    """Is an HTTP status the host's own, and not that of a proxy or gateway that cannot reach it?"""
    return status < 500 and status not in (403, 407)


def use_threads() -> int:
    """Apply `LORA_LAB_THREADS`, if set, to torch; return the number of threads in use.

    On cores shared with other work one thread is often faster than two.

    Raises
    ------
    LabError
        `LORA_LAB_THREADS` is not a number of threads.
    """
    import torch

    wanted = os.environ.get("LORA_LAB_THREADS", "")
    if wanted.strip():
        if not re.fullmatch(r"\s*0*[1-9]\d{0,3}\s*", wanted) or int(wanted) > MOST_THREADS:
            raise LabError(
                f"LORA_LAB_THREADS={wanted!r} is not a number of threads: set it to 1 or more, {MOST_THREADS} at most, "
                "or unset it."
            )
        torch.set_num_threads(int(wanted))
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for the next tensor instead of giving them back to the system.

    A training step frees and takes the same buffers thousands of times; without this, each comes back as pages that
    must be zeroed again. Measured in turn in one go on two Zen 4 cores: 0.83 and 0.93 of the time a token, peak memory
    unchanged. Returns False, and does nothing, where the C library is another (macOS, Windows, musl).
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # glibc's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, GIB))


def fast_mode() -> bool:
    """True when `LORA_LAB_FAST=1`, and while nbgrader grades: notebooks then train a few steps only.

    Raises
    ------
    LabError
        `LORA_LAB_FAST` is neither yes nor no.
    """
    return SWITCH.get(_setting("LORA_LAB_FAST", SWITCH), False) or os.environ.get("NBGRADER_EXECUTION") == "autograde"


def runs_folder() -> Path:
    """Where the notebooks keep their training runs: `runs`, or what `LORA_LAB_RUNS` says, `~` expanded."""
    return user_path(os.environ.get("LORA_LAB_RUNS", "").strip() or "runs")
