"""Shapes and dtypes of what the reading code takes and gives, on sizes drawn at random.

Each function below is one of the library's with its shapes written down; jaxtyping and beartype compare them with every
call. They are packages for development: the library itself imports neither and pays nothing at run time.
"""

import inspect

import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Float32, Float64, Int8, TypeCheckError, UInt8, jaxtyped
from torch import Tensor, nn

from lab_utils import lowrank, nf4, quantize, variants
from lab_utils.nf4 import double_quant

shaped = jaxtyped(typechecker=beartype)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))  # (out, in)
SEEDS = st.integers(0, 2**16)


def matrix(sizes: tuple[int, ...], seed: int) -> Tensor:
    """Gaussian float32, the same for a seed."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


# ---- lowrank ----


@shaped
def best_rank_r(
    weight: Float[Tensor, "out in"], rank: int
) -> tuple[Float[Tensor, "out {rank}"], Float[Tensor, "{rank} in"]]:
    return lowrank.best_rank_r(weight, rank)


@shaped
def relative_error(weight: Float[Tensor, "out in"], approximation: Float[Tensor, "out in"]) -> float:
    return lowrank.relative_error(weight, approximation)


@shaped
def singular_values(weight: Float[Tensor, "out in"]) -> Float[Tensor, "{min(weight.shape)}"]:
    return lowrank.singular_values(weight)


@shaped
def energy(weight: Float[Tensor, "out in"]) -> Float[Tensor, "{min(weight.shape)}"]:
    return lowrank.energy(weight)


@shaped
def rank_of_energy(values: Float[Tensor, " count"], share: float) -> int:
    return lowrank.rank_of_energy(values, share)


@given(sizes=SIZES, seed=SEEDS)
def test_low_rank(sizes, seed):
    weight = matrix(sizes, seed)
    assert 1 <= rank_of_energy(singular_values(weight), 0.9) <= min(sizes)
    for rank in range(1, min(sizes) + 1):
        B, A = best_rank_r(weight, rank)
        relative_error(weight, B @ A)
    assert singular_values(weight).shape == energy(weight).shape


# ---- quantize ----


@shaped
def quantize_absmax(
    weight: Float[Tensor, "rows columns"], bits: int, axis: int | None, blocksize: int | None, scales: tuple[int, int]
) -> tuple[Int8[Tensor, "rows columns"], Float32[Tensor, "{scales[0]} {scales[1]}"]]:
    made = quantize.quantize_absmax(weight, bits, axis=axis, blocksize=blocksize)
    return made.indices, made.absmax


@shaped
def dequantize_absmax(indices: Int8[Tensor, "*shape"], made: quantize.QuantizedAbsmax) -> Float32[Tensor, "*shape"]:
    return quantize.dequantize_absmax(made)


@shaped
def quantize_zeropoint(
    weight: Float[Tensor, "rows columns"], bits: int, axis: int | None, blocksize: int | None, scales: tuple[int, int]
) -> tuple[
    UInt8[Tensor, "rows columns"], Float32[Tensor, "{scales[0]} {scales[1]}"], UInt8[Tensor, "{scales[0]} {scales[1]}"]
]:
    made = quantize.quantize_zeropoint(weight, bits, axis=axis, blocksize=blocksize)
    return made.indices, made.scale, made.zero


@shaped
def dequantize_zeropoint(
    indices: UInt8[Tensor, "*shape"], made: quantize.QuantizedZeroPoint
) -> Float32[Tensor, "*shape"]:
    return quantize.dequantize_zeropoint(made)


@given(sizes=SIZES, seed=SEEDS, bits=st.integers(2, 8), blocksize=st.integers(1, 12))
def test_quantized(sizes, seed, bits, blocksize):
    weight = matrix(sizes, seed)
    rows, columns = sizes
    by_axis_and_block = [
        (None, None, (1, 1)), (0, None, (rows, 1)), (1, None, (1, columns)),
        (None, blocksize, (rows, -(-columns // blocksize))),
    ]  # fmt: skip
    for axis, block, scales in by_axis_and_block:
        quantize_absmax(weight, bits, axis, block, scales)
        made = quantize.quantize_absmax(weight, bits, axis=axis, blocksize=block)
        dequantize_absmax(made.indices, made)
        quantize_zeropoint(weight, bits, axis, block, scales)
        made = quantize.quantize_zeropoint(weight, bits, axis=axis, blocksize=block)
        dequantize_zeropoint(made.indices, made)


# ---- nf4 ----


@shaped
def nf4_code() -> Float32[Tensor, "16"]:
    return nf4.nf4_code()


@shaped
def af4_code() -> Float32[Tensor, "16"]:
    return nf4.af4_code()


@shaped
def e2m1_code() -> Float32[Tensor, "15"]:
    return nf4.e2m1_code()


@shaped
def round_to_mxfp4(weight: Float[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    return nf4.round_to_mxfp4(weight)


@shaped
def round_to_nvfp4(weight: Float[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    return nf4.round_to_nvfp4(weight)


@shaped
def fp4_code() -> Float32[Tensor, "16"]:
    return nf4.fp4_code()


@shaped
def quantize_4bit(
    weight: Float[Tensor, "*shape"], bytes_: int, blocks: int, double_quant: bool
) -> tuple[UInt8[Tensor, "{bytes_} 1"], Float32[Tensor, "{blocks}"]]:
    made = nf4.quantize_4bit(weight, double_quant=double_quant)
    return made.packed, made.absmax


@shaped
def dequantize_4bit(weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    restored = nf4.dequantize_4bit(nf4.quantize_4bit(weight))
    assert restored.dtype == weight.dtype
    return restored


@shaped
def compress(absmax: Float32[Tensor, "blocks"], groups: int) -> tuple[
    UInt8[Tensor, "blocks"], Float32[Tensor, "{groups}"], Float32[Tensor, ""], Float32[Tensor, "blocks"]
]:  # fmt: skip
    made = double_quant.compress(absmax)
    return made.codes, made.absmax, made.offset, double_quant.restore(made)


@shaped
def even_code() -> Float64[Tensor, "16"]:
    return nf4.even_code()


@shaped
def divided(
    weight: Float[Tensor, "*shape"], blocksize: int, n: int
) -> tuple[Float64[Tensor, "{n}"], Float64[Tensor, "{n}"]]:
    return nf4.divided(weight, blocksize)


@shaped
def levels_error(weight: Float[Tensor, "*shape"], levels: Float[Tensor, "k"], blocksize: int) -> float:
    return nf4.levels_error(weight, levels, blocksize)


@shaped
def round_to_levels(
    weight: Float[Tensor, "*shape"], levels: Float[Tensor, "k"], blocksize: int
) -> Float64[Tensor, "*shape"]:
    return nf4.round_to_levels(weight, levels, blocksize)


@shaped
def zeropoint_error(weight: Float[Tensor, "*shape"], blocksize: int) -> float:
    return nf4.zeropoint_error(weight, blocksize)


@shaped
def lloyd_max(weight: Float[Tensor, "*shape"], blocksize: int) -> Float64[Tensor, "16"]:
    return nf4.lloyd_max(weight, blocksize)


@given(sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=SEEDS, blocksize=st.integers(1, 100))
def test_levels_of_ones_own(sizes, seed, blocksize):
    weight = matrix(sizes, seed)
    divided(weight, blocksize, weight.numel())
    levels_error(weight, even_code(), blocksize)
    round_to_levels(weight, even_code(), blocksize)
    zeropoint_error(weight, blocksize)
    if seed % 10 == 0:
        lloyd_max(weight, blocksize)


@given(sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=SEEDS, double=st.booleans())
def test_four_bits(sizes, seed, double):
    weights = sizes[0] * sizes[1]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        weight = matrix(sizes, seed).to(dtype)
        quantize_4bit(weight, -(-weights // 2), -(-weights // 64), double)
        dequantize_4bit(weight)
    compress(matrix((weights,), seed).abs(), -(-weights // 256))
    padded = torch.nn.functional.pad(weight.flatten(), (0, -weights % 32))
    assert round_to_mxfp4(padded).dtype == round_to_nvfp4(padded).dtype == torch.float32
    assert nf4_code().dtype == fp4_code().dtype == af4_code().dtype == e2m1_code().dtype


# ---- lora and its variants ----


@shaped
def parts(layer: nn.Module, weight: Float[Tensor, "out in"], rank: int) -> tuple[
    Float[Tensor, "{rank} in"], Float[Tensor, "out {rank}"], Float[Tensor, "out in"], Float[Tensor, "out in"]
]:  # fmt: skip
    return layer.lora_A, layer.lora_B, layer.delta_weight(), variants.learned_update(layer)


@shaped
def forward(layer: nn.Module, weight: Float[Tensor, "out in"], x: Float[Tensor, "*batch in"]) -> Float[
    Tensor, "*batch out"
]:  # fmt: skip
    return layer(x)


@given(sizes=SIZES, seed=SEEDS, name=st.sampled_from(["lora", *variants.VARIANTS]), batch=st.sampled_from([(), (2, 3)]))
def test_layers(sizes, seed, name, batch):
    rank = 1 + seed % min(sizes)
    base = nn.Linear(sizes[1], sizes[0])
    model = variants.inject(nn.Sequential(base), name, ["0"], rank=rank, alpha=2 * rank)
    layer = model[0]
    parts(layer, base.weight, rank)
    forward(layer, base.weight, matrix((*batch, sizes[1]), seed))


# ---- the declarations themselves ----


def test_every_function_that_takes_or_gives_tensors_has_its_shapes_written_down():
    """Of the reading code; those of lists of spectra and the measures of two equal tensors have none to write."""
    without = {"energy_shares", "random_spectra", "mse", "sqnr_db", "largest_error", "check_weight"}
    for module in (lowrank, quantize, nf4):
        for name, function in vars(module).items():
            if name.startswith("_") or not inspect.isfunction(function) or name in without:
                continue
            if function.__module__.startswith(module.__name__) and "Tensor" in str(inspect.signature(function)):
                assert name in globals(), f"{module.__name__}.{name}: write its shapes down here"


def test_a_product_of_the_wrong_shape_or_dtype_is_noticed():
    @shaped
    def turned(weight: Float[Tensor, "out in"]) -> Float32[Tensor, "out in"]:
        return weight.T

    turned(torch.ones(2, 2))
    for weight in (torch.ones(2, 3), torch.ones(2, 2).double()):
        with pytest.raises(TypeCheckError):
            turned(weight)
