"""The 4-bit formats NF4 and FP4: codes, packing, double quantization, a layer (page 06)."""

from .codec import Quantized4Bit, dequantize_4bit, fp4_code, nf4_code, quantize_4bit
from .linear import Linear4bit

__all__ = [
    "Linear4bit", "Quantized4Bit", "dequantize_4bit", "fp4_code", "nf4_code", "quantize_4bit",
]  # fmt: skip
