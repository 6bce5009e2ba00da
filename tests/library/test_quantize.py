"""quantize: worked by hand and in numpy, then the laws of both methods at every granularity, then the corners."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.errors import LabError
from lab_utils.quantize import (
    dequantize_absmax,
    dequantize_zeropoint,
    largest_error,
    mse,
    quantize_absmax,
    quantize_zeropoint,
    sqnr_db,
)

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=50)
METHODS = {"absmax": (quantize_absmax, dequantize_absmax), "zeropoint": (quantize_zeropoint, dequantize_zeropoint)}
both = pytest.mark.parametrize("method", METHODS)


@st.composite
def matrices(draw):
    """Up to 6 × 40 weights at any scale: Gaussian, with an outlier, of one sign, of few values, constant or zero."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(rows, columns, generator=generator)
    kind = draw(st.sampled_from(["gauss", "outlier", "negative", "positive", "few", "constant", "zero"]))
    if kind == "outlier":
        weight[0, -1] = 100.0
    elif kind in ("negative", "positive"):
        weight = weight.abs() * (1 if kind == "positive" else -1)
    elif kind == "few":
        weight = torch.randint(-2, 3, (rows, columns), generator=generator).float()
    elif kind in ("constant", "zero"):
        weight = torch.full_like(weight, float(weight[0, 0]) if kind == "constant" else 0.0)
    return weight * 10.0 ** draw(st.integers(-30, 30))


granularities = st.one_of(
    st.just({}),
    st.sampled_from([{"axis": 0}, {"axis": 1}, {"axis": -1}]),
    st.sampled_from([1, 3, 16, 64]).map(lambda size: {"blocksize": size}),
)
any_bits = st.integers(2, 8)


def steps(quantized, shape):
    """The width of a step at every weight, worked out one weight at a time."""
    top = 2 ** (quantized.bits - 1) - 1
    values = quantized.absmax / top if hasattr(quantized, "absmax") else quantized.scale
    if quantized.blocksize is None:
        return values.expand(shape)
    rows, columns = shape
    return torch.tensor([[float(values[i, j // quantized.blocksize]) for j in range(columns)] for i in range(rows)])


# ---- By hand ----


def test_absmax_by_hand():
    weight = torch.tensor([[0.5, -2.0, 1.0, 0.0]])
    quantized = quantize_absmax(weight)
    assert quantized.indices.tolist() == [[32, -127, 64, 0]]  # 31.75, -127, 63.5 (to even), 0
    assert quantized.indices.dtype == torch.int8 and quantized.absmax.item() == 2.0
    expected = torch.tensor([[32 / 127 * 2, -2.0, 64 / 127 * 2, 0.0]])
    torch.testing.assert_close(dequantize_absmax(quantized), expected, rtol=2e-7, atol=0)


def test_zeropoint_by_hand():
    weight = torch.tensor([[-1.0, 0.0, 2.0, 0.2]])
    quantized = quantize_zeropoint(weight, bits=2)  # scale 3 / 3 = 1, zero 1
    assert (quantized.scale.item(), quantized.zero.item()) == (1.0, 1)
    assert quantized.indices.tolist() == [[0, 1, 3, 1]] and quantized.indices.dtype == torch.uint8
    assert dequantize_zeropoint(quantized).tolist() == [[-1.0, 0.0, 2.0, 0.0]]


def test_two_bits_by_absmax_are_three_levels():
    weight = torch.linspace(-1, 1, 9)
    assert quantize_absmax(weight, bits=2).indices.tolist() == [-1, -1, 0, 0, 0, 0, 0, 1, 1]  # ±0.5 rounds to even


def test_the_factor_and_absmax_say_the_same():
    """Keras divides by 127 / absmax; bitsandbytes multiplies by absmax / 127."""
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    quantized = quantize_absmax(weight, axis=0)
    factor = 127 / quantized.absmax
    torch.testing.assert_close(quantized.indices / factor, dequantize_absmax(quantized), rtol=1e-6, atol=0)


def test_granularity_by_hand():
    weight = torch.tensor([[1.0, -2.0, 3.0, 0.5, -7.0], [8.0, 0.0, 0.0, 0.0, 0.25]])
    assert quantize_absmax(weight).absmax.tolist() == [[8.0]]
    assert quantize_absmax(weight, axis=0).absmax.tolist() == [[7.0], [8.0]]
    for axis in (1, -1):
        assert quantize_absmax(weight, axis=axis).absmax.tolist() == [[8.0, 2.0, 3.0, 0.5, 7.0]]
    by_block = quantize_absmax(weight, blocksize=2)  # the last block of a row holds one weight
    assert by_block.absmax.tolist() == [[2.0, 3.0, 7.0], [8.0, 0.0, 0.25]]
    assert by_block.indices.tolist() == [[64, -127, 127, 21, -127], [127, 0, 0, 0, 127]]
    assert by_block.bits_per_parameter == 8 + 32 * 6 / 10
    assert quantize_zeropoint(weight, bits=4, axis=0).bits_per_parameter == 4 + 40 * 2 / 10


# ---- Against numpy ----


@LAW
@given(matrices(), any_bits)
def test_rows_equal_numpy(weight, bits):
    top, single = 2 ** (bits - 1) - 1, np.float32
    for row, indices in zip(weight.numpy(), quantize_absmax(weight, bits, axis=0).indices, strict=True):
        absmax = np.abs(row).max() or single(1)
        assert indices.tolist() == np.rint(row / absmax * single(top)).astype(int).tolist()
    quantized = quantize_zeropoint(weight, bits, axis=0)
    top = single(2**bits - 1)
    for row, indices, zero in zip(weight.numpy(), quantized.indices, quantized.zero, strict=True):
        low, high = min(row.min(), single(0)), max(row.max(), single(0))
        scale = max((high - low) / top, single(2.0**-126))
        assert zero.item() == np.rint(-low / scale)
        expected = np.clip(np.rint(row / scale) + np.rint(-low / scale), 0, top)
        assert indices.tolist() == expected.astype(int).tolist()


# ---- Laws ----


@both
@LAW
@given(weight=matrices(), bits=any_bits, how=granularities)
def test_an_error_is_at_most_half_a_step(method, weight, bits, how):
    quantize, dequantize = METHODS[method]
    quantized = quantize(weight, bits, **how)
    error = (dequantize(quantized).double() - weight.double()).abs()
    assert (error <= steps(quantized, weight.shape).double() * (0.5 + 1e-4)).all()


@both
@LAW
@given(weight=matrices(), bits=any_bits, how=granularities)
def test_quantizing_what_was_dequantized_changes_nothing(method, weight, bits, how):
    quantize, dequantize = METHODS[method]
    once = quantize(weight, bits, **how)
    twice = quantize(dequantize(once), bits, **how)
    if method == "absmax":
        assert torch.equal(twice.indices, once.indices) and torch.equal(twice.absmax, once.absmax)
    else:  # the range it finds is the one between levels in use, at most half a step narrower on either side
        distance = (dequantize(twice).double() - dequantize(once).double()).abs()
        assert (distance <= steps(once, weight.shape).double() * (0.5 + 1e-4)).all()


@both
@LAW
@given(weight=matrices(), bits=any_bits, how=granularities, power=st.integers(-10, 10))
def test_the_unit_of_the_weights_does_not_matter(method, weight, bits, how, power):
    quantize, dequantize = METHODS[method]
    quantized, scaled = quantize(weight, bits, **how), quantize(weight * 2.0**power, bits, **how)
    assert torch.equal(scaled.indices, quantized.indices)
    if weight.any():
        assert torch.equal(dequantize(scaled), dequantize(quantized) * 2.0**power)


@LAW
@given(matrices(), any_bits, granularities)
def test_absmax_treats_both_signs_alike(weight, bits, how):
    plus, minus = quantize_absmax(weight, bits, **how), quantize_absmax(-weight, bits, **how)
    assert torch.equal(minus.indices, -plus.indices) and torch.equal(minus.absmax, plus.absmax)
    assert plus.indices.abs().max() == (2 ** (bits - 1) - 1 if weight.any() else 0)


@LAW
@given(matrices(), any_bits, st.sampled_from([1, 3, 16, 64]))
def test_blocks_have_no_larger_step_and_so_no_larger_bound(weight, bits, blocksize):
    by_block, whole = quantize_absmax(weight, bits, blocksize=blocksize), quantize_absmax(weight, bits)
    assert (by_block.absmax <= whole.absmax).all() and by_block.absmax.max() == whole.absmax
    step = float(whole.absmax) / (2 ** (bits - 1) - 1)
    assert largest_error(weight, dequantize_absmax(by_block)) <= step * (0.5 + 1e-4)


def test_blocks_contain_an_outlier():
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 60.0
    whole = dequantize_absmax(quantize_absmax(weight, 4))
    by_block = dequantize_absmax(quantize_absmax(weight, 4, blocksize=64))
    assert largest_error(weight, by_block) < largest_error(weight, whole) and mse(weight, by_block) < mse(weight, whole)
    assert not whole[1:].any()  # beside it a whole step is 8.6: all other weights became zero
    alone = dequantize_absmax(quantize_absmax(weight[:, 64:], 4, blocksize=64))
    assert torch.equal(by_block[:, 64:], alone)  # the other blocks do not notice


@both
@LAW
@given(weight=matrices(), bits=any_bits, how=granularities, data=st.data())
def test_zero_stays_exactly_zero(method, weight, bits, how, data):
    quantize, dequantize = METHODS[method]
    weight[:, data.draw(st.integers(0, weight.shape[1] - 1))] = 0
    assert (dequantize(quantize(weight, bits, **how))[weight == 0] == 0).all()


@both
def test_more_bits_mean_less_error_about_6_db_a_bit(method):
    quantize, dequantize = METHODS[method]
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(3))
    approximations = [dequantize(quantize(weight, bits, blocksize=64)) for bits in range(2, 9)]
    errors = [mse(weight, a) for a in approximations]
    assert all(more > 2 * less for more, less in itertools.pairwise(errors))
    ratios = [sqnr_db(weight, a) for a in approximations]
    for step, (low, high) in enumerate(itertools.pairwise(ratios[2:])):
        assert abs(high - low - 20 * math.log10(2)) < 0.8, step + 4


def test_zeropoint_wins_where_all_weights_have_one_sign():
    weight = torch.rand(16, 64, generator=torch.Generator().manual_seed(4))
    by_zero, by_absmax = dequantize_zeropoint(quantize_zeropoint(weight)), dequantize_absmax(quantize_absmax(weight))
    assert mse(weight, by_absmax) > 3.5 * mse(weight, by_zero)  # half the step: a quarter of the squared error


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_are_computed_in_float32(method, dtype):
    quantize, dequantize = METHODS[method]
    weight = torch.randn(8, 50, generator=torch.Generator().manual_seed(5)).to(dtype)
    short, full = quantize(weight, 8, blocksize=16), quantize(weight.float(), 8, blocksize=16)
    assert torch.equal(short.indices, full.indices) and torch.equal(dequantize(short), dequantize(full))
    assert dequantize(short).dtype == torch.float32


# ---- Corners ----


@both
@pytest.mark.parametrize("value", [0.0, 3.7, -3.7, 1e-30, -1e38])
@pytest.mark.parametrize("how", [{}, {"axis": 0}, {"blocksize": 4}])
def test_a_constant_comes_back(method, value, how):
    quantize, dequantize = METHODS[method]
    weight = torch.full((3, 6), value)
    torch.testing.assert_close(dequantize(quantize(weight, 4, **how)), weight, rtol=3e-7, atol=0)


@both
def test_one_element_and_one_axis(method):
    quantize, dequantize = METHODS[method]
    assert dequantize(quantize(torch.tensor([-0.3]), 2, axis=0)).item() == pytest.approx(-0.3, rel=1e-6)
    vector = torch.tensor([1.0, -4.0, 2.0])
    torch.testing.assert_close(dequantize(quantize(vector, 8, axis=0)), vector)  # each entry has its own scale


def test_subnormal_weights():
    tiny = 2.0**-149  # the smallest float32
    weight = torch.tensor([[tiny, -3 * tiny, 0.0, 100 * tiny]])
    assert torch.equal(dequantize_absmax(quantize_absmax(weight)), weight)
    quantized = quantize_zeropoint(weight)
    assert quantized.scale.item() == 2.0**-126 and not dequantize_zeropoint(quantized).any()  # less than half a step


def test_the_largest_float32():
    weight = torch.tensor([torch.finfo(torch.float32).max, -1.0])
    assert torch.equal(dequantize_absmax(quantize_absmax(weight)), torch.tensor([weight[0], 0.0]))
    with pytest.raises(LabError, match=r"3\.40282e\+38.*1e38"):
        quantize_zeropoint(weight)


def test_no_gradient_and_no_change_of_the_weight():
    weight = torch.randn(4, 4, requires_grad=True)
    before = weight.detach().clone()
    assert not dequantize_absmax(quantize_absmax(weight)).requires_grad and torch.equal(weight, before)
    vector = torch.randn(4)
    quantize_absmax(vector, axis=0).absmax.zero_()  # not the weight's own memory
    assert vector.all()


# ---- Errors measured ----


def test_measures_by_hand():
    weight, approximation = torch.tensor([3.0, -4.0]), torch.tensor([3.0, -3.5])
    assert mse(weight, approximation) == 0.125 and largest_error(weight, approximation) == 0.5
    assert sqnr_db(weight, approximation) == pytest.approx(20.0)  # 25 / 0.25
    assert sqnr_db(weight, weight) == math.inf and sqnr_db(0 * weight, weight) == -math.inf


@pytest.mark.parametrize("measure", [mse, sqnr_db, largest_error])
def test_measures_refuse_what_cannot_be_compared(measure):
    with pytest.raises(LabError, match=r"\(2,\) and approximation \(2, 1\)"):
        measure(torch.ones(2), torch.ones(2, 1))
    for bad in (torch.tensor([math.nan, 1.0]), torch.ones(0), [1.0, 2.0]):
        with pytest.raises(LabError, match="approximation must be"):
            measure(torch.ones(2), bad)


# ---- What is refused ----


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits=1 .*2 to 8"),
        ({"bits": 9}, "bits=9 .*2 to 8"),
        ({"bits": True}, "bits=True"),
        ({"bits": 4.0}, "bits=4.0"),
        ({"axis": 2}, r"axis=2 .*\(2, 3\) has 2 axes"),
        ({"axis": True}, "axis=True"),
        ({"blocksize": 0}, "blocksize=0 .*1 or more"),
        ({"blocksize": True}, "blocksize=True"),
        ({"axis": 0, "blocksize": 2}, "axis=0 and blocksize=2: choose"),
        ({"weight": torch.ones(2, dtype=torch.int32)}, r"torch.int32.*\.float\(\)"),
        ({"weight": [1.0]}, "weight is list"),
        ({"weight": torch.ones(0)}, r"shape \(0,\)"),
        ({"weight": torch.tensor(1.0)}, r"shape \(\)"),
        ({"weight": torch.tensor([math.nan, 1.0, math.inf])}, "2 of 3 entries"),
    ],
)
def test_what_is_refused(method, arguments, message):
    with pytest.raises(LabError, match=message):
        METHODS[method][0](**{"weight": torch.ones(2, 3), **arguments})
