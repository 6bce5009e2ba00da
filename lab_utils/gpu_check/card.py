"""What the card is, and whether torch, bitsandbytes and the lab can use it."""

from ..device import GIB, find_device
from .sections import Finding, Setting, Skipped

SMALL = 64
FOUR_BIT_ERROR = 0.12  # of an NF4 round trip on normal numbers: 0.092 at block 64, here with room


def card(setting: Setting) -> Finding:
    """The card's facts, one product in float32 and one round trip through 4 bits."""
    import torch

    values = facts()
    values["name"] += " (pretended)" if setting.pretended else ""
    device = find_device()
    values["lab"] = str(device)
    if device.kind != "cuda":
        return Finding(False, f"the lab does not use this card: {device.reason}", values)
    numbers = torch.arange(SMALL * SMALL, dtype=torch.float32).reshape(SMALL, SMALL) / SMALL
    exact = numbers.double() @ numbers.double()
    found = (numbers.to("cuda") @ numbers.to("cuda")).cpu().double()
    values["product's relative error"] = float((found - exact).norm() / exact.norm())
    problems = [] if values["product's relative error"] < 1e-2 else ["a product of matrices is wrong"]
    problems += _four_bit_problems(setting, values)
    text = f"{values['name']}, {values['memory GiB']:.1f} GiB, computes in {device.compute_dtype}"
    return Finding(not problems, "; ".join([text, *problems]), values)


def facts() -> dict:
    """What torch says about the card that it uses first."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    free, total = torch.cuda.mem_get_info()
    return {
        "name": torch.cuda.get_device_name(),
        "cards": torch.cuda.device_count(),
        "capability": f"{major}.{minor}",
        "torch is built for": ", ".join(torch.cuda.get_arch_list()),
        "CUDA of torch": str(torch.version.cuda),
        "driver": driver(),
        "memory GiB": total / GIB,
        "free GiB": free / GIB,
        "bfloat16 units": bool(torch.cuda.is_bf16_supported(including_emulation=False)),
        "torch.cpu.get_capabilities": hasattr(torch.cpu, "get_capabilities"),
    }


def driver() -> str:
    """The driver's version as nvidia-smi says it; "unknown" without that program."""
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0].strip()


def _four_bit_problems(setting: Setting, values: dict) -> list[str]:
    """What is wrong with bitsandbytes here: its library is not the one for CUDA, or a round trip is too far off."""
    from ..models.registry import four_bit_problem

    if problem := four_bit_problem():
        return [problem]
    from bitsandbytes import cextension

    from ..models.capabilities import four_bit_error

    library = getattr(cextension, "lib", None)
    values["bitsandbytes' library"] = type(library).__name__
    values["it is built for CUDA"] = bool(getattr(library, "compiled_with_cuda", False))
    values["4-bit error"] = four_bit_error()
    problems = [] if values["4-bit error"] < FOUR_BIT_ERROR else ["a round trip through 4 bits is wrong"]
    if not setting.pretended and not values["it is built for CUDA"]:
        problems.append("bitsandbytes did not load its library for CUDA")
    return problems


def need_bytes(wanted: int, what: str) -> None:
    """Raise Skipped where the card has not so much memory free."""
    import torch

    free = torch.cuda.mem_get_info()[0]
    if free < wanted:
        raise Skipped(f"{what} takes about {wanted / GIB:.1f} GiB, and {free / GIB:.1f} GiB of this card are free")
