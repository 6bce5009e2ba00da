"""Solutions of page 11 against peft, the library's own counts and numbers worked by hand."""

from itertools import pairwise

import pytest
import torch
from lora_models import peft
from one_layer import trained, with_adapter

from lab_utils import checks
from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters

SOLVED = {name: exercise.solution for name, exercise in checks.EXERCISES.items() if exercise.page == 11}


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


def test_lora_plus_is_a_larger_alpha():
    A, B = SOLVED["learning_rates"](["x.lora_A.weight", "x.lora_B.weight"], 2e-3, 16.0).tolist()
    assert torch.allclose(trained(4, A, B, 50), trained(64, 2e-3, 2e-3, 50), rtol=1e-4)  # rates are float32
