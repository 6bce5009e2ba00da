"""The sweep: a trial's row is what a run by hand gives, and a table killed at any row goes on with the next."""

import errno
import os
import sys
from importlib.metadata import version

import data_scripts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lab_utils.evaluate
import lab_utils.finetune.full
import lab_utils.finetune.run
from lab_utils.errors import LabError
from lab_utils.evaluate import AnswerLosses, answer_losses
from lab_utils.finetune.full import matrices, train_full
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.run import finetune
from lab_utils.sweep import trials as module
from lab_utils.sweep.table import COLUMNS, OLD_COLUMNS, RESULTS, add_row, read_rows
from lab_utils.sweep.trial import METHODS, SETTINGS, Trial
from lab_utils.sweep.trials import measure, missing, sweep
from lab_utils.tasks.registry import load_task

SHORT = {"model": "smollm2-135m", "steps": 4, "batch_size": 2, "train_examples": 6, "rank": 4, "alpha": 8}
TRIALS = [Trial(recipe=Recipe(model="smollm2-135m", seed=seed)) for seed in range(4)]


def row_of(trial: Trial, **results) -> dict:
    """A row as `measure` makes it, with made-up results."""
    made_up = {"validation_loss": 0.5, "validation_exact": 0.25, "cpu_seconds": 1.5}
    return dict.fromkeys(COLUMNS, "") | trial.settings | made_up | results


@pytest.fixture
def tiny(tiny_llama, tokenizer, monkeypatch):
    """The embedded model's place taken by a tiny one; the function builds the same again."""
    monkeypatch.setattr(module, "_base", lambda model, quantization: (tiny_llama(49152), tokenizer))
    monkeypatch.setattr(lab_utils.finetune.full, "load_base", lambda *_, **__: (tiny_llama(49152), tokenizer))
    return lambda: tiny_llama(49152)


@pytest.fixture(scope="module")
def recorder():
    return data_scripts.load("record_sweep")


# Trials.


@pytest.mark.parametrize("shots", [1, 4, -1])
@pytest.mark.parametrize("method", ["adapter", "full"])
def test_shots_belong_to_prompts(method, shots):
    with pytest.raises(LabError, match=f"shots={shots} with method='{method}'"):
        Trial(recipe=TRIALS[0].recipe, method=method, shots=shots)


def test_a_prompt_has_no_shots_or_some():
    assert [Trial(recipe=TRIALS[0].recipe, method="prompt", shots=shots).shots for shots in (0, 1, 4)] == [0, 1, 4]
    with pytest.raises(LabError, match="shots=-1"):
        Trial(recipe=TRIALS[0].recipe, method="prompt", shots=-1)


def test_the_model_must_be_named():
    with pytest.raises(LabError, match="model='auto' differs from machine to machine"):
        Trial(recipe=Recipe())


def test_an_unknown_method_is_named():
    with pytest.raises(LabError, match=r"Unknown method 'magic'.*adapter, full, prompt"):
        Trial(recipe=TRIALS[0].recipe, method="magic")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("warmup", 0.5),
        ("max_length", 64),
        ("max_grad_norm", 2.0),
        ("weight_decay", 0.1),
        ("gradient_checkpointing", True),
        ("supervise_end", False),
    ],
)
def test_what_the_table_would_not_show_is_refused(name, value):
    with pytest.raises(LabError, match=f"{name} is not a column"):
        Trial(recipe=Recipe(model="smollm2-135m", **{name: value}))


def test_how_often_a_run_is_saved_is_free():
    assert Trial(recipe=Recipe(model="smollm2-135m", checkpoint_every=3)).settings == TRIALS[0].settings


@settings(derandomize=True, database=None, max_examples=100)
@given(
    st.builds(
        Recipe,
        model=st.just("smollm2-135m"),
        task=st.sampled_from(["bookings", "style"]),
        quantization=st.sampled_from(["nf4", "fp4", "int8", "none"]),
        rank=st.integers(1, 1024),
        alpha=st.sampled_from([0.25, 1.0, 16.0, 128.0, 1e6]),
        use_rslora=st.booleans(),
        target_modules=st.sampled_from(["all-linear", "attention", "qv", "mlp", ("q_proj",), ("o_proj", "up_proj")]),
        dropout=st.sampled_from([0.0, 0.05, 0.1]),
        learning_rate=st.sampled_from([1e-5, 2e-4, 2e-3, 0.5]),
        steps=st.integers(1, 10**6),
        batch_size=st.integers(1, 64),
        train_examples=st.none() | st.integers(1, 1000),
        seed=st.integers(0, 2**32 - 1),
    ),
    st.sampled_from(METHODS),
)
def test_a_row_names_its_trial(recipe, method):
    trial = Trial(recipe=recipe, method=method, shots=4 if method == "prompt" else 0)
    assert Trial.from_row(trial.settings) == trial
    assert list(trial.settings) == ["method", "shots", *SETTINGS]


def test_every_recorded_trial_comes_back_from_the_table(recorder, tmp_path):
    """To six digits: only √8·2, an alpha of one of them, has more."""
    trials = missing(recorder.trials(), tmp_path / "none.csv")
    for trial in trials:
        add_row(tmp_path / "table.csv", row_of(trial))
    rows = read_rows(tmp_path / "table.csv")
    for trial, row in zip(trials, rows, strict=True):
        back = Trial.from_row(row)
        assert back.settings == trial.settings and str(back) == str(trial)
        assert back.recipe.alpha == pytest.approx(trial.recipe.alpha, rel=1e-6)
        assert (back == trial) == (trial.recipe.alpha != 2 * 8**0.5)
    assert missing(recorder.trials(), tmp_path / "table.csv") == []


def test_different_trials_have_different_settings_and_names(recorder):
    trials = set(recorder.trials())
    assert len({tuple(trial.settings.values()) for trial in trials}) == len(trials)
    assert len({str(trial) for trial in trials}) == len(trials)


def test_every_setting_has_every_seed_where_seeds_matter(recorder):
    """Without shots or training nothing is drawn."""
    seeds = {}
    for trial in recorder.trials():
        key = tuple(value for name, value in trial.settings.items() if name != "seed")
        seeds.setdefault(key, (trial, set()))[1].add(trial.recipe.seed)
    once = [trial for trial, found in seeds.values() if found != set(recorder.SEEDS)]
    assert [(trial.method, trial.shots) for trial in once] == [("prompt", 0)]


def test_the_script_lists_what_is_missing_and_runs_nothing(recorder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recorder, "sweep", None)  # calling it would fail
    trials = missing(recorder.trials(), tmp_path / "none.csv")
    for trial in trials[:-2]:
        add_row(tmp_path / "table.csv", row_of(trial))
    recorder.main(["--list", "--output", str(tmp_path / "table.csv")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [str(trials[-2]), str(trials[-1]), f"2 trials are missing in {tmp_path / 'table.csv'}."]


# The table.


def test_rows_come_back_as_they_were_written(tmp_path):
    odd = {"problem": 'The loss is nan, at "step" 3:\nlower it; √', "cpu": "a, b", "validation_loss": 1 / 3}
    rows = [row_of(TRIALS[0]), row_of(TRIALS[1], **odd)]
    assert read_rows(tmp_path / "folder" / "table.csv") == []
    for row in rows:
        add_row(tmp_path / "folder" / "table.csv", row)
    found = read_rows(tmp_path / "folder" / "table.csv")
    assert found == [{name: str(value) for name, value in row.items()} for row in rows]
    assert float(found[1]["validation_loss"]) == 1 / 3


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "", ",".join(COLUMNS[::-1]) + "\n", ",".join(COLUMNS[:-1]) + "\n"])
def test_a_table_with_other_columns_is_refused_and_left_alone(tmp_path, text):
    table = tmp_path / "table.csv"
    table.write_text(text)
    for act in (lambda: read_rows(table), lambda: missing(TRIALS, table), lambda: sweep(TRIALS, table)):
        with pytest.raises(LabError, match=r"table\.csv is not a sweep's table.*Move it away"):
            act()
    assert table.read_text() == text


@pytest.mark.parametrize("encoding, end", [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
def test_a_table_is_read_as_utf8_with_or_without_a_bom(tmp_path, encoding, end):
    """A spreadsheet program saves a BOM and CRLF."""
    row = row_of(TRIALS[0], problem="√ ü")
    add_row(tmp_path / "table.csv", row)
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    (tmp_path / "table.csv").write_bytes(text.replace("\n", end).encode(encoding))
    assert read_rows(tmp_path / "table.csv") == [{name: str(value) for name, value in row.items()}]


@pytest.mark.parametrize("damage, what", [
    (lambda data: data[:-40], r"table\.csv, line 3: this row has \d+ fields and not 31"),
    (lambda data: data[:-1] + b",1\n", r"table\.csv, line 3: this row has 32 fields and not 31"),
    (lambda data: data + b'"' + b"x" * 200_000, r"table\.csv, line 4: not CSV \(field larger"),
    (lambda data: data + b"\xe4\n", r"table\.csv is not UTF-8: byte \d+, in line 4, is 0xe4"),
])  # fmt: skip
def test_a_damaged_table_is_refused_with_its_line_before_anything_runs(tmp_path, damage, what):
    table = tmp_path / "table.csv"
    for trial in TRIALS[:2]:
        add_row(table, row_of(trial))
    table.write_bytes(damage(table.read_bytes()))
    before = table.read_bytes()
    for act in (lambda: read_rows(table), lambda: sweep(TRIALS, table)):
        with pytest.raises(LabError, match=what):
            act()
    assert table.read_bytes() == before


def test_a_last_line_without_its_end_stays_a_row(tmp_path):
    add_row(tmp_path / "table.csv", row_of(TRIALS[0]))
    (tmp_path / "table.csv").write_bytes((tmp_path / "table.csv").read_bytes().rstrip(b"\n"))
    add_row(tmp_path / "table.csv", row_of(TRIALS[1]))
    assert [Trial.from_row(row) for row in read_rows(tmp_path / "table.csv")] == TRIALS[:2]


@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_leaves_the_table_as_it_was(tmp_path, monkeypatch, first):
    if not first:
        add_row(tmp_path / "table.csv", row_of(TRIALS[0]))
    before = read_rows(tmp_path / "table.csv")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LabError, match=r"No row could be added to .*table\.csv: .*The disk is full"):
            add_row(tmp_path / "table.csv", row_of(TRIALS[1]))
    assert read_rows(tmp_path / "table.csv") == before and (tmp_path / "table.csv").exists() != first
    add_row(tmp_path / "table.csv", row_of(TRIALS[1]))
    assert len(read_rows(tmp_path / "table.csv")) == len(before) + 1


def test_a_tables_path_may_start_at_home_and_may_not_be_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    add_row("~/table.csv", row_of(TRIALS[0]))
    assert len(read_rows("~/table.csv")) == 1 and missing(TRIALS, "~/table.csv") == TRIALS[1:]
    assert (tmp_path / "table.csv").is_file()
    for act in (lambda: read_rows(tmp_path), lambda: add_row(tmp_path, row_of(TRIALS[0]))):
        with pytest.raises(LabError, match=r"is a folder|That is a folder"):
            act()
    with pytest.raises(LabError, match="A file is in the way"):
        add_row(tmp_path / "table.csv" / "table.csv", row_of(TRIALS[0]))


def test_a_value_that_has_no_column_is_not_lost_silently(tmp_path):
    with pytest.raises(ValueError, match="perplexity"):
        add_row(tmp_path / "table.csv", row_of(TRIALS[0], perplexity=3))


def test_missing_keeps_the_order_and_takes_each_once(tmp_path):
    table = tmp_path / "table.csv"
    assert missing(iter([TRIALS[2], TRIALS[0], TRIALS[2], TRIALS[1]]), table) == [TRIALS[2], TRIALS[0], TRIALS[1]]
    add_row(table, row_of(TRIALS[0]))
    left = missing(TRIALS, table)
    assert left == TRIALS[1:] == missing(left, table)
    add_row(table, row_of(TRIALS[1], problem="The loss is nan"))  # it was tried: that is its result
    assert missing(TRIALS, table) == TRIALS[2:]
    prompt = Trial(recipe=TRIALS[0].recipe, method="prompt")
    shot = Trial(recipe=TRIALS[0].recipe, method="prompt", shots=1)
    assert missing([prompt, shot, TRIALS[0]], table) == [prompt, shot]


# One trial.


def test_an_adapters_row_is_that_of_a_run_by_hand(tiny, tokenizer, tmp_path):
    trial = Trial(recipe=Recipe(seed=5, use_rslora=True, target_modules="qv", **SHORT))
    row = measure(trial, evaluated=7)
    assert tuple(row) == COLUMNS
    data = load_task("bookings")
    rows = data["train"].shuffle(seed=5).select(range(6))
    run = finetune(trial.recipe, tmp_path, base=(tiny(), tokenizer), dataset={"train": rows}, progress=False)
    assert {name: row[name] for name in ("method", "shots", *SETTINGS)} == trial.settings
    assert row["training_loss"] == round(run.history[-1]["loss"], 6)  # the last quarter of four steps
    assert row["tokens"] == sum(step["tokens"] for step in run.history)
    # q 64×64 and v 32×64 in two layers, rank 4
    assert row["trainable_parameters"] == 2 * 4 * ((64 + 64) + (64 + 32))
    for split in ("validation", "test"):
        losses = answer_losses(run.model, tokenizer, data[split].select(range(7)))
        assert row[f"{split}_loss"] == round(losses.loss, 6) and row[f"{split}_exact"] == round(losses.exact, 4)
    assert row["validation_loss"] != row["test_loss"]
    assert row["problem"] == "" and row["threads"] == torch.get_num_threads()
    assert f"python {sys.version.split()[0]} torch {version('torch')} transformers " in row["versions"]
    assert 0 < row["training_cpu_seconds"] <= row["cpu_seconds"]


def test_training_loss_is_the_mean_of_the_last_quarter(tiny):
    """Of 10 steps the last two; each step's loss is heard through `on_step`."""
    heard = []
    trial = Trial(recipe=Recipe(**{**SHORT, "steps": 10}))
    row = measure(trial, evaluated=1, on_step=lambda history: heard.append(history[-1]["loss"]))
    assert len(heard) == 10 and row["training_loss"] == round((heard[8] + heard[9]) / 2, 6)


def test_a_full_fine_tunes_row_is_that_of_a_run_by_hand(tiny, tokenizer):
    trial = Trial(recipe=Recipe(quantization="none", **SHORT), method="full")
    row = measure(trial, evaluated=3)
    model = tiny().requires_grad_(False)
    for matrix in matrices(model).values():
        matrix.weight.requires_grad_(True)
    data = load_task("bookings")
    losses = train_full(model, tokenizer, trial.recipe, data["train"].shuffle(seed=0).select(range(6)))
    assert tuple(row) == COLUMNS and row["method"] == "full" and row["problem"] == ""
    assert row["training_loss"] == round(losses[-1], 6) and row["tokens"] == ""
    assert row["trainable_parameters"] == 2 * (2 * 64**2 + 2 * 32 * 64 + 3 * 128 * 64)
    assert row["test_loss"] == round(answer_losses(model, tokenizer, data["test"].select(range(3))).loss, 6)


def test_a_prompts_shots_are_the_seeds_first_examples(tiny, monkeypatch):
    """Nothing is trained, and the same shots are before the questions of both splits."""
    seen = []

    def stub(model, tokenizer, rows, task, *, shots):
        seen.append(list(shots))
        assert len(rows) == 3
        return AnswerLosses(loss=0.125, exact=1 / 3, losses=(), right=())

    monkeypatch.setattr(lab_utils.evaluate, "answer_losses", stub)
    for seed in (0, 1):
        row = measure(Trial(recipe=Recipe(**SHORT, seed=seed), method="prompt", shots=2), evaluated=3)
        assert (row["validation_loss"], row["test_exact"], row["trainable_parameters"]) == (0.125, 0.3333, 0)
        assert row["training_loss"] == row["training_seconds"] == row["tokens"] == row["problem"] == ""
        shuffled = load_task("bookings")["train"].shuffle(seed=seed)
        assert seen[-1] == seen[-2] == [shuffled[0], shuffled[1]]
    assert seen[0] != seen[2]


def test_the_seed_draws_the_examples(tiny, monkeypatch):
    """The training is stopped before it begins: only what it is given is looked at."""
    drawn = []

    def stub(recipe, folder, *, base, dataset, on_step, progress):
        drawn.append([row["prompt"] for row in dataset["train"]])
        raise LabError("stopped here")

    monkeypatch.setattr(lab_utils.finetune, "finetune", stub)
    for seed, count in ((0, 6), (1, 6), (0, 6), (0, 9), (0, None)):
        row = measure(Trial(recipe=Recipe(**{**SHORT, "seed": seed, "train_examples": count})))
        assert row["problem"] == "stopped here"
    first, other, again, more, everything = drawn
    assert len(first) == 6 and first == again == more[:6] and set(first) != set(other)
    assert len(more) == 9 and everything[:9] == more
    assert sorted(everything) == sorted(load_task("bookings")["train"]["prompt"])


@pytest.mark.parametrize("method", ["adapter", "full"])
def test_a_diverged_trial_has_a_problem_and_no_results(tiny, tokenizer, monkeypatch, method):
    """The model's weights are finite and too large: it computes nan, and that error is the row's problem."""
    broken = tiny()
    torch.nn.init.constant_(broken.model.layers[0].mlp.down_proj.weight, 3e38)
    monkeypatch.setattr(module, "_base", lambda *_: (broken, tokenizer))
    monkeypatch.setattr(lab_utils.finetune.full, "load_base", lambda *_, **__: (broken, tokenizer))
    row = measure(Trial(recipe=Recipe(**SHORT), method=method))
    assert "The loss is nan at step 1" in row["problem"]
    assert tuple(row) == COLUMNS and row["cpu_seconds"] > 0
    assert {row[name] for name in RESULTS if name != "cpu_seconds"} == {""}


# Many trials.


def test_a_sweep_that_failed_goes_on(tmp_path, monkeypatch):
    """The third trial fails, as if killed: the first two have their rows, and are not measured again."""
    measured, fail = [], True

    def stub(trial, *, evaluated):
        assert evaluated == 9
        if trial.recipe.seed == 2 and fail:
            raise RuntimeError("power cut")
        measured.append(trial.recipe.seed)
        return row_of(trial, problem="The loss is nan" if trial.recipe.seed == 3 else "", test_loss=trial.recipe.seed)

    monkeypatch.setattr(module, "measure", stub)
    lines, table = [], tmp_path / "table.csv"
    with pytest.raises(RuntimeError, match="power cut"):
        sweep(TRIALS, table, evaluated=9, progress=lines.append)
    assert [row["seed"] for row in read_rows(table)] == ["0", "1"]
    fail = False
    rows = sweep(TRIALS, table, evaluated=9, progress=lines.append)
    assert measured == [0, 1, 2, 3]
    assert rows == read_rows(table) and [row["test_loss"] for row in rows] == ["0", "1", "2", "3"]
    assert [line[:7] for line in lines] == ["1 of 4:", "2 of 4:", "1 of 2:", "2 of 2:"]
    assert f"{TRIALS[0]}: validation loss 0.5000, exact 25% (2 CPU s)" in lines[0]
    assert "The loss is nan" in lines[3]
    assert sweep(TRIALS, table, evaluated=9, progress=lines.append) == rows and len(lines) == 4


@pytest.mark.parametrize("processes", [0, -1])
def test_no_processes_is_an_error(tmp_path, processes):
    with pytest.raises(LabError, match=f"processes={processes} is out of range"):
        sweep(TRIALS, tmp_path / "table.csv", processes=processes)


@pytest.mark.training
def test_two_processes_give_the_rows_that_one_gives(tmp_path, monkeypatch):
    """The embedded model, a step each, one thread everywhere: equal to the last digit. Half a minute on two cores."""
    monkeypatch.setenv("LORA_LAB_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trials = [Trial(recipe=Recipe(**{**SHORT, "steps": 1, "seed": seed})) for seed in (0, 1)]
    try:
        alone = sweep(trials, tmp_path / "alone.csv", evaluated=2)
    finally:
        torch.set_num_threads(threads)
    together = sweep(trials, tmp_path / "together.csv", processes=2, evaluated=2)
    timed = {"training_seconds", "training_cpu_seconds", "cpu_seconds", "date"}
    for one, other in zip(alone, sorted(together, key=lambda row: row["seed"]), strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    assert len({row["validation_loss"] for row in alone}) == 2


# One table for one measure and one process.


def made_up(trial, *, evaluated=80):
    return row_of(trial, evaluated=evaluated)


def test_rows_of_another_measure_are_refused_and_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measure", made_up)
    table = tmp_path / "table.csv"
    rows = sweep(TRIALS[:2], table, evaluated=40, progress=len)
    assert [row["evaluated"] for row in rows] == ["40", "40"]
    before = table.read_bytes()
    for trials in (TRIALS[:2], TRIALS):
        with pytest.raises(LabError, match=r"row 1 was measured on 40 messages .*evaluated=80 is asked for"):
            sweep(trials, table, progress=len)
    assert table.read_bytes() == before
    assert len(sweep(TRIALS, table, evaluated=40, progress=len)) == 4


def test_a_table_from_before_the_column_holds_the_default_measure_and_keeps_its_heading(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measure", made_up)
    table, old = tmp_path / "table.csv", OLD_COLUMNS
    table.write_text(",".join(old) + "\n" + ",".join(str(made_up(TRIALS[0])[name]) for name in old) + "\n")
    before = table.read_text()
    with pytest.raises(LabError, match=r"row 1 was measured on 80 messages .*evaluated=9 is asked for"):
        sweep(TRIALS, table, evaluated=9, progress=len)
    assert table.read_text() == before
    rows = sweep(TRIALS[:2], table, progress=len)
    assert [row["seed"] for row in rows] == ["0", "1"] and {row["evaluated"] for row in rows} == {"80"}
    assert table.read_text().startswith(before) and rows == read_rows(table)


@pytest.mark.parametrize("evaluated", [0, -1, 1.5, "80", None])
def test_a_measure_out_of_range_is_named(tmp_path, evaluated):
    with pytest.raises(LabError, match=r"evaluated=.* is out of range"):
        sweep(TRIALS, tmp_path / "table.csv", evaluated=evaluated)


def test_two_sweeps_at_once_on_one_table_are_refused(tmp_path, monkeypatch):
    table, said = tmp_path / "table.csv", []

    def measure_and_try(trial, *, evaluated):
        with pytest.raises(LabError) as refused:
            sweep(TRIALS, table, evaluated=evaluated, progress=len)
        said.append(str(refused.value))
        return row_of(trial, evaluated=evaluated)

    monkeypatch.setattr(module, "measure", measure_and_try)
    rows = sweep(TRIALS[:2], table, progress=len)
    assert len(rows) == len(said) == 2
    assert all("table.csv is in use: another process writes it" in text for text in said)
    monkeypatch.setattr(module, "measure", made_up)
    assert len(sweep(TRIALS, table, progress=len)) == 4
