"""Solutions of page 15 against the library and numbers worked by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from lab_utils import checks, retention
from lab_utils.checks.engine import examples
from lab_utils.lora import LoRALinear
from lab_utils.recorded.forgetting import ForgettingRun, Texts

EXERCISES = {name: exercise for name, exercise in checks.EXERCISES.items() if exercise.page == 15}


def solved(name, *inputs):
    return EXERCISES[name].solution(*inputs)


def inputs_of(name):
    return [EXERCISES[name].demo, *examples(EXERCISES[name])]


def test_the_solutions_are_the_librarys_functions():
    for losses, tokens in inputs_of("all_texts_perplexity"):
        reading = retention.Reading(tuple(losses.tolist()), tuple(tokens.tolist()))
        assert float(solved("all_texts_perplexity", losses, tokens)) == pytest.approx(reading.perplexity, rel=1e-5)
    for skill, other, target in inputs_of("loss_at_equal_skill"):
        at = {step: Texts({kind: (float(other[step] if kind == "prose" else skill[step]),) for kind in retention.KINDS},
                          (True,)) for step in range(len(skill))}  # fmt: skip
        run = ForgettingRun("", 0, 1, len(skill) - 1, 1.0, at, {}, None, {}, {}, {})
        [found] = retention.at_skill(run, target)["prose"]
        assert solved("loss_at_equal_skill", skill, other, target) == pytest.approx(found, rel=1e-5)
    for A, B, random_A, random_B in inputs_of("random_update"):
        found = solved("random_update", A, B, random_A, random_B)
        assert float(found.norm()) == pytest.approx(retention.product_norm(A, B), rel=1e-5)
    for old, new, threshold in inputs_of("count_intruders"):
        falling = torch.arange(new.shape[1], 0, -1).to(new.dtype)  # singular values: the columns keep their order
        after = new * falling @ torch.eye(new.shape[1], len(new), dtype=new.dtype)
        found = retention.intruders((old.float(), None), after, threshold, top=new.shape[1])
        assert solved("count_intruders", old, new, threshold) == len(found)


def test_a_strength_is_a_factor_on_a_lora_layers_update():
    for W, A, B, scaling, strength in inputs_of("weight_at"):
        layer = LoRALinear(torch.nn.Linear(*W.shape[::-1], bias=False), len(A), scaling * len(A)).to(W.dtype)
        layer.base_layer.weight.data, layer.lora_A.data, layer.lora_B.data = W, A, B
        assert_close(solved("weight_at", W, A, B, scaling, strength), (W + strength * layer.delta_weight()).detach())


def test_what_the_rewards_and_the_page_say_by_hand():
    """9 tokens of 1 nat and one of 3 are 12 nats over 10 tokens; at 0.625 the skill is 3/4 of the way from 1 to 0.5."""
    losses, tokens = EXERCISES["all_texts_perplexity"].demo
    assert float(solved("all_texts_perplexity", losses, tokens)) == pytest.approx(math.exp(1.2))
    assert f"{math.exp(1.2):.1f}" == "3.3" and f"{(math.e + math.e**3) / 2:.1f}" == "11.4"
    assert solved("loss_at_equal_skill", *EXERCISES["loss_at_equal_skill"].demo) == pytest.approx(3.2 + 0.75 * 0.4)
    assert solved("weight_at", *EXERCISES["weight_at"].demo).tolist() == [[3, 4], [-1, -1]]
    assert solved("random_update", *EXERCISES["random_update"].demo).tolist() == [[0, 0], [5, 0]]
    assert solved("count_intruders", *EXERCISES["count_intruders"].demo) == 1
