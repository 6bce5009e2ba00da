"""The arms of page 15 differ from plain LoRA in what their names say; how a recorder is called, and what is there."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.finetune import Encoded, Recipe, attach_adapter
from lab_utils.models.registry import load_tokenizer
from lab_utils.recorded.recorder import call, lines_there, runs_there
from lab_utils.retention import arms
from lab_utils.tasks import load_task

PLAIN = arms.Arm(Recipe(task="bookings", steps=15, batch_size=4))


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """The first sixty messages, so that encoding takes no time."""
    monkeypatch.setattr(arms, "load_task", lambda name: {"train": list(load_task(name)["train"].select(range(60)))})


def test_with_random_labels_no_message_keeps_its_answer_and_none_is_lost():
    rows = arms.load_task("bookings")["train"]
    found = arms.training_rows(replace(PLAIN, shuffled=True))
    assert [row["prompt"] for row in found] == [row["prompt"] for row in rows]
    assert sorted(row["answer"] for row in found) == sorted(row["answer"] for row in rows)
    kept = sum(one["answer"] == other["answer"] for one, other in zip(found, rows, strict=True))
    assert kept <= len(rows) - len({row["answer"] for row in rows})  # only where two messages have one answer
    other = replace(PLAIN, shuffled=True, recipe=replace(PLAIN.recipe, seed=1))
    assert found != arms.training_rows(other) and arms.training_rows(PLAIN) == rows


def test_every_tenth_example_is_replayed_text_and_no_other_changes():
    tokenizer = load_tokenizer()
    plain, mixed = (
        [one for some in arms.batches(arm, tokenizer) for one in some] for arm in (PLAIN, replace(PLAIN, replay=True))
    )
    general = arms.general_text(tokenizer)
    for place, (one, other) in enumerate(zip(plain, mixed, strict=True), 1):
        assert (other in general) if place % 10 == 0 else (one == other)
    assert len(mixed) == 60


def test_the_anchor_adds_the_divergence_from_the_base_on_the_tokens_of_the_prompts(tiny_llama):
    """KL(base ‖ model), by hand: the mean over the predicted prompt tokens of Σ p_base · (log p_base − log p_model)."""
    model, some = tiny_llama(64), [Encoded([3, 4, 5, 6, 7], 3), Encoded([8, 9, 10], 2)]
    lone, padding = arms.Arm(Recipe(rank=2, alpha=4), anchor=0.5), 0
    with torch.no_grad():
        before = [model(input_ids=torch.tensor([one.input_ids])).logits.log_softmax(-1)[0] for one in some]
    model = attach_adapter(model, lone.recipe).eval()
    with torch.no_grad():
        loss, goal = arms.batch_loss(model, lone, some, padding)
        assert goal == pytest.approx(float(loss), abs=1e-6)  # an adapter whose B is 0 is the base
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.copy_(torch.randn(one.shape, generator=torch.Generator().manual_seed(0)) / 10)
        loss, goal = arms.batch_loss(model, lone, some, padding)
        after = [model(input_ids=torch.tensor([one.input_ids])).logits.log_softmax(-1)[0] for one in some]
    parts = [(p.exp() * (p - q)).sum(-1)[: one.prompt_length - 1]
             for p, q, one in zip(before, after, some, strict=True)]  # fmt: skip
    divergence = torch.cat(parts).mean()
    assert divergence > 0.01 and float(goal - loss) == pytest.approx(0.5 * float(divergence), rel=1e-3)


@pytest.mark.parametrize("few", (3, 10))
def test_a_run_is_on_the_first_messages_that_its_recipe_wants(few):
    rows = arms.load_task("bookings")["train"]
    assert arms.training_rows(replace(PLAIN, recipe=replace(PLAIN.recipe, train_examples=few))) == rows[:few]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tiny_llama, monkeypatch):
    """The same losses to the last digit; what was looked at before is not looked at again."""
    steps = [[Encoded([3 + step, 4, 5, 6], 2), Encoded([8, 9 + step, 10], 1)] for step in range(5)]
    monkeypatch.setattr(arms, "batches", lambda arm, tokenizer: iter(steps))
    monkeypatch.setattr(arms, "wait_for_tests", lambda: None)  # `make test` holds the lock
    arm = arms.Arm(Recipe(rank=2, alpha=4, steps=5, learning_rate=0.05))
    tokenizer, kept = SimpleNamespace(pad_token_id=0), {}

    def run(until: int, losses: list[float]) -> tuple[list[int], list[float]]:
        model, seen = attach_adapter(tiny_llama(64), arm.recipe), []
        optimizer = arms.build_optimizer(model, arm.recipe.learning_rate)
        if losses:
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["optimizer"])

        def look(step: int) -> None:
            seen.append(step)
            if step == until:
                kept.update(model=deepcopy(model.state_dict()), optimizer=deepcopy(optimizer.state_dict()))
                kept["losses"] = list(losses)

        return seen, arms.train(model, tokenizer, arm, optimizer, look, (2, 4), losses)

    seen, whole = run(2, [])
    assert seen == [0, 2, 4, 5] and len(set(whole)) == 5 and kept["losses"] == whole[:2]
    assert run(0, kept["losses"]) == ([4, 5], whole)


def test_a_recorder_is_called_with_arms_it_has_and_knows_which_lines_are_there(tmp_path, capsys):
    file = tmp_path / "runs.jsonl"
    assert lines_there(file) == [] and runs_there(file) == set()
    file.write_text('{"arm": "a", "seed": 1}\n{"arm": "b", "seed": 0}\n')
    assert runs_there(file) == {("a", 1), ("b", 0)}
    file.write_text('{"arm": ')
    with pytest.raises(LabError, match="line 1"):
        runs_there(file)
    parser = call("First line.\n\nMore.", ("a", "b"), tmp_path, seeds=(0, 1))
    chosen = parser.parse_args(["--only", "a", "--list"])
    assert (chosen.only, chosen.seeds, chosen.output, chosen.list) == (["a"], [0, 1], tmp_path, True)
    assert parser.description == "First line." and not hasattr(call("Line.", (), tmp_path).parse_args([]), "seeds")
    with pytest.raises(SystemExit):
        parser.parse_args(["--only", "c"])
    assert "invalid choice: 'c'" in capsys.readouterr().err
