"""Solutions of pages 09 to 11 against peft, torch's Adam, the library's own code and numbers worked by hand."""

import math
import statistics
from itertools import pairwise

import pytest
import torch
from lora_models import peft
from torch import nn

from lab_utils import checks
from lab_utils.checks.engine import examples
from lab_utils.checks.exercises.p09_seeds import STUDENT
from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters
from lab_utils.nf4.codec import dequantize_4bit, nf4_code, quantize_4bit

SOLVED = {name: exercise.solution for name, exercise in checks.EXERCISES.items() if exercise.page >= 9}


def inputs_of(name):
    return examples(checks.EXERCISES[name])


# Page 09


def test_a_standard_error_is_right_on_average_and_that_of_n_too_small():
    for (scores,) in inputs_of("standard_error"):
        expected = statistics.stdev(scores.tolist()) / len(scores) ** 0.5
        assert SOLVED["standard_error"](scores) == pytest.approx(expected, rel=1e-5)
    runs = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    squares = statistics.fmean(SOLVED["standard_error"](scores) ** 2 for scores in runs)
    assert squares == pytest.approx(runs.mean(dim=1).var().item(), rel=0.06) == pytest.approx(1 / 3, rel=0.06)
    of_n = statistics.fmean((scores.var(correction=0) / 3).item() for scores in runs)
    assert of_n == pytest.approx(2 / 9, rel=0.06)
    first = SOLVED["standard_error"](*checks.EXERCISES["standard_error"].demo)
    assert first == pytest.approx(0.015, abs=5e-4)  # the reward says so


@pytest.mark.parametrize(("seeds", "t"), STUDENT.items())
def test_the_interval_holds_the_truth_in_95_of_100_cases(seeds, t):
    def density(x):  # Student's, n - 1 degrees of freedom
        return (1 + x * x / (seeds - 1)) ** (-seeds / 2)

    def mass(limit, steps=4000):  # Simpson's rule
        width = limit / steps
        weights = [1, *([4, 2] * (steps // 2 - 1)), 4, 1]
        return sum(w * density(n * width) for n, w in enumerate(weights)) * width / 3

    constant = math.sqrt((seeds - 1) * math.pi) * math.gamma((seeds - 1) / 2) / math.gamma(seeds / 2)
    assert 2 * mass(t) / constant == pytest.approx(0.95, abs=1e-4)
    if seeds == 3:
        assert 1 - 2 * mass(1.96) / constant == pytest.approx(0.19, abs=0.005)  # the check says so


def test_paired_differences_see_what_unpaired_ones_do_not():
    first, second, t = checks.EXERCISES["paired_interval"].demo
    low, high = SOLVED["paired_interval"](first, second, t)
    half = t * 0.01 / math.sqrt(3)  # of 0.04, 0.02, 0.03
    assert (low, high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6) and low > 0
    error = math.hypot(SOLVED["standard_error"](first), SOLVED["standard_error"](second))
    assert 0.03 - t * error < 0  # unpaired, zero lies inside: the reward says so


def test_the_one_standard_error_rule_by_hand():
    assert SOLVED["smallest_good_rank"](*checks.EXERCISES["smallest_good_rank"].demo) == 4  # 0.30 + 0.0153 > 0.3133
    two = [{"rank": rank, "validation_loss": loss} for rank, loss in ((8, 0.2), (8, 0.4), (2, 0.39), (2, 0.39))]
    assert SOLVED["smallest_good_rank"](two) == 2  # limit 0.3 + 0.1
    two[2]["validation_loss"] = 0.43
    assert SOLVED["smallest_good_rank"](two) == 8  # mean 0.41


def test_every_setting_off_the_front_is_beaten_by_one_on_it():
    for parameters, loss in inputs_of("pareto_front"):
        front = SOLVED["pareto_front"](parameters, loss)
        points = list(zip(parameters.tolist(), loss.tolist(), strict=True))
        on = [point for point, kept in zip(points, front.tolist(), strict=True) if kept]
        assert min(points) in on and min(loss for _, loss in points) in [loss for _, loss in on]
        for point, kept in zip(points, front.tolist(), strict=True):
            beaten = any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in on)
            assert kept != beaten


def test_the_rank_spends_the_budget_as_the_library_counts():
    model = ARCHITECTURES["SmolLM2-135M"]
    shapes = model.linear_shapes()
    qv = {name: shapes[name] for name in shapes if name.split(".")[-1] in ("q_proj", "v_proj")}
    budget = lora_parameters(model, 8)
    assert len(qv) == 2 and SOLVED["rank_for_budget"](shapes, model.n_layers, budget) == 8
    rank = SOLVED["rank_for_budget"](qv, model.n_layers, budget)
    assert rank == 42  # the reward says so
    assert lora_parameters(model, rank, "qv") <= budget < lora_parameters(model, rank + 1, "qv")
    assert {name: tuple(shape) for name, shape in qv.items()} == checks.EXERCISES["rank_for_budget"].demo[0]


def trained(alpha, rate_A, rate_B, steps):
    """ΔW after some steps of Adam on one layer; without eps, clipping and weight decay, B zero at the start."""
    generator = torch.Generator().manual_seed(0)
    A, x, y = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 6), (20, 6), (20, 5)))
    A, B = A.requires_grad_(), torch.zeros(5, 2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([{"params": [A], "lr": rate_A}, {"params": [B], "lr": rate_B}], eps=1e-150)
    for _ in range(steps):
        adam.zero_grad()
        (x @ (alpha / 2 * B @ A).T - y).square().mean().backward()
        adam.step()
    return (alpha / 2 * B @ A).detach()


def test_traded_learning_rates_are_exact_with_adam_at_every_step():
    plain = [trained(16, 2e-3, 2e-3, steps) for steps in (1, 2, 50)]
    for new_alpha in (4, 32):
        rates = SOLVED["traded_learning_rates"](16, 2e-3, new_alpha)
        for steps, expected in zip((1, 2, 50), plain, strict=True):
            assert torch.allclose(trained(new_alpha, *rates, steps), expected, rtol=1e-9)
        both = 2 * (rates[1],)  # the mistake: exact for one step, and no longer
        assert torch.allclose(trained(new_alpha, *both, 1), plain[0], rtol=1e-9)
        assert not torch.allclose(trained(new_alpha, *both, 2), plain[1], rtol=1e-4)


def test_lora_plus_is_a_larger_alpha():
    A, B = SOLVED["learning_rates"](["x.lora_A.weight", "x.lora_B.weight"], 2e-3, 16.0).tolist()
    assert torch.allclose(trained(4, A, B, 50), trained(64, 2e-3, 2e-3, 50), rtol=1e-4)  # rates are float32


# Page 10


def with_adapter(config, *, weight=None):
    """(peft model around one linear layer named "0", its adapted layer)."""
    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(6, 5, bias=False))
    if weight is not None:
        base[0].weight.data.copy_(weight)
    model = peft.get_peft_model(base, config, adapter_name="first")
    return model, model.base_model.model[0]


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


# Page 11


@torch.no_grad()
def test_the_dora_weight_is_pefts_and_starts_as_the_weight_itself():
    model, layer = with_adapter(peft.LoraConfig(r=2, lora_alpha=4, target_modules=["0"], use_dora=True))
    A, B, W = layer.lora_A["first"].weight, layer.lora_B["first"].weight, layer.base_layer.weight
    magnitude = layer.lora_magnitude_vector["first"].weight
    assert torch.allclose(SOLVED["dora_weight"](W, A, B, 2.0, magnitude), W, atol=1e-6)
    for tensor in (B, magnitude):
        tensor.copy_(torch.rand_like(tensor))
    x = torch.randn(4, 6)
    assert torch.allclose(x @ SOLVED["dora_weight"](W, A, B, 2.0, magnitude).T, model.eval()(x), atol=1e-6)


@torch.no_grad()
def test_pissa_starts_as_in_peft():
    weight = torch.randn(5, 6)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["0"], init_lora_weights="pissa")
    _, layer = with_adapter(config, weight=weight)
    residual, A, B = SOLVED["pissa_init"](weight, 2)
    assert torch.allclose(residual, layer.base_layer.weight, atol=1e-5)
    for ours, theirs in ((A.T, layer.lora_A["first"].weight.T), (B, layer.lora_B["first"].weight)):
        assert torch.allclose(ours.abs(), theirs.abs(), atol=1e-5)  # a direction may have either sign


@torch.no_grad()
def test_vera_is_pefts_and_trains_as_many():
    config = peft.VeraConfig(r=3, target_modules=["0"], projection_prng_key=1)
    model, layer = with_adapter(config)
    d, b = layer.vera_lambda_d["first"], layer.vera_lambda_b["first"]
    b.copy_(torch.randn(5))
    x = torch.randn(4, 6)
    A, B = layer.vera_A["first"], layer.vera_B["first"]
    ours = SOLVED["vera_forward"](x, layer.base_layer.weight, A, B, d, b)
    assert torch.allclose(ours, model.eval()(x), atol=1e-6)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert SOLVED["vera_parameters"]({"0": (5, 6)}, 1, 3) == trained == 8
    shapes, n_layers, rank = checks.EXERCISES["vera_parameters"].demo
    assert SOLVED["vera_parameters"](shapes, n_layers, rank) == 38_400  # the reward says so
    assert lora_parameters(ARCHITECTURES["SmolLM2-135M"], 1, "qv") == 57_600


def test_the_steps_of_delta_lora_add_up_to_the_change_of_the_product():
    torch.manual_seed(0)
    weight = torch.randn(5, 6, dtype=torch.float64)
    path = [(torch.randn(2, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)) for _ in range(5)]
    moved = weight
    for (A, B), (new_A, new_B) in pairwise(path):
        moved = SOLVED["delta_lora_weight"](moved, A, B, new_A, new_B, 2.0, 0.5)
    (A, B), (last_A, last_B) = path[0], path[-1]
    assert torch.allclose(moved - weight, 2.0 * 0.5 * (last_B @ last_A - B @ A))


def test_learning_rates_are_those_of_pefts_optimizer():
    from peft.optimizers import create_loraplus_optimizer

    model, _ = with_adapter(peft.LoraConfig(r=2, target_modules=["0"]))
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=2e-3, loraplus_lr_ratio=16.0)
    theirs = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours = SOLVED["learning_rates"](list(names), 2e-3, 16.0).tolist()
    assert ours == pytest.approx([theirs.get(id(p), 0.0) for p in parameters]) and len(set(ours)) == 3
