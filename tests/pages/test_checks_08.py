"""Solutions of page 08 against the library that trains and scores there, and numbers worked by hand."""

import json
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from lab_utils import checks, scores
from lab_utils.checks.engine import examples
from lab_utils.finetune import Encoded, Recipe, answer_logits
from lab_utils.finetune import collate as collate_of_the_lab
from lab_utils.tasks import TASKS, load_task

EXERCISES = {name: exercise for name, exercise in checks.EXERCISES.items() if exercise.page == 8}
SOLVED = {name: exercise.solution for name, exercise in EXERCISES.items()}


def inputs_of(name):
    return [EXERCISES[name].demo, *examples(EXERCISES[name])]


def test_labels_and_batches_are_those_that_the_lab_trains_on():
    encoded, made = [], []
    for prompt, answer, end_id in inputs_of("build_labels"):
        ids, labels = SOLVED["build_labels"](prompt, answer, end_id)
        encoded.append(Encoded([*prompt.tolist(), *answer.tolist(), end_id], len(prompt)))
        made.append((ids, labels))
        assert ids.tolist() == encoded[-1].input_ids and labels.tolist() == encoded[-1].labels()
    batch = collate_of_the_lab(encoded, 2)
    for ours, theirs in zip(SOLVED["collate"](*zip(*made, strict=True), 2), batch.values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_loss_is_that_of_the_labs_steps():
    """Of logits that a model gives at every place, `answer_logits` takes those before a label."""
    for logits, labels in inputs_of("answer_loss"):
        head = torch.nn.Identity()
        model = LogitsOnly(logits, head)
        found, targets, _ = answer_logits(model, labels.clamp(min=0), torch.ones_like(labels), labels)
        expected = torch.nn.functional.cross_entropy(found.float(), targets, reduction="sum") / len(targets)
        assert torch.allclose(SOLVED["answer_loss"](logits, labels).float(), expected, atol=1e-6)


class LogitsOnly(torch.nn.Module):
    """A causal model that gives the same logits whatever it reads."""

    def __init__(self, logits, head):
        super().__init__()
        self.logits, self.head = logits, head
        self.config = SimpleNamespace(model_type="llama", is_encoder_decoder=False)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=self.head(self.logits))


def test_the_loss_has_a_gradient_at_places_before_a_label_and_nowhere_else():
    logits, labels = EXERCISES["answer_loss"].demo
    logits = logits.clone().requires_grad_()
    SOLVED["answer_loss"](logits, labels).backward()
    moved = logits.grad.abs().sum(-1) > 0
    assert torch.equal(moved[:, :-1], labels[:, 1:] != -100) and not moved[:, -1].any()


def test_the_learning_rate_is_the_recipes():
    for step, steps, peak, warmup in inputs_of("learning_rate_at"):
        recipe = Recipe(steps=steps, learning_rate=peak, warmup=warmup)
        assert SOLVED["learning_rate_at"](step, steps, peak, warmup) == pytest.approx(recipe.learning_rate_at(step))
    rates = [SOLVED["learning_rate_at"](step, 10, 1.0, 0.2) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.5) and rates[-1] > 0


def test_field_scores_are_the_tasks():
    task = TASKS["bookings"]
    for outputs, answers, fields in inputs_of("field_scores"):
        rows = [task.right_fields(output, answer) for output, answer in zip(outputs, answers, strict=True)]
        expected = [sum(row[name] for row in rows) / len(rows) for name in fields]
        assert SOLVED["field_scores"](outputs, answers, fields).tolist() == pytest.approx(expected)
    assert SOLVED["field_scores"](*EXERCISES["field_scores"].demo).tolist() == [0.75, 0.5, 0.25]


def test_the_intervals_are_the_labs_and_hold_the_truth_in_about_95_of_100_cases():
    for right, n in inputs_of("share_interval"):
        found = scores.wilson(right, n)
        assert SOLVED["share_interval"](right, n) == pytest.approx((found.low, found.high), abs=1e-4)
    assert SOLVED["share_interval"](0, 20)[1] == pytest.approx(0.161, abs=5e-4)  # the reward says so
    (low, high), (least, most) = SOLVED["share_interval"](16, 20), SOLVED["share_interval"](160, 200)
    assert (high - low) / (most - least) == pytest.approx(3.0, abs=0.05)  # and this
    held = 0.0
    for right in range(41):  # of 40, at a true share of 0.1
        low, high = SOLVED["share_interval"](right, 40)
        held += (low <= 0.1 <= high) * math.comb(40, right) * 0.1**right * 0.9 ** (40 - right)
    assert 0.93 < held < 0.97


def test_every_answer_of_the_cases_is_json_and_some_outputs_are_not():
    outputs, answers = ([text for one in inputs_of("field_scores") for text in one[part]] for part in (0, 1))
    assert all(isinstance(json.loads(answer), dict) for answer in answers)
    assert {"", "[]"} <= set(outputs)


def test_what_the_reward_says_of_one_booking_for_all_is_so():
    task, rows = TASKS["bookings"], load_task("bookings")["handwritten"]
    fields = ["name", "qty", "item", "day", "time"]
    constant = json.dumps({"name": "", "qty": 1, "item": "", "day": "Friday", "time": ""})
    found = SOLVED["field_scores"]([constant] * len(rows), [row["answer"] for row in rows], fields)
    assert len(rows) == 100 and found.mul(100).round().tolist() == [0, 47, 0, 17, 0]
    for place, name in ((1, "qty"), (3, "day")):  # the most common values
        counts = Counter(task.parse(row["answer"])[name] for row in rows)
        assert counts.most_common(1)[0][1] == round(100 * found[place].item())


def test_a_label_at_place_0_costs_nothing_and_no_row_is_scored_with_another():
    made = inputs_of("answer_loss")
    assert any((labels[:, 0] != -100).any() for _, labels in made)
    for logits, labels in made:
        hidden = labels.clone()
        hidden[:, 0] = -100
        assert torch.equal(SOLVED["answer_loss"](logits, labels), SOLVED["answer_loss"](logits, hidden))
