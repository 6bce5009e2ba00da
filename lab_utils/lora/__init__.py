"""LoRA itself: one layer, a whole model, adapter files (pages 03, 04, 10)."""

from .digits import LAYERS, TASKS, accuracy, adapted, fit, pretrained, split
from .files import read_adapter, save_adapter
from .layers import LoRALinear
from .whole_model import (
    adapted_layers,
    adapter_state,
    inject,
    load_adapter,
    merge,
    take_off,
    trainable_parameters,
    unmerge,
)  # fmt: skip

__all__ = [
    "LAYERS",
    "TASKS",
    "LoRALinear",
    "accuracy",
    "adapted",
    "adapted_layers",
    "adapter_state",
    "fit",
    "inject",
    "load_adapter",
    "merge",
    "pretrained",
    "read_adapter",
    "save_adapter",
    "split",
    "take_off",
    "trainable_parameters",
    "unmerge",
]  # fmt: skip
