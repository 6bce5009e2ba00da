"""Recorded results of the embedded model, the variants and pictures; data/README.md says how each was made."""

from .bits import perplexity_by_bits
from .learning_curve import curve_points, load_learning_curve
from .memory import memory_measurements
from .pictures import Samples, load_samples
from .update import weight_update
from .variants import by_variant, load_variants

__all__ = [
    "Samples", "by_variant", "curve_points", "load_learning_curve", "load_samples", "load_variants",
    "memory_measurements", "perplexity_by_bits", "weight_update",
]  # fmt: skip
