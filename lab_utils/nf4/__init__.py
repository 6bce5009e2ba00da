"""The 4-bit formats NF4, FP4, MXFP4 and NVFP4: codes, packing, double quantization, a layer (page 06)."""

from .blocks_of_floats import e2m1_code, round_to_mxfp4, round_to_nvfp4
from .codec import Quantized4Bit, af4_code, dequantize_4bit, fp4_code, nf4_code, quantize_4bit
from .levels import divided, even_code, levels_error, lloyd_max, round_to_levels, zeropoint_error
from .linear import Linear4bit

__all__ = [
    "Linear4bit", "Quantized4Bit", "af4_code", "dequantize_4bit", "divided", "e2m1_code", "even_code", "fp4_code",
    "levels_error", "lloyd_max", "nf4_code", "quantize_4bit", "round_to_levels", "round_to_mxfp4", "round_to_nvfp4",
    "zeropoint_error",
]  # fmt: skip
