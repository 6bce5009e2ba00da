"""Base models: the registry, loading and quantizing one, what this machine can do (pages 00, 08)."""

from .capabilities import report, require_four_bit
from .registry import MODELS, default_model, footprint, four_bit_problem, load_base, load_tokenizer, quantization_config

__all__ = [
    "MODELS", "default_model", "footprint", "four_bit_problem", "load_base", "load_tokenizer",
    "quantization_config", "report", "require_four_bit",
]  # fmt: skip
