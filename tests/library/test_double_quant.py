"""double_quant: the 8-bit code, the rule by which bitsandbytes picks from it, and the offset."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.nf4.double_quant import GRID, GROUP, compress, dynamic_code, restore

bnb = pytest.importorskip("bitsandbytes.functional")


def theirs(absmax):
    """(codes, group absmax, restored values) from bitsandbytes, as its quantize_4bit asks for them."""
    offset = absmax.mean()
    codes, state = bnb.quantize_blockwise(absmax - offset, blocksize=256)
    return codes, state.absmax, bnb.dequantize_blockwise(codes, state) + offset


def assert_same_as_bitsandbytes(absmax):
    ours, (codes, largest, values) = compress(absmax), theirs(absmax)
    assert torch.equal(ours.codes, codes) and torch.equal(ours.absmax, largest)
    assert torch.equal(ours.offset, absmax.mean()) and torch.equal(restore(ours), values)


def test_the_code_is_bitsandbytes_to_the_last_bit():
    assert torch.equal(dynamic_code(), bnb.create_dynamic_map())


def test_the_code_by_hand():
    code = dynamic_code()
    assert code.shape == (256,) and (code.diff() > 0).all() and code[-1] == 1 and (code == 0).sum() == 1
    # the smallest decade has one bin, 1e-7 to 1e-6, the next two
    torch.testing.assert_close(code[128:131], torch.tensor([5.5e-7, 3.25e-6, 7.75e-6]))
    assert torch.equal(code[1:127].flip(0)[:126], -code[128:254])  # the same values below zero


@st.composite
def absmax_values(draw):
    """Positive values: random, constant, spread over decades, or such that many lie beside the middles of the code."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    count = draw(st.sampled_from([1, 2, 255, 256, 257, 1000, 5000]))
    kind = draw(st.sampled_from(["half normal", "constant", "decades", "middles", "grid", "outlier"]))
    values = torch.randn(count, generator=generator).abs()
    if kind == "constant":
        values = torch.full((count,), float(values[0]))
    elif kind == "decades":
        values = 10 ** (-8 * torch.rand(count, generator=generator))
    elif kind in ("middles", "grid"):
        code = dynamic_code()
        points = (code[1:] + code[:-1]) / 2 if kind == "middles" else torch.arange(-GRID, GRID + 1, 2.0) / (GRID - 1)
        values = points[torch.randint(0, len(points), (count // 2,), generator=generator)]
        values = torch.cat([values, -values, torch.tensor([1.0, -1.0])]) + 1  # the mean is 1, or nearly
    elif kind == "outlier":
        values[-1] = 1e4
    return values * 2.0 ** draw(st.integers(-140, 100))


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(absmax_values())
def test_every_bit_equals_bitsandbytes(absmax):
    assert_same_as_bitsandbytes(absmax)


@pytest.mark.parametrize("seed", range(4))
def test_many_values_equal_bitsandbytes(seed):
    """262,144 values per seed, as of a 4096 × 4096 weight: the nearest of the 256 values would differ in hundreds."""
    weight = torch.randn(2**18, 8, generator=torch.Generator().manual_seed(seed))
    absmax = weight.abs().amax(dim=1)
    assert_same_as_bitsandbytes(absmax)
    groups = (absmax - absmax.mean()).view(-1, GROUP)
    scaled = (groups / groups.abs().amax(dim=1, keepdim=True)).flatten()
    code = dynamic_code()
    nearest = torch.bucketize(scaled, (code[:-1] + code[1:]) / 2)
    assert 50 < (nearest != compress(absmax).codes).sum() < 2**18 * 0.003


def test_every_point_of_the_grid_equals_bitsandbytes():
    """And values a quarter of a step beside it. Each group holds a 1, and the mean is 0: values are what they are."""
    step = 2 / (GRID - 1)
    points = torch.arange(GRID) * step - 1
    values = torch.cat([points, points + step / 4, points - step / 4]).clamp(-1, 1)
    values = values[: len(values) // 255 * 255].view(-1, 255)
    values = torch.cat([values, torch.ones(len(values), 1)], dim=1).flatten()
    values = torch.cat([values, -values])
    assert abs(values.mean()) < step / 8
    assert_same_as_bitsandbytes(values)
    # No point lies between −1.5e-5 and 1.5e-5: 0 and the three smallest values of either sign are never chosen.
    unused = dynamic_code()[sorted(set(range(256)) - set(compress(values).codes.tolist()))]
    torch.testing.assert_close(unused, torch.tensor([-7.75e-6, -3.25e-6, -5.5e-7, 0, 5.5e-7, 3.25e-6, 7.75e-6]))


def test_the_farther_of_two_values_by_hand():
    """Between the middle of two values and the middle of two grid points, rounding to the grid first goes astray."""
    code = dynamic_code()
    middle = float(code[-3] + code[-2]) / 2  # 0.9859
    below = int((middle + 1) / 2 * (GRID - 1)) * 2 / (GRID - 1) - 1  # the grid point below it
    astray = (middle + below + 1 / (GRID - 1)) / 2
    compressed = compress(torch.tensor([astray, 1.0, -1.0, -astray]))
    assert abs(compressed.offset) < 1e-7 and compressed.absmax.tolist() == [1.0]
    distance = (code - astray).abs()
    near, far = distance.topk(2, largest=False).indices.tolist()
    assert {near, far} == {253, 254} and compressed.codes[0] == far


def test_the_offset_belongs_to_the_value():
    absmax = torch.rand(1000, generator=torch.Generator().manual_seed(1)) + 5
    compressed = compress(absmax)
    torch.testing.assert_close(restore(compressed), absmax, atol=0.02, rtol=0)
    without = dynamic_code()[compressed.codes.long()] * compressed.absmax.repeat_interleave(GROUP)[:1000]
    assert abs(float(without.mean())) < 0.01  # forgetting it would lose nearly everything


def test_equal_values_come_back_exactly():
    """All differences from the mean are 0: no group has anything to divide by."""
    compressed = compress(torch.full((300,), 0.75))
    assert not compressed.absmax.any() and torch.equal(restore(compressed), torch.full((300,), 0.75))
