"""Every common mistake is called by its name, as a learner would make it, with the smallest example that shows it."""

import math
import re
import time

import pytest
import torch
from learners import LEARNERS

from lab_utils import checks
from lab_utils.checks import engine
from lab_utils.checks.engine import examples, recognise, run

pytestmark = pytest.mark.usefixtures("only_the_verdict")
EXERCISES = checks.EXERCISES


BUILT_IN = [
    pytest.param(name, mistake.name, wrong, id=f"{name}: {mistake.name} ({number})")
    for name, exercise in EXERCISES.items()
    for mistake in exercise.mistakes
    for number, wrong in enumerate(mistake.wrong)
]


@pytest.mark.parametrize(("name", "mistake", "wrong"), BUILT_IN)
def test_each_wrong_function_is_named_by_its_own_mistake(name, mistake, wrong):
    exercise = EXERCISES[name]
    trials = [run(exercise, wrong, inputs) for inputs in (exercise.demo, *examples(exercise))]
    assert any(trial.failed for trial in trials) and recognise(exercise, trials).name == mistake


@pytest.mark.parametrize("name", ["best_rank_r", "lora_forward", "model_adapter_parameters", "quantize_absmax"])
def test_a_check_takes_little_time(name, monkeypatch):
    """Processor time with the picture, once everything has been imported."""
    monkeypatch.undo()
    wrong = LEARNERS[name][0][1]
    assert checks.check(name, wrong).picture or EXERCISES[name].picture is None
    began = time.process_time()
    checks.check(name, wrong)
    assert time.process_time() - began < 1.5


def test_an_adapter_with_its_zeros_in_a_is_not_told_that_it_changes_the_model_or_never_learns():
    text = checks.check("initial_adapter", lambda o, i, r: (torch.zeros(r, i), torch.rand(o, r))).text
    assert "changes the model" not in text and "forever" not in text and "the same on every call" in text


CASES = [
    pytest.param(name, mistake, wrong, id=f"{name}: {mistake} ({number})")
    for name, wrongs in LEARNERS.items()
    for number, (mistake, wrong) in enumerate(wrongs)
]


def test_every_exercise_has_its_learners():
    assert LEARNERS.keys() == EXERCISES.keys()
    when = {(name, m.name) for name, exercise in EXERCISES.items() for m in exercise.mistakes if m.when}
    assert when <= {(name, mistake) for name, wrongs in LEARNERS.items() for mistake, _ in wrongs}


@pytest.mark.parametrize(("name", "mistake", "wrong"), CASES)
def test_a_learners_mistake_is_named_with_an_example(name, mistake, wrong, monkeypatch):
    """With a short search: that the example is the smallest is the next test's."""
    monkeypatch.setattr(engine, "SEARCHED", 5)
    report = checks.check(name, wrong)
    assert not report.passed and report.status == "wrong"
    assert report.mistake == mistake and f"common mistake: {mistake}" in report.text
    assert "smallest example that fails" in report.text and "yours" in dict(report.example)
    assert ("expected" in dict(report.example)) == (name != "initial_adapter")
    assert report.text.count("✗") >= 2  # the verdict and at least one line
    assert len(report.folded) == 5 and report.html.count("<details>") == 5


SMALLEST = {
    "a product instead of a sum": ("adapter_parameters", lambda o, i, r: o * i * r, {"rank": "1", "expected": "2"}),
    "not strict": ("break_even_rank", lambda o, i: o * i // (o + i), {"out_features": "2", "in_features": "2"}),
    "wrong from rank 3 on": (
        "adapter_parameters", lambda o, i, r: r * (o + i) + (r > 2),
        {"out_features": "1", "in_features": "1", "rank": "3", "expected": "6", "yours": "7"},
    ),
    "wrong for tall vectors": (
        "outer_product", lambda c, r: torch.outer(c, r) * (1 if len(c) < 4 else 2), {"column": 4, "row": 1},
    ),
    "raw alpha": ("merge", lambda W, A, B, alpha: W + alpha * B @ A, {"lora_A": 4, "lora_B": 4, "alpha": "1"}),
    "layers": ("model_adapter_parameters", LEARNERS["model_adapter_parameters"][0][1], {"n_layers": "2", "rank": "1"}),
    "the second-level scales": (
        "bits_per_parameter", lambda size, double: 4 + (8 if double else 32) / size,
        {"blocksize": "32", "double_quant": "True", "expected": "4.254", "yours": "4.25"},
    ),
    "a shift that is missing": ("pack", lambda indices: indices[0::2] + indices[1::2], {"indices": 2, "expected": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "expected"), SMALLEST.values(), ids=SMALLEST)
def test_the_example_is_the_smallest(name, wrong, expected):
    example = dict(checks.check(name, wrong).example)
    for label, value in expected.items():
        shown = example[label]
        if isinstance(value, int):  # so many numbers in the tensor
            shown = math.prod(map(int, re.findall(r"\d+", re.search(r"shape \((.*?)\)", shown)[1])))
        assert shown == value


def test_two_mistakes_at_once_are_not_given_the_name_of_one():
    report = checks.check("lora_forward", lambda x, W, A, B, alpha: alpha * (x @ A.T @ B.T))
    assert not report.passed and report.mistake is None and report.example
