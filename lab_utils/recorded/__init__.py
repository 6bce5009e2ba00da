"""Recorded results of the embedded model, the variants and pictures; data/README.md says how each was made."""

from .bits import perplexity_by_bits
from .learning_curve import curve_points, load_learning_curve
from .memory import memory_measurements
from .museum import museum_runs
from .pictures import Samples, load_samples
from .probes import load_probes
from .rank_and_alpha import best_rate, reader_runs
from .requantization import requantized_merges
from .seeds import seed_runs
from .sentences import sentences_by_bits
from .style_parts import at_best_rate, style_parts
from .update import weight_update
from .variants import by_variant, load_race, load_variants

__all__ = [
    "Samples", "at_best_rate", "best_rate", "by_variant", "curve_points", "load_learning_curve", "load_probes",
    "load_race", "load_samples", "load_variants", "memory_measurements", "museum_runs", "perplexity_by_bits",
    "reader_runs", "requantized_merges", "seed_runs", "sentences_by_bits", "style_parts", "weight_update",
]  # fmt: skip
