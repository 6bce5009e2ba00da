"""Variants of LoRA behind its interface: one class per variant, all in `VARIANTS` (page 11).

    inject(model, "dora", "all-linear", rank=8, alpha=16)
    optimizer = torch.optim.AdamW(optimizer_groups(model, "dora", learning_rate=2e-3))
    loss.backward(); before_step(model); optimizer.step(); after_step(model)
"""

from .catalogue import VARIANTS, Variant
from .delta_lora import DeltaLoRALinear
from .dora import DoRALinear
from .lora_fa import LoRAFALinear
from .lora_plus import lora_plus_groups
from .pissa import PiSSALinear
from .vera import SharedMatrices, VeRALinear
from .whole_model import after_step, before_step, inject, learned_update, optimizer_groups

__all__ = [
    "VARIANTS",
    "DeltaLoRALinear",
    "DoRALinear",
    "LoRAFALinear",
    "PiSSALinear",
    "SharedMatrices",
    "Variant",
    "VeRALinear",
    "after_step",
    "before_step",
    "inject",
    "learned_update",
    "lora_plus_groups",
    "optimizer_groups",
]
