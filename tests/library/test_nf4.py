"""nf4: the codes and the bytes by hand, then everything bit for bit as bitsandbytes writes it on a CPU."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab_utils.errors import LabError
from lab_utils.memory.peak import tensor_peak
from lab_utils.nf4 import codec as nf4
from lab_utils.nf4.codec import BLOCKSIZES, af4_code, dequantize_4bit, fp4_code, nf4_code, quantize_4bit

bnb = pytest.importorskip("bitsandbytes.functional")
AS_BITSANDBYTES = settings(derandomize=True, database=None, deadline=None, max_examples=150)
TYPES = ("nf4", "fp4")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
any_type = pytest.mark.parametrize("quant_type", TYPES)


@pytest.fixture(autouse=True, scope="module")
def nothing_is_compiled():
    """bitsandbytes compiles one of its paths again for each shape: seconds each, and the numbers are the same."""
    with torch.compiler.set_stance("force_eager"):
        yield


def same_bits(ours, theirs):
    """Equal in dtype, shape and every bit; a zero's sign counts."""
    whole = {4: torch.int32, 2: torch.int16, 1: torch.uint8}[ours.element_size()]
    same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
    return same and torch.equal(ours.contiguous().view(whole), theirs.contiguous().view(whole))


def theirs(weight, blocksize=64, quant_type="nf4", double_quant=False):
    return bnb.quantize_4bit(weight, blocksize=blocksize, quant_type=quant_type, compress_statistics=double_quant)


def their_dense(packed, state):
    """bitsandbytes' dequantized weight, asked for as one long row: see `test_bitsandbytes_skips_the_end_of_a_row`."""
    shape, state.shape = state.shape, torch.Size((1, math.prod(state.shape)))
    dense, state.shape = bnb.dequantize_4bit(packed, state).view(shape), shape
    return dense


def assert_same_as_bitsandbytes(weight, blocksize, quant_type, double_quant):
    packed, state = theirs(weight, blocksize, quant_type, double_quant)
    quantized = quantize_4bit(weight, blocksize, quant_type, double_quant)
    assert same_bits(quantized.packed, packed)
    if double_quant:
        nested = quantized.nested
        assert same_bits(nested.codes, state.absmax) and same_bits(nested.absmax, state.state2.absmax)
        assert same_bits(nested.offset, state.offset)
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
        assert same_bits(quantized.absmax, absmax)
    else:
        assert quantized.nested is None and same_bits(quantized.absmax, state.absmax)
    assert same_bits(dequantize_4bit(quantized), their_dense(packed, state))


# ---- Codes ----


def test_the_codes_are_bitsandbytes_to_the_last_bit():
    assert same_bits(nf4_code(), bnb.get_4bit_type("nf4", device="cpu"))
    assert same_bits(fp4_code(), bnb.get_4bit_type("fp4", device="cpu").sort().values)
    assert torch.equal(af4_code(), bnb.get_4bit_type("af4", device="cpu").float().sort().values)
    for code in (nf4_code(), fp4_code()):
        assert code.shape == (16,) and (code.diff() >= 0).all() and code[0] == -1 and code[-1] == 1


def test_nf4_has_equal_steps_of_probability_on_each_side():
    """Φ of the values, stretched back to the largest normal quantile, is evenly spaced; zero belongs to both sides."""
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 0.5 * ((1 - 1 / 30) + (1 - 1 / 32))
    largest = float(normal.icdf(torch.tensor(offset)))
    probability = normal.cdf(nf4_code() * largest)
    torch.testing.assert_close(probability[:8], torch.linspace(1 - offset, 0.5, 8), atol=1e-6, rtol=0)
    torch.testing.assert_close(probability[7:], torch.linspace(0.5, offset, 9), atol=1e-6, rtol=0)


def test_fp4_by_hand():
    """Exponents 1 to 3 with one bit of mantissa give 2, 3, 4, 6, 8, 12; then a subnormal 1/16 and zero."""
    positive = [0, 1 / 16, 2, 3, 4, 6, 8, 12]
    assert same_bits(fp4_code()[8:], torch.tensor(positive) / 12)
    assert torch.equal(fp4_code(), -fp4_code().flip(0))


# ---- Bytes by hand ----


def test_the_first_weight_is_in_the_upper_four_bits():
    weight = torch.tensor([[1.0, -1.0, 0.0, 0.5626170039176941]]) * 4
    quantized = quantize_4bit(weight, 32)
    assert quantized.packed.tolist() == [[15 * 16 + 0], [7 * 16 + 13]] and quantized.absmax.tolist() == [4.0]
    assert torch.equal(dequantize_4bit(quantized), weight)
    by_pattern = quantize_4bit(torch.tensor([1.0, -1.0, 0.0, 8 / 12, -1 / 192, -2 / 12]), 32, "fp4")
    assert by_pattern.packed.tolist() == [[0b0011_1011], [0b0000_0010], [0b1001_1110]]


@any_type
def test_an_odd_count_is_filled_with_zero(quant_type):
    quantized = quantize_4bit(torch.tensor([1.0, 1.0, 1.0]), 32, quant_type)
    top, zero = (15, 7) if quant_type == "nf4" else (3, 0)
    assert quantized.packed.tolist() == [[top * 17], [top * 16 + zero]]
    assert dequantize_4bit(quantized).tolist() == [1.0, 1.0, 1.0]


@any_type
def test_every_value_of_the_code_comes_back(quant_type):
    code = nf4_code() if quant_type == "nf4" else fp4_code()
    weight = code.repeat(2, 4) * torch.tensor([[3.0], [0.01]])  # one block a row
    assert torch.equal(dequantize_4bit(quantize_4bit(weight, 64, quant_type)), weight)


@any_type
def test_the_middle_goes_to_the_lower_value_and_its_neighbours_to_their_side(quant_type):
    code = nf4_code() if quant_type == "nf4" else fp4_code()
    code = code.unique()
    middle = (code[:-1] + code[1:]) / 2
    low, high = torch.nextafter(middle, torch.tensor(-2.0)), torch.nextafter(middle, torch.tensor(2.0))
    for values, expected in ((low, code[:-1]), (middle, code[:-1]), (high, code[1:])):
        weight = torch.cat([values, torch.ones(1)])  # the 1 makes absmax 1
        assert torch.equal(dequantize_4bit(quantize_4bit(weight, 32, quant_type))[:-1], expected)


def test_a_block_of_zeros_stays_zero_and_disturbs_no_other():
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    quantized = quantize_4bit(weight)
    dense = dequantize_4bit(quantized)
    assert quantized.absmax[1] == 0 and not dense[1].any()
    assert torch.equal(dense[[0, 2, 3]], dequantize_4bit(quantize_4bit(weight[[0, 2, 3]])))


# ---- Equal to bitsandbytes ----

SHAPES = ((1,), (7,), (64,), (1001,), (3, 5), (6, 96), (16, 64), (33, 130), (2, 3, 64), (9, 2048))


@st.composite
def weights(draw):
    """Weights of many kinds: random, on and beside the middles, of few values, with zero blocks, at any scale."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(SHAPES))
    weight = torch.randn(shape, generator=generator)
    kind = draw(st.sampled_from(["gauss", "middles", "code", "whole", "zeros", "constant", "outlier", "negative"]))
    if kind in ("middles", "code"):
        code = (nf4_code() if draw(st.booleans()) else fp4_code()).unique()
        values = torch.cat([(code[:-1] + code[1:]) / 2, code[[0, -1]]]) if kind == "middles" else code
        weight = values[torch.randint(0, len(values), shape, generator=generator)]
        side = draw(st.sampled_from([0.0, -2.0, 2.0]))
        if side and kind == "middles":
            weight = torch.where(weight.abs() < 1, torch.nextafter(weight, torch.tensor(side)), weight)
    elif kind == "whole":
        weight = torch.randint(-3, 4, shape, generator=generator).float()
    elif kind == "zeros":
        weight = torch.where(torch.rand(shape, generator=generator) < 0.9, 0.0, weight)
        weight.view(-1)[: weight.numel() // 2] = 0
    elif kind == "constant":
        weight = torch.full(shape, float(weight.view(-1)[0]))
    elif kind == "outlier":
        weight.view(-1)[-1] = 1000.0
    elif kind == "negative":
        weight = -weight.abs()
    dtype = draw(st.sampled_from(DTYPES))
    limit = {torch.float32: 34, torch.bfloat16: 34, torch.float16: 1}[dtype]
    scale = 2.0 ** draw(st.integers(-20, 6)) if draw(st.booleans()) else 10.0 ** draw(st.integers(-limit - 8, limit))
    return (weight * scale).to(dtype)


@AS_BITSANDBYTES
@given(weights(), st.sampled_from(BLOCKSIZES), st.sampled_from(TYPES), st.booleans())
@example(torch.zeros(3, 64), 64, "nf4", True)
@example(torch.zeros(33), 32, "fp4", True)
@example(torch.full((5, 64), 2.0**-149), 32, "nf4", True)
@example(torch.full((40, 64), 3e38), 64, "nf4", False)
@example(torch.full((1, 64), 0.5, dtype=torch.float16), 64, "nf4", True)
def test_every_bit_equals_bitsandbytes(weight, blocksize, quant_type, double_quant):
    assert_same_as_bitsandbytes(weight, blocksize, quant_type, double_quant)


@any_type
@pytest.mark.parametrize("blocksize", BLOCKSIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_several_slices_equal_bitsandbytes(monkeypatch, quant_type, blocksize, dtype):
    monkeypatch.setattr(nf4, "SLICE", 2 * max(BLOCKSIZES))
    weight = torch.randn(7, 4099, generator=torch.Generator().manual_seed(blocksize))
    assert weight.numel() > 3 * nf4.SLICE and weight.numel() % blocksize
    assert_same_as_bitsandbytes((weight * 0.02).to(dtype), blocksize, quant_type, True)


def test_a_large_matrix_equals_bitsandbytes():
    weight = torch.randn(1100, 2048, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert weight.numel() > 2 * nf4.SLICE and nf4.SLICE % max(BLOCKSIZES) == 0
    assert_same_as_bitsandbytes(weight, 64, "nf4", True)


@any_type
def test_a_transposed_weight_is_read_row_by_row(quant_type):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).T
    assert not weight.is_contiguous()
    assert_same_as_bitsandbytes(weight, 64, quant_type, True)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="the fault is in the AVX-512 kernel")
@any_type
@pytest.mark.parametrize(("shape", "blocksize"), [((192, 576), 256), ((192, 576), 128), ((8, 96), 64), ((12, 48), 32)])
def test_bitsandbytes_skips_the_end_of_a_row(quant_type, shape, blocksize):
    """Where blocks run across the ends of rows, its kernel finds the absmax as if each row had whole blocks only."""
    import bitsandbytes

    if bitsandbytes.__version__ != "0.50.2":
        pytest.skip(f"a known fault of bitsandbytes 0.50.2; this is {bitsandbytes.__version__}")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    packed, state = theirs(weight, blocksize, quant_type)
    wrong, right = bnb.dequantize_4bit(packed, state), dequantize_4bit(quantize_4bit(weight, blocksize, quant_type))
    assert same_bits(right, their_dense(packed, state)) and not torch.equal(wrong, right)
    rows, columns = shape
    position = torch.arange(rows * columns).view(shape)
    as_it_should, as_it_does = position // blocksize, position // columns * (columns // blocksize)
    as_it_does = as_it_does + position % columns // blocksize
    ones = dequantize_4bit(quantize_4bit(weight, blocksize, quant_type)) / state.absmax[as_it_should]
    torch.testing.assert_close(ones * state.absmax[as_it_does], wrong)
    error = [float((dense - weight).norm() / weight.norm()) for dense in (right, wrong)]
    assert error[0] < 0.16 and error[1] > 1.3 * error[0]


# ---- Size, error, memory ----


def test_bits_per_parameter_by_hand():
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(3))
    count = weight.numel()
    assert quantize_4bit(weight).bits_per_parameter == 4 + 32 / 64
    assert quantize_4bit(weight, 128).bits_per_parameter == 4 + 32 / 128
    # 8 bits per block, 32 bits for 256 blocks, and 32 for the offset
    double = quantize_4bit(weight, double_quant=True).bits_per_parameter
    assert double == 4 + 8 / 64 + 32 / (64 * 256) + 32 / count
    assert round(double, 3) == 4.127
    assert 4 + 32 / 64 - (double - 32 / count) == 0.373046875


def test_nf4_fits_normal_weights_better_than_fp4_and_whole_numbers():
    from lab_utils.quantize import dequantize_absmax, quantize_absmax, sqnr_db

    weight = torch.randn(256, 1024, generator=torch.Generator().manual_seed(4))
    relative = {name: dequantize_4bit(quantize_4bit(weight, 64, name)) for name in TYPES}
    relative["int4"] = dequantize_absmax(quantize_absmax(weight, 4, blocksize=64))
    error = {name: 10 ** (-sqnr_db(weight, dense) / 20) for name, dense in relative.items()}
    assert {name: round(value, 3) for name, value in error.items()} == {"nf4": 0.092, "fp4": 0.122, "int4": 0.108}


def test_another_dtype_can_be_asked_for():
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(5)).bfloat16()
    quantized = quantize_4bit(weight)
    full = dequantize_4bit(quantized, torch.float32)
    assert full.dtype == torch.float32 and torch.equal(full.bfloat16(), dequantize_4bit(quantized))
    assert not torch.equal(full, full.bfloat16().float())  # the product is rounded once, at the end


def test_peak_extra_memory():
    """Counted at torch's allocator, exactly; `make bench` measures the process, on 4096 × 4096."""
    weight = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(6))
    quantized = quantize_4bit(weight, double_quant=True)
    assert 0.125 < tensor_peak(lambda: quantize_4bit(weight, double_quant=True)) / weight.nbytes <= 0.3
    assert 1.0 <= tensor_peak(lambda: dequantize_4bit(quantized)) / weight.nbytes <= 1.1


# ---- What is refused ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocksize": 48}, "blocksize=48 .*32, 64"),
        ({"blocksize": True}, "blocksize=True"),
        ({"blocksize": 64.0}, "blocksize=64.0"),
        ({"quant_type": "int4"}, "quant_type 'int4'.*nf4, fp4"),
        ({"double_quant": 1}, "double_quant=1"),
        ({"weight": torch.ones(2, dtype=torch.float64)}, r"torch.float64.*\.float\(\)"),
        ({"weight": [1.0]}, "weight is list"),
        ({"weight": torch.ones(0, 3)}, r"shape \(0, 3\)"),
        ({"weight": torch.tensor(1.0)}, r"shape \(\)"),
        ({"weight": torch.tensor([1.0] * 64 + [math.nan])}, "NaN or infinity"),
        ({"weight": torch.tensor([math.inf] + [1.0] * 63)}, "NaN or infinity"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(LabError, match=message):
        quantize_4bit(**{"weight": torch.ones(2, 64), **arguments})


def test_a_parameter_is_read_and_left_alone():
    weight = torch.nn.Parameter(torch.randn(4, 64))
    before = weight.detach().clone()
    quantized = quantize_4bit(weight, double_quant=True)
    assert torch.equal(weight, before) and not dequantize_4bit(quantized).requires_grad
