"""bitsandbytes on a pretended card: its kernels for the CPU compute; pages are plain memory of the card."""

import torch

from ..quiet import quiet
from .places import put


def get_paged(*shape, dtype=torch.float32, device=None) -> torch.Tensor:
    """A tensor of zeros in unified memory, which torch's allocator does not count."""
    device = torch.device("cuda") if device is None else torch.device(device)
    made = put(torch.zeros(*shape, dtype=dtype), device.index or 0, counted=False)
    made.is_paged, made.page_deviceid = True, device.index or 0
    return made


def fill(tensor, value, device=None, prefetch=True) -> None:
    """Set all of a paged tensor's numbers."""
    tensor.fill_(value)


def install() -> bool:
    """Import bitsandbytes while no card is seen, so that it takes its CPU library, and give it pages.

    Returns
    -------
    bool, False where bitsandbytes is not installed
    """
    try:
        with quiet():
            import bitsandbytes.functional as functional
    except ImportError:
        return False
    functional.get_paged, functional.fill = get_paged, fill
    functional.prefetch_tensor = lambda tensor, to_cpu=False: None
    return True
