"""From adapters to plain weights, and from there to files for other programs (page 10)."""

from .costs import adapted_layers, compare_merges, probe_batch, survival
from .export import export_gguf, export_merged
from .places import (
    can_repack,
    dequantized_copy,
    distance,
    into_dequantized,
    into_four_bits,
    is_repacked,
    merge,
    repacked,
    rounding,
)  # fmt: skip

__all__ = [
    "adapted_layers", "can_repack", "compare_merges", "dequantized_copy", "distance", "export_gguf",
    "export_merged", "into_dequantized", "into_four_bits", "is_repacked", "merge", "probe_batch", "repacked",
    "rounding", "survival",
]  # fmt: skip
