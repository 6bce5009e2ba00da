"""Recorded results: of the embedded model, of the variants, and the pictures; data/README.md says how each was made."""

from .bits import perplexity_by_bits
from .memory import memory_measurements
from .update import weight_update

__all__ = ["memory_measurements", "perplexity_by_bits", "weight_update"]
