"""`prefer` and `reward` as runs: resumed bit for bit, started from an adapter, refused in words."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lab_utils.errors import LabError
from lab_utils.finetune import opening
from lab_utils.finetune.run_lock import held
from lab_utils.models.registry import load_tokenizer
from lab_utils.preferences import PreferenceRecipe, RewardRecipe, adapter_state, begin, pair_logprobs, prefer, reward
from lab_utils.preferences import trainers as module

SMALL = {"quantization": "none", "rank": 2, "alpha": 4, "steps": 3, "checkpoint_every": 1, "learning_rate": 1e-2}
PREFER = PreferenceRecipe(**SMALL, train_examples=6, batch_size=2)
REWARD = RewardRecipe(**SMALL, train_examples=4, batch_size=2, group_size=3, rows_at_once=4, reward="own", beta=0.1)
ROWS = [{"prompt": f"{n} tents", "answer": f'{{"qty":{n}}}'} for n in range(6)]
PAIRS = [{"prompt": row["prompt"], "chosen": row["answer"], "rejected": '{"qty":9, "x":0}'} for row in ROWS]


def vowels(output: str, answer: str) -> float:
    return float(sum(letter in "aeiou" for letter in output))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture
def trained(tiny_llama, tokenizer, monkeypatch):
    """A function that trains the tiny model by a recipe in a folder; sampled answers have room for 6 tokens."""
    sample = module.sample_groups
    monkeypatch.setattr(module, "sample_groups", lambda *arguments: sample(*arguments[:-1], 6))

    def call(recipe, folder: Path, **options):
        base = (tiny_llama(len(tokenizer)), tokenizer)
        if isinstance(recipe, PreferenceRecipe):
            return prefer(recipe, folder, base=base, progress=False, **{"pairs": PAIRS, **options})
        return reward(recipe, folder, base=base, progress=False, **{"dataset": ROWS, "judge": vowels, **options})

    return call


def stop_after(steps: int):
    def on_step(history):
        if len(history) == steps:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("recipe", [PREFER, REWARD, replace(REWARD, updates=2, beta=0.0)], ids=["dpo", "grpo", "twice"])
def test_a_run_that_was_killed_ends_as_one_that_nobody_disturbed(recipe, trained, tmp_path):
    whole = trained(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, tmp_path / "killed", on_step=stop_after(2))
    resumed = trained(recipe, tmp_path / "killed")
    assert resumed.resumed_from == 2
    assert [[row[name] for name in row if name != "seconds"] for row in resumed.history] == [
        [row[name] for name in row if name != "seconds"] for row in whole.history
    ]
    name = "adapter_model.safetensors"
    assert (resumed.adapter_dir / name).read_bytes() == (whole.adapter_dir / name).read_bytes()
    again = trained(recipe, tmp_path / "whole")  # finished: loaded at once
    assert again.resumed_from == 3 and again.history == whole.history


def test_a_run_begins_at_its_reference_and_the_next_one_where_it_ended(trained, tmp_path):
    """A model that is its own reference has the loss log 2: the base, or the adapter that a run starts from."""
    first = trained(PREFER, tmp_path / "first")
    assert first.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-6) and first.history[0]["accuracy"] == 0
    assert first.history[2]["loss"] != pytest.approx(math.log(2), rel=1e-6)
    start = str(first.adapter_dir)
    second = trained(replace(PREFER, start=start), tmp_path / "second")
    assert second.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert second.history[0]["chosen_logprob"] != pytest.approx(first.history[0]["chosen_logprob"], rel=1e-3)
    far = trained(replace(REWARD, start=start, steps=1), tmp_path / "third").history[0]["distance"]
    assert far == pytest.approx(0, abs=1e-6)
    with pytest.raises(LabError, match=r"has alpha=4.0 and the recipe has alpha=16"):
        trained(replace(PREFER, start=start, alpha=16.0), tmp_path / "other")
    with pytest.raises(LabError, match="is not the folder of an adapter"):
        trained(replace(PREFER, start=str(tmp_path)), tmp_path / "other")


def test_pairs_are_judged_as_the_trainer_judges_them(trained, tokenizer, tiny_llama, tmp_path):
    """The same numbers as in the first row of a run that starts there; shorter answers have fewer tokens."""
    recipe = replace(PREFER, steps=1, batch_size=6)
    run = trained(recipe, tmp_path / "run")
    model, start = begin(tiny_llama(len(tokenizer)), recipe)
    logprobs, tokens = pair_logprobs(model, tokenizer, PAIRS, batch_size=4)
    assert start is None and model.training
    means = [run.history[0][f"{name}_logprob"] for name in ("chosen", "rejected")]
    assert logprobs.mean(0).tolist() == pytest.approx(means, rel=1e-5)
    assert (tokens[:, 0] < tokens[:, 1]).all()
    model, start = begin(tiny_llama(len(tokenizer)), replace(recipe, start=str(run.adapter_dir)))
    assert all(one.equal(adapter_state(run.model)[name]) for name, one in start.items())


def test_a_run_is_opened_scored_and_carded_as_any_other(trained, tokenizer, tiny_llama, tmp_path, monkeypatch):
    """`open_run`, which scores and report cards begin with, reads what both methods leave."""
    monkeypatch.setattr(opening, "load_base", lambda *arguments: (tiny_llama(len(tokenizer)), tokenizer))
    for recipe in (PREFER, REWARD):
        run = trained(replace(recipe, steps=1), tmp_path / type(recipe).__name__)
        opened = opening.open_run(run.output_dir)
        assert opened.history == run.history and opened.recipe.rank == recipe.rank
        assert all(one.equal(adapter_state(opened.model)[name]) for name, one in adapter_state(run.model).items())


def test_how_many_answers_go_through_the_model_at_once_changes_no_gradient(trained, tmp_path, monkeypatch):
    found, sums = [], []
    take = module.StepTrainer._update_with

    def watched(self, parts):
        monkeypatch.setattr(self.optimizer, "zero_grad", lambda: None)
        row = take(self, parts)
        found.append({name: one.grad.clone() for name, one in self.model.named_parameters() if one.grad is not None})
        sums.append(row)
        return row

    monkeypatch.setattr(module.StepTrainer, "_update_with", watched)
    for at_once in (2, 6):
        recipe = replace(REWARD, rows_at_once=at_once, steps=1, learning_rate=1e-9, max_grad_norm=1e9)
        trained(recipe, tmp_path / str(at_once))
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert sums[0] == pytest.approx(sums[1], rel=1e-4, abs=1e-6)


def test_equal_rewards_teach_nothing_and_are_not_taken_for_an_accident(trained, tmp_path):
    run = trained(replace(REWARD, beta=0.0), tmp_path / "run", judge=lambda output, answer: 1.0)
    assert [(row["reward"], row["informative"], row["loss"]) for row in run.history] == [(1, 0, 0)] * 3
    assert not any(one.any() for name, one in adapter_state(run.model).items() if "lora_B" in name)


def test_the_first_update_is_the_same_whether_others_follow_or_not(trained, tmp_path):
    once, twice = (
        trained(replace(REWARD, updates=updates, steps=1), tmp_path / str(updates)) for updates in (1, 2)
    )  # fmt: skip
    assert once.history[0]["loss"] == twice.history[0]["loss"]
    assert any(not one.equal(adapter_state(twice.model)[name]) for name, one in adapter_state(once.model).items())


def test_what_cannot_be_trained_is_refused_in_words(trained, tmp_path):
    with pytest.raises(LabError, match="a PreferenceRecipe, as in"):
        prefer(REWARD, tmp_path)
    with pytest.raises(LabError, match="for the task 'bookings'"):
        prefer(replace(PREFER, task="style"), tmp_path)
    with pytest.raises(LabError, match="pair 2: chosen and rejected are the same"):
        trained(PREFER, tmp_path, pairs=[PAIRS[0], {**PAIRS[1], "rejected": PAIRS[1]["chosen"]}])
    with pytest.raises(LabError, match=r"pair 1: .* is not a pair"):
        trained(PREFER, tmp_path, pairs=ROWS)
    with pytest.raises(LabError, match="None of 6 pairs fits into max_length=8"):
        trained(replace(PREFER, max_length=8), tmp_path)
    with pytest.raises(LabError, match="None of 4 prompts fits into max_length=60"):
        trained(replace(REWARD, max_length=60), tmp_path)
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    with pytest.raises(LabError, match="dataset holds conversations"):
        trained(REWARD, tmp_path, dataset=[{"messages": talk}])
    with held(tmp_path / "busy"), pytest.raises(LabError, match="is in use"):
        trained(PREFER, tmp_path / "busy")


def test_a_damaged_base_or_start_is_refused_and_the_old_run_stays_where_it_is(trained, tokenizer, tiny_llama, tmp_path):
    damaged = tiny_llama(len(tokenizer))
    next(damaged.parameters()).data[0, 0] = math.nan
    with pytest.raises(LabError, match="base is damaged"):
        prefer(PREFER, tmp_path / "other", base=(damaged, tokenizer), pairs=PAIRS, progress=False)
    (tmp_path / "run" / "checkpoint-000001").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-000001" / "record.json").write_text("{}")
    with pytest.raises(LabError, match="is not the folder of an adapter"):
        trained(replace(PREFER, start=str(tmp_path)), tmp_path / "run", resume=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-000001"]


def test_another_recipe_other_pairs_or_another_start_are_not_resumed(trained, tmp_path):
    run = trained(replace(PREFER, steps=1), tmp_path / "run")
    with pytest.raises(LabError, match=r"another recipe \(beta: 0.1 there, 0.5 here\)"):
        trained(replace(PREFER, steps=1, beta=0.5), tmp_path / "run")
    with pytest.raises(LabError, match="other training data"):
        trained(replace(PREFER, steps=1), tmp_path / "run", pairs=PAIRS[::-1])
    start = tmp_path / "start"
    run.adapter_dir.rename(start)
    recipe = replace(PREFER, steps=1, start=str(start))
    trained(recipe, tmp_path / "second")
    file = start / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: one + 1 for name, one in load_file(file).items()}, file)
    with pytest.raises(LabError, match="other training data"):
        trained(recipe, tmp_path / "second")


def test_a_step_of_a_larger_advantage_makes_its_answer_likelier(trained, tmp_path, monkeypatch):
    """One prompt, two fixed answers, one of them rewarded: a small step moves both log-probabilities the right way."""
    good, bad = [300, 301, 2], [400, 401, 2]
    monkeypatch.setattr(module, "sample_groups", lambda *arguments: [good, bad])
    seen = []
    parts = module.RewardTrainer._parts

    def watched(self, samples, *rest):
        with torch.no_grad():
            seen.append(self.logprobs(self.on_device(samples)).sum(1))
        return parts(self, samples, *rest)

    monkeypatch.setattr(module.RewardTrainer, "_parts", watched)
    recipe = replace(REWARD, batch_size=1, group_size=2, train_examples=1, updates=2, steps=1, beta=0.0)
    first = [True]
    trained(recipe, tmp_path, judge=lambda output, answer: float(first.pop() if first else False))
    assert seen[1][0] > seen[0][0] and seen[1][1] < seen[0][1]


def test_the_history_says_what_was_right_whatever_was_rewarded(trained, tmp_path, monkeypatch):
    """One of four messages has the answer that is always given: in an epoch of two steps a quarter is right."""
    monkeypatch.setattr(module, "decode_answer", lambda tokenizer, tokens: '{"qty": 0}')
    run = trained(replace(REWARD, beta=0.0, steps=2), tmp_path / "run", judge=lambda output, answer: 7.0)
    assert sorted(row["right"] for row in run.history) == [0, 0.5]
    assert [row["reward"] for row in run.history] == [7, 7]
