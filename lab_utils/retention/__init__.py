"""What fine-tuning costs: what is kept and what is forgotten, adapters turned down, and new directions (page 15)."""

from .intruders import Likeness, intruders, left_vectors, likeness
from .measuring import GENERAL, Reading, fixed_texts, forgetting, passages, questions, read_all
from .strength import at_strength, product_norm, random_like

__all__ = [
    "GENERAL", "Likeness", "Reading", "at_strength", "fixed_texts", "forgetting", "intruders", "left_vectors",
    "likeness", "passages", "product_norm", "questions", "random_like", "read_all",
]  # fmt: skip
