"""Recorded results: of the embedded model, of the variants, and the pictures; data/README.md says how each was made."""

from .recorded_bits import perplexity_by_bits
from .recorded_memory import memory_measurements
from .recorded_update import weight_update

__all__ = ["memory_measurements", "perplexity_by_bits", "weight_update"]
