"""Solutions of page 10 against peft, lab_utils.nf4 and numbers worked by hand."""

import pytest
import torch
from lora_models import peft
from one_layer import with_adapter
from torch import nn

from lab_utils import checks
from lab_utils.checks.comparing import show
from lab_utils.checks.engine import examples
from lab_utils.nf4.codec import dequantize_4bit, nf4_code, quantize_4bit

SOLVED = {name: exercise.solution for name, exercise in checks.EXERCISES.items() if exercise.page == 10}


def inputs_of(name):
    return examples(checks.EXERCISES[name])


@torch.no_grad()
def two_adapters():
    """(model, layer, the four factors) of two random adapters of ranks 2 and 3."""
    model, layer = with_adapter(peft.LoraConfig(r=2, lora_alpha=4, target_modules=["0"]))
    model.add_adapter("second", peft.LoraConfig(r=3, lora_alpha=4, target_modules=["0"]))
    factors = []
    for name in ("first", "second"):
        nn.init.normal_(layer.lora_B[name].weight)
        factors += [layer.lora_A[name].weight, layer.lora_B[name].weight]
    return model.eval(), layer, factors


@torch.no_grad()
def test_stacked_and_merged_adapters_are_pefts():
    model, layer, factors = two_adapters()
    model.add_weighted_adapter(["first", "second"], [0.7, -0.3], "both", combination_type="cat")
    delta = layer.get_delta_weight("both")
    A, B = SOLVED["stack_two"](*factors, (0.7 * 4 / 2, -0.3 * 4 / 3))
    assert A.shape == layer.lora_A["both"].weight.shape and torch.allclose(B @ A, delta, atol=1e-6)
    merged = SOLVED["merge_two"](layer.base_layer.weight, *factors, 4, (0.7, -0.3))
    assert torch.allclose(merged, layer.base_layer.weight + delta, atol=1e-6)


@torch.no_grad()
def test_a_mixed_batch_is_pefts():
    model, layer, (A1, B1, A2, B2) = two_adapters()
    x = torch.randn(4, 6)
    expected = model(x, adapter_names=["second", "__base__", "first", "second"])
    ours = SOLVED["mixed_batch"](
        x, layer.base_layer.weight, A1, 4 / 2 * B1, A2, 4 / 3 * B2, torch.tensor([2, 0, 1, 2])
    )  # fmt: skip
    assert torch.allclose(ours, expected, atol=1e-6)


def test_the_examples_that_are_shown_can_be_worked_by_hand_and_use_every_argument():
    """Two ranks, a row for each kind of customer, and a code that changes only because its block's absmax does."""
    shown = {name: SOLVED[name](*checks.EXERCISES[name].demo) for name in ("merge_two", "mixed_batch", "changed_codes")}
    assert shown["merge_two"].tolist() == [[3, 4, 5], [4, -3, 0]]  # W + 0.5·4/1·B1·A1 + 1.5·4/2·B2·A2
    A, B = SOLVED["stack_two"](*checks.EXERCISES["stack_two"].demo)
    assert A.tolist() == [[1, 2, 0], [1, 0, 0], [0, 0, 1]] and B.tolist() == [[2, 0, 0.5], [-2, 1, 0]]
    assert shown["mixed_batch"].tolist() == [[7, 1], [2, 3], [6, 21]]  # first adapter, none, second
    assert shown["changed_codes"] == 3
    for name, result in shown.items():
        assert f"= {show(result)}".splitlines()[0] in checks.check(name, lambda *arguments: None).text


def test_changed_codes_are_those_of_nf4():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(200, 32, generator=generator)
    for size in (0.003, 0.03, 0.3):
        delta = size * torch.randn(200, 32, generator=generator)
        one, other = (quantize_4bit(w, blocksize=32).packed.view(-1) for w in (weight, weight + delta))
        expected = sum(int(((one >> shift) % 16 != (other >> shift) % 16).sum()) for shift in (0, 4))
        ours = SOLVED["changed_codes"](weight, delta, nf4_code())
        assert expected > 5 and abs(ours - expected) <= 2  # a near-tie may fall to either side


def test_an_update_of_half_a_percent_changes_few_codes_and_none_of_a_base_that_was_in_4_bits():
    generator = torch.Generator().manual_seed(0)
    weight, delta = (torch.randn(500, 64, generator=generator) for _ in range(2))
    delta *= 0.005
    assert SOLVED["changed_codes"](weight, delta, nf4_code()) / weight.numel() == pytest.approx(0.015, abs=0.002)
    in_4_bits = dequantize_4bit(quantize_4bit(weight))
    assert SOLVED["changed_codes"](in_4_bits, delta, nf4_code()) == 0  # the reward says both


def test_rounding_loses_between_nothing_and_all_of_an_update():
    lost = SOLVED["lost_in_rounding"]
    assert all(0 <= lost(*inputs) <= 1 for inputs in inputs_of("lost_in_rounding"))
    one = torch.ones(1, 1)
    assert lost(one, one / 128) == 0 and lost(one, one / 512) == 1  # bfloat16 has eight bits: 1, then 1 + 1/128
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(400, 400, generator=generator).bfloat16().float()
    delta = 0.005 * torch.randn(400, 400, generator=generator)
    assert lost(weight, delta) == pytest.approx(1 / 3, abs=0.02)  # the reward says so
