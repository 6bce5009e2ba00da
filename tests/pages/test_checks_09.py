"""Solutions of page 09 against torch's Adam, the library's own counts and numbers worked by hand."""

import math
import statistics

import pytest
import torch
from one_layer import trained

from lab_utils import checks
from lab_utils.checks.engine import examples
from lab_utils.checks.exercises.p09_seeds import STUDENT
from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters

SOLVED = {name: exercise.solution for name, exercise in checks.EXERCISES.items() if exercise.page == 9}


def inputs_of(name):
    return examples(checks.EXERCISES[name])


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
    first, second, t = torch.tensor([0.78, 0.83, 0.77]), torch.tensor([0.82, 0.85, 0.80]), STUDENT[3]  # the question's
    low, high = SOLVED["paired_interval"](first, second, t)
    half = t * 0.01 / math.sqrt(3)  # of 0.04, 0.02, 0.03
    assert (low, high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6) and low > 0
    error = math.hypot(SOLVED["standard_error"](first), SOLVED["standard_error"](second))
    assert 0.03 - t * error < 0  # unpaired, zero lies inside: the reward says so


def test_the_one_standard_error_rule_by_hand():
    assert SOLVED["smallest_good_rank"](*checks.EXERCISES["smallest_good_rank"].demo) == 4  # 0.30 + 0.02 > 0.315
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
    shown = checks.EXERCISES["rank_for_budget"].demo[0]
    assert shown == {name: tuple(shapes[name]) for name in shown} and shown.keys() != qv.keys()  # a layer of that model


@pytest.mark.parametrize("name", ["paired_interval", "rank_for_budget", "traded_learning_rates"])
def test_the_worked_example_is_not_the_answer_to_the_question_above_it(name):
    asked = {
        "paired_interval": (torch.tensor([0.78, 0.83, 0.77]), torch.tensor([0.82, 0.85, 0.80]), STUDENT[3]),
        "rank_for_budget": ({"q_proj": (576, 576), "v_proj": (192, 576)}, 30, 2_442_240),
        "traded_learning_rates": (16, 2e-3, 32),
    }[name]
    answers = SOLVED[name](*asked), SOLVED[name](*checks.EXERCISES[name].demo)
    assert answers[0] != pytest.approx(answers[1], rel=0.01)


def test_traded_learning_rates_are_exact_with_adam_at_every_step():
    plain = [trained(16, 2e-3, 2e-3, steps) for steps in (1, 2, 50)]
    for new_alpha in (4, 32):
        rates = SOLVED["traded_learning_rates"](16, 2e-3, new_alpha)
        for steps, expected in zip((1, 2, 50), plain, strict=True):
            assert torch.allclose(trained(new_alpha, *rates, steps), expected, rtol=1e-9)
        both = 2 * (rates[1],)  # the mistake: exact for one step, and no longer
        assert torch.allclose(trained(new_alpha, *both, 1), plain[0], rtol=1e-9)
        assert not torch.allclose(trained(new_alpha, *both, 2), plain[1], rtol=1e-4)
