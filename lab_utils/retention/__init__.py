"""What fine-tuning costs: what is kept and what is forgotten, adapters turned down, and new directions (page 15)."""

from ..recorded.forgetting import at_skill, by_epoch, load_epochs, load_forgetting
from .comparing import Change, apart, by_strength, change, panels, paths, risen, rises, table
from .equal_skill import Paid, lowest_common, paid_at, stops
from .intruders import Likeness, intruders, left_vectors, likeness
from .measuring import GENERAL, KINDS, Reading, fixed_texts, forgetting, passages, questions, read_all
from .strength import adapter_matrices, at_strength, product_norm, random_like, swapped

__all__ = [
    "GENERAL", "KINDS", "Change", "Likeness", "Paid", "Reading", "adapter_matrices", "apart", "at_skill",
    "at_strength", "by_epoch", "by_strength", "change", "fixed_texts", "forgetting", "intruders", "left_vectors",
    "likeness", "load_epochs", "load_forgetting", "lowest_common", "paid_at", "panels", "passages", "paths",
    "product_norm", "questions", "random_like", "read_all", "risen", "rises", "stops", "swapped", "table",
]  # fmt: skip
