"""The device to compute on, its dtype, and how many threads torch takes.

Each choice is a plain function of a few facts, so the choice for a GPU can be tested on a machine without one.
"""

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .environment import setting
from .errors import LabError, choose

GIB = 2**30
MOST_THREADS = 1024
KINDS = ("cpu", "cuda")
ARCHITECTURE = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<letter>[af]?)")
JETSON = {(5, 3), (6, 2), (7, 2), (8, 7)}  # of NVIDIA's small computers, which need their own code


@dataclass(frozen=True)
class Device:
    """A device and what to do on it.

    Attributes
    ----------
    kind : "cuda" or "cpu"
    name : the processor's name
    compute_dtype : "bfloat16", "float16" or "float32", the fastest in which training is stable
    reason : one sentence, why this dtype; and why a GPU that is there is not used
    unused_gpu : that GPU's name, or ""
    """

    kind: str
    name: str
    compute_dtype: str
    reason: str
    unused_gpu: str = ""

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


def is_built_for(capability: tuple[int, int], built: Iterable[str]) -> bool:
    """Has a build of torch code that a GPU can run?

    Parameters
    ----------
    capability : (major, minor), the GPU's compute capability
    built : the architectures that torch was built for, as `torch.cuda.get_arch_list()` names them

    Machine code ("sm_86") runs on GPUs of the same major and the same or a later minor number, but not between a Jetson
    and other cards; code for the driver to compile ("compute_90") on every later GPU. A letter at the end ("sm_90a")
    ties code to that one kind, "f" to its family.

    Returns
    -------
    bool; True also where no name is of this form, as for AMD's GPUs

    >>> is_built_for((8, 9), ["sm_75", "sm_86"]), is_built_for((7, 0), ["sm_75", "sm_86"])
    (True, False)

    Source: NVIDIA, CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility".
    """
    capability = tuple(capability)
    known = [found for found in map(ARCHITECTURE.fullmatch, built) if found]
    for found in known:
        code = (int(found["major"]), int(found["minor"]))
        if found["letter"] == "a" or (found["kind"] == "sm" and JETSON & {code, capability}):
            runs = capability == code
        elif found["kind"] == "compute" and not found["letter"]:
            runs = capability >= code
        else:
            runs = capability[0] == code[0] and capability >= code
        if runs:
            return True
    return not known


def _why_unused() -> str:
    """Why torch cannot compute on the GPU that it sees, in words; "" if it can."""
    import torch

    built = torch.cuda.get_arch_list()
    if not built or is_built_for(capability := torch.cuda.get_device_capability(), built):
        return ""
    major, minor = capability
    return (
        f"the GPU {torch.cuda.get_device_name()} (compute capability {major}.{minor}) is not used, because "
        f"torch {torch.__version__} was built for {', '.join(built)} only"
    )


def find_device(kind: str | None = None) -> Device:
    """Look at this machine. `LORA_LAB_DEVICE=cpu` in the environment hides a GPU, `cuda` insists on one.

    A GPU that this build of torch has no code for is not used: torch sees it, and fails at the first operation.

    Parameters
    ----------
    kind : "cpu" or "cuda", optional
        The same as the environment variable, and before it.

    Raises
    ------
    LabError
        `kind` or `LORA_LAB_DEVICE` is neither, or is `cuda` where torch sees no GPU, or none that it was built for.
    """
    import torch

    wanted = setting("LORA_LAB_DEVICE", KINDS) if kind is None else choose("device", kind, KINDS)
    unused = why = ""
    if wanted != "cpu" and torch.cuda.is_available():
        why = _why_unused()
        if not why:
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
            return Device("cuda", torch.cuda.get_device_name(), *decide_dtype("cuda", fast))
        unused = torch.cuda.get_device_name()
    if wanted == "cuda":
        asked = "LORA_LAB_DEVICE=cuda" if kind is None else "device='cuda'"
        raise LabError(f"{asked}, and {why or 'torch sees no GPU here'}. Leave it out, or take cpu.")
    capabilities = _cpu_capabilities()
    fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    dtype, reason = decide_dtype("cpu", fast)
    if not capabilities:
        reason = "this torch does not tell whether the processor multiplies bfloat16 matrices"
    return Device("cpu", name, dtype, f"{reason}; {why}" if why else reason, unused)


def _cpu_capabilities() -> dict:
    """What torch says of the processor; of a release before 2.11, as much as can be had, which may be nothing."""
    import torch

    try:
        return dict(torch.cpu.get_capabilities())
    except (AttributeError, RuntimeError):
        probe = getattr(torch._C._cpu, "_is_avx512_bf16_supported", None)
        return {"avx512_bf16": probe()} if probe else {}


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
