"""The device to compute on, its dtype, and how many threads torch takes.

Each choice is a plain function of a few facts, so the choice for a GPU can be tested on a machine without one.
"""

import os
import platform
import re
from dataclasses import dataclass

from .environment import setting
from .errors import LabError

GIB = 2**30
MOST_THREADS = 1024


@dataclass(frozen=True)
class Device:
    """A device and what to do on it.

    Attributes
    ----------
    kind : "cuda" or "cpu"
    name : the processor's name
    compute_dtype : "bfloat16", "float16" or "float32", the fastest in which training is stable
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

    wanted = setting("LORA_LAB_DEVICE", ("cpu", "cuda"))
    if wanted != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Device("cuda", torch.cuda.get_device_name(), *decide_dtype("cuda", fast))
    if wanted == "cuda":
        raise LabError("LORA_LAB_DEVICE=cuda, and torch sees no GPU here. Unset it, or set it to cpu.")
    capabilities = torch.cpu.get_capabilities()
    fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    return Device("cpu", name, *decide_dtype("cpu", fast))


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
