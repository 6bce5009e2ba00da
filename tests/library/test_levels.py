"""Any sixteen levels: their error by another way, the bits of a zero-point, and levels that no move makes better."""

import numpy as np
import pytest
import torch

from lab_utils import nf4
from lab_utils.errors import LabError
from lab_utils.lowrank import relative_error
from lab_utils.nf4 import levels as module


def weights(count: int = 4096, seed: int = 0) -> torch.Tensor:
    return 0.03 * torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("blocksize", [32, 64, 4096])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_the_error_is_that_of_the_stored_format(quant_type, blocksize):
    """`quantize_4bit` equals bitsandbytes bit for bit; a last block that is shorter is among the cases."""
    weight, code = weights(4000), {"nf4": nf4.nf4_code(), "fp4": nf4.fp4_code()}[quant_type]
    stored = nf4.dequantize_4bit(nf4.quantize_4bit(weight, blocksize=blocksize, quant_type=quant_type))
    wanted = relative_error(weight[None], stored[None])
    assert nf4.levels_error(weight, code, blocksize) == pytest.approx(wanted, rel=1e-5)


def test_a_zero_point_finds_sixteen_even_weights_again():
    """Steps of 1/8 from -0.5 or from 2: float16 holds both. One block is constant, the last one shorter."""
    even = torch.arange(16.0) / 8
    weight = torch.cat([even - 0.5, even + 2, torch.full((16,), 3.0), even[:4]])
    assert nf4.zeropoint_error(weight[:48], 16) == 0
    assert nf4.zeropoint_error(weight, 16) < 1e-3  # the last four: a step of 0.025 is not exact in float16
    by_hand = 0.4 / (7.6**2 + 15**2) ** 0.5  # 7.6 becomes 8
    assert nf4.zeropoint_error(torch.tensor([0.0, 7.6, 15.0]), 3) == pytest.approx(by_hand, rel=1e-6)


def test_scales_are_rounded_to_float16():
    low, step = -1 / 3, 0.1
    weight = torch.tensor([low + step * k for k in range(16)])
    kept, wide = float(np.float16(low)), float(np.float16(np.float32(weight[-1] - np.float16(low)) / np.float32(15)))
    missed = np.array([kept + wide * k for k in range(16)]) - weight.double().numpy()
    wanted = float(np.linalg.norm(missed) / weight.double().norm())
    assert nf4.zeropoint_error(weight, 16) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("blocksize", [16, 64, 1024])
def test_each_fitted_level_is_the_mean_of_its_weights(blocksize):
    """Each weight at its nearest level, and counted with its block's absmax²: then no move of a level alone helps."""
    weight = weights()
    fitted = nf4.lloyd_max(weight, blocksize)
    least = nf4.levels_error(weight, fitted, blocksize)
    assert torch.equal(fitted, fitted.sort().values)
    blocks = weight.double().reshape(-1, blocksize)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / largest).sub(fitted[:, None, None]).abs().argmin(0)
    for at in range(16):
        here = nearest == at
        assert float((blocks * largest)[here].sum() / largest.square().expand_as(blocks)[here].sum()) == pytest.approx(
            float(fitted[at]), abs=1e-7
        )
    for code in (nf4.nf4_code(), nf4.af4_code(), nf4.e2m1_code(), nf4.fp4_code(), nf4.even_code()):
        assert least < nf4.levels_error(weight, code, blocksize)


def smallest_error(weight: torch.Tensor, blocksize: int) -> float:
    """The smallest error that sixteen levels can have: every way to cut the sorted shares is looked at."""
    shares, largest = nf4.divided(weight, blocksize)
    shares, order = shares.sort()
    counts = largest.square()[order]
    totals = [np.concatenate([[0.0], (counts * shares**power).cumsum(0).numpy()]) for power in range(3)]
    count, moment, square = (total[None] - total[:, None] for total in totals)
    cost = square - moment**2 / np.where(count > 0, count, 1)
    cost[np.tril_indices(len(cost), -1)] = np.inf
    best = cost[0]
    for _ in range(15):
        best = (best[:, None] + cost).min(0)
    return float(np.sqrt(max(best[-1], 0) / totals[2][-1]))


def test_fitted_levels_are_near_the_best_there_are():
    """Few weights, so that the best can be computed; with more of them there are fewer traps."""
    for seed in range(2):
        weight = weights(1024, seed)
        best, found = smallest_error(weight, 64), nf4.levels_error(weight, nf4.lloyd_max(weight, 64), 64)
        assert best - 1e-9 <= found <= 1.03 * best


def test_a_block_counts_with_the_size_of_its_error():
    """Of two blocks one is 1,000 times as large: its weights alone decide where the levels go."""
    large, small = weights(64, 1), weights(64, 2) / 1000
    alone, both = nf4.lloyd_max(large), nf4.lloyd_max(torch.cat([large, small]))
    error = nf4.levels_error(large, both)
    assert error <= nf4.levels_error(large, alone) + 0.02


def test_zeros_have_no_error_and_a_bad_weight_is_named():
    zeros = torch.zeros(100)
    assert nf4.levels_error(zeros, nf4.nf4_code()) == nf4.zeropoint_error(zeros) == 0
    assert module.divided(zeros, 64)[0].abs().max() == 0
    assert len(nf4.lloyd_max(zeros)) == 16
    for function in (lambda w, b: nf4.levels_error(w, nf4.nf4_code(), b), nf4.zeropoint_error, nf4.lloyd_max):
        with pytest.raises(LabError, match="blocksize"):
            function(weights(), 0)
        with pytest.raises(LabError, match="NaN"):
            function(torch.tensor([1.0, float("nan")]), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rounded_weight_has_the_level_with_the_least_distance_in_each_block(dtype):
    """Found by trying all levels; the last of three blocks is zeros, which stay. Its error is `levels_error`'s."""
    weight = torch.cat([weights(64), torch.zeros(32)]).to(dtype).reshape(12, 8)
    levels = torch.tensor([-1.0, -0.4, 0.1, 0.7, 1.0], dtype=torch.float64)
    blocks = weight.double().reshape(3, 32)
    tried = levels * blocks[:2].abs().amax(1)[:, None, None]  # (blocks, 1, levels)
    wanted = torch.cat([tried.expand(2, 32, 5).gather(2, (blocks[:2, :, None] - tried).abs().argmin(2, True))[..., 0],
                        torch.zeros(1, 32)])  # fmt: skip
    rounded = nf4.round_to_levels(weight, levels, 32)
    assert torch.equal(rounded, wanted.reshape(12, 8))
    assert nf4.levels_error(weight, levels, 32) == pytest.approx(relative_error(weight.double(), rounded), rel=1e-9)


def test_sixteen_even_levels_of_a_block_are_found_again_in_that_block_alone():
    """Q4_1's case: each block of 32 has sixteen levels from its own smallest to its largest weight."""
    index = torch.randint(0, 16, (64, 32), generator=torch.Generator().manual_seed(1))
    index[:, 0], index[:, 1] = 0, 15  # both ends are used
    low, step = -0.05 - weights(64, seed=2).abs().half().float(), 0.01 + weights(64, seed=3).abs().half().float() / 8
    weight = low[:, None] + step.half().float()[:, None] * index
    assert nf4.zeropoint_error(weight, 32) < 1e-3
    assert nf4.zeropoint_error(weight, 64) > 0.05 and nf4.zeropoint_error(weight, 16) > 0.01
