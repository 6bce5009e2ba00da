"""grids: bit for bit the roundings of llama.cpp and of the lab's codecs; and what a rounding leaves of an update."""

import gguf
import numpy as np
import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.merging.grids import FORMATS, round_to, what_is_left
from lab_utils.nf4 import dequantize_4bit, nf4_code, quantize_4bit


def weights(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("weight", [weights(8, 128), weights(8, 128).bfloat16().float(), torch.zeros(2, 64)])
def test_llama_cpps_formats_are_those_of_the_package_gguf(kind, weight):
    number = gguf.GGMLQuantizationType[kind]
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), number), number)
    assert np.array_equal(round_to(weight, kind).values.numpy(), expected)


def test_nf4_and_fp4_are_the_codecs():
    for kind in ("NF4", "FP4"):
        for double in (False, True):
            expected = quantize_4bit(weights(8, 128), quant_type=kind.lower(), double_quant=double)
            found = round_to(weights(8, 128), kind, double)
            assert torch.equal(found.values, dequantize_4bit(expected, torch.float32))
    codes = round_to(torch.cat([nf4_code(), torch.zeros(48)]), "NF4").codes
    assert codes[:16].tolist() == list(range(16))


@pytest.mark.parametrize("kind", FORMATS)
def test_codes_and_values_have_the_weights_shape_and_equal_codes_mean_equal_values(kind):
    found = round_to(weights(4, 64), kind)
    assert found.codes.shape == found.values.shape == (4, 64) and found.values.dtype == torch.float32
    block = round_to(torch.tensor([1.0, 0.7, 0.7] + 61 * [-0.2]), kind)
    assert block.codes[1] == block.codes[2] and block.values[1] == block.values[2]


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("float16", "float32")])
def test_a_small_update_arrives_on_another_grid_and_not_on_the_weights_own(kind):
    """The law of page 10: off the grid, rounding is noise around W + ΔW; on it, it goes back to W."""
    weight = weights(256, 256)
    step = 0.02 if "8" in kind else 0.3  # half a step of the format or less, in these weights' unit
    delta = 0.1 * step * weights(256, 256, seed=1)
    off = what_is_left(weight, delta, kind)
    on = what_is_left(round_to(weight, kind).values, delta, kind)
    assert off.kept == pytest.approx(1, abs=0.1)
    assert on.kept < 0.5 * off.kept and on.noise < off.noise


def test_sizes_by_hand():
    weight, delta = torch.ones(64), torch.full((64,), 0.5)
    left = what_is_left(weight, delta, "float32")
    assert left == (1.0, 0.0, pytest.approx(1.0), 1.0)
    assert what_is_left(weight, 0 * delta, "NF4") == (0.0, 0.0, 0.0, 0.0)
    weight = torch.tensor([127.0] + 63 * [3.0])  # int8: whole steps, and the largest stays
    delta = torch.tensor([0.0] + 63 * [0.75])
    left = what_is_left(weight, delta, "int8")
    assert left.kept == pytest.approx(1 / 0.75, rel=1e-4) and left.changed == 63 / 64
    assert left.noise == pytest.approx(0.25 * 63**0.5 / (127**2 + 63 * 9) ** 0.5, rel=1e-3)


def test_what_cannot_be_rounded_is_named():
    with pytest.raises(LabError, match="Q5_0"):
        round_to(weights(64), "Q5_0")
    for shape in ((63,), (0,)):
        with pytest.raises(LabError, match="64"):
            round_to(torch.zeros(shape), "NF4")
