"""Base models, by name, from a folder or the hub: loading, quantizing, what this machine can do (pages 00, 08)."""

from .capabilities import report, require_four_bit
from .catalogue import MODELS, default_model, learning_rate
from .choice import larger_model
from .embedded import embedded_folder
from .footprint import footprint
from .registry import four_bit_problem, load_base, load_tokenizer, quantization_config
from .sources import name_of

__all__ = [
    "MODELS", "default_model", "embedded_folder", "footprint", "four_bit_problem", "larger_model", "learning_rate",
    "load_base", "load_tokenizer", "name_of", "quantization_config", "report", "require_four_bit",
]  # fmt: skip
