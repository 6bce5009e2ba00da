"""A pretended CUDA card: the lab's CUDA branches run on a machine without one, in a separate process.

    from lab_utils.pretended import enable
    enable("T4")                                     # before models are loaded
    python -m lab_utils.pretended T4 lab_utils.finetune --output runs/dry   # a command under the card

Tensors stay real CPU tensors with real numbers. A storage that was put on the card has a label, and every operation is
held to CUDA's rules: its tensors are on one device; a tensor of the card has no `.numpy()` and takes random numbers
from the card's generator; no matrix product of integers; GradScaler unscales no bfloat16; nothing in a forked process;
a card that this build of torch does not know fails at its first kernel. float16 products are summed in float32, as
tensor cores sum them. `torch.cuda` (memory, capability, random state, events, two cards), autocast, GradScaler and
bitsandbytes (4 bits, int8, paging) work. A child process has a card only if it enables one.

What it cannot see:
- numerics of CUDA's kernels: the CPU's are used, in their own order, no TF32, and torch's in place of triton's;
- speed: its times mean nothing;
- memory beyond tensors: no workspaces, no fragmentation, no context, so that a real card runs out of memory earlier;
- streams: everything is done when the call returns, so that a missing `synchronize` is not noticed;
- a card that torch was not built for, after its first kernel; and which types and sizes each CUDA kernel supports,
  apart from the rules above.
"""

from .cards import CARDS, Card
from .overflow import overflowing
from .process import enable, enabled

__all__ = ["CARDS", "Card", "enable", "enabled", "overflowing"]
