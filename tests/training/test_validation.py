"""Validation loss, early stopping and the best checkpoint: decided by the history, so the same after a kill."""

import json
from dataclasses import replace

import pytest
import tiny_runs
import torch
from run_folders import RECIPE
from safetensors.torch import load_file
from unfolded import unfolded

from lab_utils.errors import LabError
from lab_utils.finetune import trainer
from lab_utils.finetune.batches import collate
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.run_folders import checkpoints
from lab_utils.finetune.supervision import IGNORED, encode_split
from lab_utils.finetune.validation import best_step, is_due, is_over
from lab_utils.tasks import TASKS, load_task

WATCHED = replace(RECIPE, steps=6, validate_every=2, validation_examples=5, keep_best=True, dropout=0.1)


def history(*losses) -> list[dict]:
    """Rows with these validation losses, every second step."""
    return [
        {"step": step, "loss": 1.0, **({"validation_loss": losses[step // 2 - 1]} if step % 2 == 0 else {})}
        for step in range(1, 2 * len(losses) + 1)
    ]


def test_when_it_is_measured_and_when_it_is_over():
    recipe = Recipe(steps=7, validate_every=2, patience=2)
    assert [step for step in range(1, 8) if is_due(step, recipe)] == [2, 4, 6, 7]
    assert not any(is_due(step, Recipe(steps=7)) for step in range(1, 8))
    assert best_step(history(3.0, 1.0, 1.0)) == 4 and best_step([{"step": 1, "loss": 0.0}]) == 0
    assert not is_over(history(3.0, 1.0, 2.0), recipe)
    assert is_over(history(1.0, 2.0, 1.0), recipe)  # as low is not lower
    assert is_over(history(3.0, 2.0, 1.0, 0.5)[:7], recipe)  # all steps
    assert not is_over(history(1.0, 2.0, 3.0), replace(recipe, patience=0))


def test_stopping_wants_a_measurement():
    with pytest.raises(LabError, match="set validate_every too"):
        Recipe(patience=2)


def adapter(folder) -> dict:
    return load_file(folder / "adapter_model.safetensors")


def test_it_is_the_mean_loss_of_the_validation_split_and_changes_nothing(train, tmp_path):
    """Held against a loop in plain words; the training losses are those of a run that measures nothing."""
    watched = train(tmp_path / "watched", recipe=replace(WATCHED, keep_best=False))
    plain = train(tmp_path / "plain", recipe=replace(WATCHED, keep_best=False, validate_every=0))
    assert [row["loss"] for row in watched.history] == [row["loss"] for row in plain.history]
    assert [row["step"] for row in watched.history if "validation_loss" in row] == [2, 4, 6]
    rows = load_task("bookings")["validation"].select(range(5))
    examples = encode_split(watched.tokenizer, TASKS["bookings"], rows, WATCHED.max_length)
    total = count = 0
    watched.model.eval()
    for example in examples:
        batch = collate([example], 2)
        tokens = int((batch["labels"] != IGNORED).sum())
        with torch.no_grad():
            total += float(watched.model(**batch).loss) * tokens
        count += tokens
    assert watched.history[-1]["validation_loss"] == pytest.approx(total / count, rel=1e-5)


def scripted(monkeypatch, *losses):
    """Let the validation losses be these, by the step that the adapter is at."""
    take_step = trainer.Trainer.take_step

    def counted(self, step):
        self.at = step + 1
        return take_step(self, step)

    monkeypatch.setattr(trainer.Trainer, "take_step", counted)
    monkeypatch.setattr(trainer.Trainer, "validation_loss", lambda self, examples: losses[self.at // 2 - 1])


def test_the_best_is_kept_also_by_a_run_that_was_killed_after_it(train, tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, 1.0, 2.0, 3.0)
    recipe = replace(WATCHED, checkpoint_every=1)
    whole = train(tmp_path / "whole", recipe=recipe)
    assert whole.best_step == 2 and "The adapter of step 2 is kept" in unfolded(capsys.readouterr().out)
    names = [path.name for path in checkpoints(tmp_path / "whole")]
    assert names == ["checkpoint-000002", "checkpoint-000005", "checkpoint-000006"]
    best = adapter(tmp_path / "whole" / "checkpoint-000002")
    assert all(torch.equal(one, best[name]) for name, one in adapter(tmp_path / "whole" / "adapter").items())

    with tiny_runs.stopping_after(5), pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", recipe=recipe)
    again = train(tmp_path / "killed", recipe=recipe)
    assert again.resumed_from == 5 and [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]
    assert all(torch.equal(one, best[name]) for name, one in adapter(tmp_path / "killed" / "adapter").items())
    assert train(tmp_path / "killed", recipe=recipe).history == again.history  # finished: loaded at once


def test_a_run_without_progress_stops_and_stays_stopped(train, tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, 1.0, 2.0, 3.0)
    recipe = replace(WATCHED, steps=40, keep_best=False, patience=1)
    run = train(tmp_path, recipe=recipe)
    assert len(run.history) == 4 and run.best_step == 2
    assert "Stopped after step 4: 1 times in a row" in unfolded(capsys.readouterr().out)
    again = train(tmp_path, recipe=recipe)
    assert again.resumed_from == 4 and again.history == run.history
    record = json.loads((checkpoints(tmp_path)[-1] / "record.json").read_text())
    assert record["history"] == run.history and record["recipe"]["patience"] == 1


def test_a_sharded_run_that_should_keep_the_best_is_refused_by_name(train, tmp_path):
    with pytest.raises(LabError, match=r"keep_best and patience .* not made for a sharded one"):
        train(tmp_path, recipe=WATCHED, fsdp=tiny_runs.CONFIG)


def test_rows_without_a_validation_split_are_refused_by_name(train, tmp_path):
    with pytest.raises(LabError, match=r"no split 'validation'.*validate_every at 0"):
        train(tmp_path, recipe=WATCHED, dataset=load_task("bookings")["train"])


def test_the_live_curve_shows_it_and_marks_the_lowest():
    from lab_utils.plots import loss_curve
    from lab_utils.widgets.live_loss import LiveLoss

    rows = [{**row, "tokens": 9, "seconds": 1.0} for row in history(3.0, 1.0, 2.0)]
    lines = {line.get_label(): line for line in loss_curve(rows).axes[0].lines}
    assert list(lines["validation"].get_xdata()) == [2, 4, 6] and list(lines["validation"].get_ydata()) == [3, 1, 2]
    live = LiveLoss(steps=6)
    live(rows)
    assert live.text.value.endswith("Validation loss 2.000, lowest 1.000 at step 4.")
    assert "validation" not in {line.get_label() for line in loss_curve([dict(row) for row in rows[:1]]).axes[0].lines}
