"""LoRA itself: one layer, a whole model, adapter files (pages 03, 04, 10, 11)."""

from .files import read_adapter, save_adapter
from .layers import LoRALinear
from .states import adapter_state, load_adapter
from .whole_model import adapted_layers, inject, merge, take_off, trainable_parameters, unmerge

__all__ = [
    "LoRALinear", "adapted_layers", "adapter_state", "inject", "load_adapter", "merge", "read_adapter", "save_adapter",
    "take_off", "trainable_parameters", "unmerge",
]  # fmt: skip
