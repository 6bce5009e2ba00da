"""The cards that can be pretended: what torch would say about each."""

from dataclasses import dataclass
from types import MappingProxyType

GIB, MIB = 2**30, 2**20
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")  # torch 2.8 and later, for CUDA 12.8


@dataclass(frozen=True)
class Card:
    """One kind of card, and how many a machine has.

    Attributes
    ----------
    name : str, as `torch.cuda.get_device_name` says it
    capability : (major, minor)
    memory_bytes : int, of each card, as `torch.cuda.mem_get_info` has it
    count : int, cards in the machine
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    count: int = 1

    @property
    def bfloat16(self) -> bool:
        """Does it multiply bfloat16 matrices in hardware?"""
        return self.capability >= (8, 0)

    @property
    def supported(self) -> bool:
        """Has this build of torch kernels for it? Those of one major number run on a later minor one."""
        built = [divmod(int(name.removeprefix("sm_")), 10) for name in ARCHITECTURES]
        return any(major == self.capability[0] and minor <= self.capability[1] for major, minor in built)


CARDS = MappingProxyType(
    {
        "T4": Card("Tesla T4", (7, 5), 15 * GIB - 300 * MIB),
        "2xT4": Card("Tesla T4", (7, 5), 15 * GIB - 300 * MIB, count=2),
        "L4": Card("NVIDIA L4", (8, 9), 22 * GIB),
        "A100": Card("NVIDIA A100-SXM4-40GB", (8, 0), 40 * GIB),
        "RTX2060": Card("NVIDIA GeForce RTX 2060", (7, 5), 6 * GIB),
        "P100": Card("Tesla P100-PCIE-16GB", (6, 0), 16 * GIB),
        "V100": Card("Tesla V100-SXM2-16GB", (7, 0), 16 * GIB),
    }
)
