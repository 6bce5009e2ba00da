"""From adapters to plain weights, and from there to files for other programs (page 10)."""

from .checked import distance, merge, rounding
from .costs import adapted_layers, compare_merges, delta_weights, probe_batch, survival
from .export import export_gguf, export_merged
from .gguf_adapter import export_gguf_adapter
from .grids import FORMATS, Left, Rounded, compare_rounded, round_to, what_is_left
from .places import (
    can_repack,
    dequantized_copy,
    into_dequantized,
    into_four_bits,
    into_original,
    is_repacked,
    repacked,
)  # fmt: skip

__all__ = [
    "FORMATS", "Left", "Rounded", "adapted_layers", "can_repack", "compare_merges", "compare_rounded",
    "delta_weights", "dequantized_copy", "distance", "export_gguf", "export_gguf_adapter", "export_merged",
    "into_dequantized", "into_four_bits", "into_original", "is_repacked", "merge", "probe_batch", "repacked",
    "round_to", "rounding", "survival", "what_is_left",
]  # fmt: skip
