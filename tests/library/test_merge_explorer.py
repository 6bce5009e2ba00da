"""The merge explorer: rounding that can be worked out by hand, and the browser's numbers against Python's."""

import base64
import re

import alone
import numpy as np
import pytest
import torch
from choosing_explorers import merge_explorer

from lab_utils.errors import LabError
from lab_utils.lowrank import best_rank_r
from lab_utils.nf4.codec import dequantize_4bit, nf4_code, quantize_4bit
from lab_utils.widgets.merge_explorer import BASES, BLOCK, FORMATS, PERCENTS, MergeExplorer, measure, merge

ROUNDED, ORIGINAL = BASES


def a_block(*values: float) -> torch.Tensor:
    """64 weights: these, and zeros."""
    return torch.cat([torch.tensor(values), torch.zeros(BLOCK - len(values))])


def test_an_update_below_half_a_step_leaves_nothing_in_nf4():
    code = nf4_code()
    weight = a_block(1.0, -1.0, *code.tolist())
    gaps = code[1:] - code[:-1]
    small = torch.full((BLOCK,), 0.49 * float(gaps.min()))
    small[:2] = 0  # the block's largest weights stay, and so does its absmax
    small[weight == 1] = small[weight == -1] = 0
    found = merge(weight, small, "NF4", ROUNDED)
    assert not found["changed"].any() and not found["arrived"].any()
    assert measure(found, small) == {"changed": 0, "cosine": 0.0, "error": 1.0}


def test_an_update_above_half_a_step_is_a_whole_step_in_nf4():
    code, weight, delta = nf4_code(), a_block(1.0, 0.0), torch.zeros(BLOCK)
    step = float(code[8])  # from 0 to the next value
    delta[1] = 0.51 * step
    found = merge(weight, delta, "NF4", ROUNDED)
    assert found["changed"].nonzero().tolist() == [[1]]
    assert float(found["arrived"][1]) == pytest.approx(step)
    assert measure(found, delta)["error"] == pytest.approx(0.49 / 0.51)
    assert measure(found, delta)["cosine"] == pytest.approx(1)


def test_int8_rounds_to_whole_steps():
    weight, delta = a_block(127.0, 3.0, -5.0, 10.0), a_block(0.0, 0.4, 0.6, -1.6)
    found = merge(weight, delta, "int8", ROUNDED)
    assert found["arrived"][:4].tolist() == pytest.approx([0, 0, 1, -2], abs=1e-4)
    assert found["changed"][:4].tolist() == [False, False, True, True]


def test_bfloat16_has_seven_bits_behind_the_first():
    weight, delta = a_block(1.0, 1.0, 1.0), a_block(0.0039, 0.0040, -0.0019)  # steps of 1/128 above 1, 1/256 below
    assert merge(weight, delta, "bfloat16", ROUNDED)["arrived"][:3].tolist() == [0, 1 / 128, 0]


def test_float32_keeps_nearly_all():
    explorer = merge_explorer()
    explorer.into, explorer.percent = "float32", 0.1
    assert explorer.results()["error"] < 1e-3 and explorer.results()["cosine"] > 0.999


def test_the_base_is_the_rounded_weight_as_in_qlora_or_the_original():
    weight, delta = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0))
    rounded = dequantize_4bit(quantize_4bit(weight))
    for base, before in ((ROUNDED, rounded), (ORIGINAL, weight)):
        found = merge(weight, 0.1 * delta, "NF4", base)
        assert torch.equal(found["before"], before)
        after = dequantize_4bit(quantize_4bit(before + 0.1 * delta))
        assert torch.equal(found["after"], after) and torch.equal(found["arrived"], after - rounded)


def test_both_directions_are_as_large_as_the_weight_and_the_first_is_the_real_one():
    weight, update = torch.randn(2, 10, 128, generator=torch.Generator().manual_seed(1))
    explorer = MergeExplorer(weight, 0.02 * update, rank=3)
    real, random = (delta.view(10, 128) for delta in explorer._updates.values())
    for delta in (real, random):
        assert torch.linalg.matrix_rank(delta) == 3
        assert float(delta.norm()) == pytest.approx(float(explorer._weight.norm()), rel=1e-5)
    B, A = best_rank_r(update, 3)
    assert float(torch.cosine_similarity((B @ A).flatten(), real.flatten(), dim=0)) == pytest.approx(1, abs=1e-5)
    assert explorer.real_percent == pytest.approx(100 * float(0.02 * update.norm() / weight.norm()), rel=1e-5)


def test_the_browser_gets_the_weights_to_the_bit():
    explorer = merge_explorer()
    bits = np.frombuffer(base64.b64decode(explorer.weight), "<u2").astype(np.uint32) << 16
    assert np.array_equal(bits.view(np.float32), explorer._weight.numpy())
    assert explorer._weight.numel() == 2**14 and explorer.sizes["rows"] == 32  # of 40 rows


def test_arguments_that_do_not_fit_are_named():
    weight = torch.randn(4, 64)
    for bad in (torch.zeros(4, 64), torch.ones(4, 32)):
        with pytest.raises(LabError, match="update"):
            MergeExplorer(weight, bad)
    with pytest.raises(LabError, match=r"\(4, 63\)"):
        MergeExplorer(weight[:, :63], weight[:, :63])


@pytest.mark.browser
def test_the_browser_rounds_as_python_does():
    """Every format on both bases, at sizes from 0.1 to 100 % (about five seconds)."""
    explorer = merge_explorer()
    names = list(explorer._updates)
    states = [
        {
            "into": list(FORMATS)[number % 4], "base": BASES[number // 4 % 2], "update": names[number % 2],
            "percent": percent, "block": 12 * number,
        }
        for number, percent in enumerate(PERCENTS[::3] * 2)
    ]  # fmt: skip
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states)
        assert page.errors == []
    pattern = re.compile(r"(\d+) of 64 codes .* (\d+) of 16384 .* cosine (-?[\d.]+) with .* error of ([\d.]+) %")
    for state, text in zip(states, texts, strict=True):
        for name, value in state.items():
            setattr(explorer, name, value)
        found, numbers = explorer.results(), pattern.search(text.replace(",", ""))
        assert [int(numbers[1]), int(numbers[2])] == [found["in_block"], found["changed"]], (state, text)
        assert float(numbers[3]) == pytest.approx(found["cosine"], abs=6e-4)
        assert float(numbers[4]) == pytest.approx(100 * found["error"], rel=1e-6, abs=0.06)
