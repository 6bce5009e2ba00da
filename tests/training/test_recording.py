"""Recording: everything once, whichever process does it and however often it is killed; and what is left is told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up_runs
import pytest
from made_up_runs import find_arm

from lab_utils.folders import ROOT
from lab_utils.sweep.evidence import Recorded, Run, read_table, table_of
from lab_utils.sweep.rate_search import rate
from lab_utils.sweep.recording import overview, progress, record, seconds_left
from lab_utils.sweep.studies import STUDIES

SUPPORT = ROOT / "tests" / "support"
ALL = tuple(STUDIES)


def quiet(line: str) -> None:
    """A line that nobody reads."""


def all_rows(folder: Path) -> list[dict]:
    return [row for study in STUDIES for row in read_table(table_of(folder, study))]


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A folder with everything recorded, and the order in which it was."""
    folder, order = tmp_path_factory.mktemp("evidence"), []

    def measure(arm, run):
        order.append((arm, run))
        return made_up_runs.results(run)

    assert record(folder, measure, say=quiet) == len(order)
    return folder, order


def test_studies_come_in_their_order_and_no_run_twice(complete):
    folder, order = complete
    studies = [next(study for study in STUDIES if arm in STUDIES[study].arms) for arm, _ in order]
    assert studies == sorted(studies, key=ALL.index)
    keys = [run.key for _, run in order]
    assert len(set(keys)) == len(keys) == len(all_rows(folder))
    assert record(folder, None, say=quiet) == 0


def test_seeds_beside_the_best_rates_come_last(complete):
    """Of runs of one length: first each arm's rates and its seeds at the best one, arm by arm."""
    order = [(arm, run.recipe) for arm, run in complete[1] if arm in STUDIES["rates"].arms]
    for steps in (100, 400):
        beside = []
        for arm, recipe in order:
            if recipe.steps == steps:
                best = rate(1 if arm.run.method == "full" else 4)
                beside.append(recipe.seed > 0 and recipe.learning_rate != best)
        assert beside == sorted(beside) and sum(beside) == 4 * 4
    assert [recipe.steps for _, recipe in order] == sorted(recipe.steps for _, recipe in order)


def test_the_best_rate_of_every_arm_lies_inside_and_has_three_seeds(complete):
    """The valley of the made-up losses lies at 1e-4 · 2 for full fine-tuning and 1e-4 · 2⁴ for the others."""
    for one in progress(complete[0]):
        assert one.expected == 0 and one.waiting == []
        if not one.arm.search.grow:
            continue
        valley = 1 if one.arm.run.method == "full" else 4
        assert one.best == valley
        first = sorted(row["choices"]["learning_rate"] for row in one.done if row["choices"]["seed"] == 0)
        assert first[0] < rate(valley) < first[-1]
        seeds = {row["choices"]["seed"] for row in one.done if row["choices"]["learning_rate"] == rate(valley)}
        assert seeds == {0, 1, 2}


def test_rates_have_seeds_beside_the_best_too(complete):
    for one in progress(complete[0], ["rates"]):
        assert len(one.done) >= 11
        runs = [(row["choices"]["learning_rate"], row["choices"]["seed"]) for row in one.done]
        for exponent in (one.best - 1, one.best, one.best + 1):
            assert {seed for learning_rate, seed in runs if learning_rate == rate(exponent)} == {0, 1, 2}


def test_what_depends_on_another_arm_waits_for_it(tmp_path):
    waiting = next(one for one in progress(tmp_path) if one.arm.name == "qv r=42")
    assert waiting.centre is None and waiting.waiting == [] and waiting.expected == 5
    assert "qv r=42: 0 recorded, 5 missing, waits for rates: LoRA r=8, 100 steps" in overview(progress(tmp_path))


def test_the_overview_counts_and_estimates(tmp_path):
    before = progress(tmp_path, ["rates"])
    guess = seconds_left(before)["rates"]
    # 22 runs each of full, r = 8, 1, 64; half of them with 100, half with 400 steps; 300 messages or 600
    assert sum(one.expected for one in before) == 88 and 8 * 3600 < guess < 12 * 3600

    def measure(arm, run):
        return made_up_runs.results(run, cpu_seconds=10.0)

    record(tmp_path, measure, studies=["rates"], runs=11, say=quiet)
    reached = progress(tmp_path, ["rates"])
    assert sum(one.expected for one in reached) == 77
    text = overview(reached)
    assert "full, 100 steps: 7 recorded, 4 missing, best learning rate 0.0002" in text
    assert "LoRA r=8, 100 steps: 4 recorded, 7 missing\n" in text and "LoRA r=1, 100 steps: 0 recorded" in text
    pace = 10 / 212  # of the guess: 100 × 1.64 + 0.13 × 300 + 8, or 100 × 1.274 + 0.13 × 600 + 8
    assert seconds_left(reached)["rates"] == pytest.approx((guess - 11 * 212) * pace, rel=0.02)


def test_a_run_that_blew_up_is_recorded_and_lower_rates_are_tried(tmp_path):
    def measure(arm, run):
        if run.recipe.learning_rate > 4e-5:
            return made_up_runs.results(run, problem="The loss is nan", losses={}, right={}, training_losses="")
        return made_up_runs.results(run)

    lines = []
    record(tmp_path, measure, studies=["rates"], runs=8, say=lines.append)
    rates = [row["choices"]["learning_rate"] for row in all_rows(tmp_path)]
    assert min(rates) < 4e-5 and sum("The loss is nan" in line for line in lines) == 5


def test_rows_of_another_recipe_do_not_count(tmp_path):
    arm = find_arm("rates: full, 100 steps")
    record(tmp_path, lambda arm, run: made_up_runs.results(run), studies=["rates"], runs=1, say=quiet)
    table = table_of(tmp_path, "rates")
    row = json.loads(table.read_text())
    other = Run.from_choices(row["choices"] | {"warmup": 0.5})
    table.write_text(json.dumps(row | {"choices": other.choices, "key": other.key}) + "\n")
    assert next(one for one in progress(tmp_path) if one.arm == arm).done == []


def test_a_measure_that_is_interrupted_leaves_no_line(tmp_path):
    def measure(arm, run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path, measure, say=quiet)
    assert all_rows(tmp_path) == []
    assert record(tmp_path, lambda arm, run: made_up_runs.results(run), runs=2, say=quiet) == 2


def started(folder: Path, seconds: str, *studies: str) -> subprocess.Popen:
    """A process that records made-up runs."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SUPPORT / "made_up_runs.py"), str(folder), seconds, *studies]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def measured(folder: Path) -> list[tuple[int, str]]:
    """(process, key) of every run that was begun."""
    file = folder / "measured.txt"
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def test_killed_in_the_middle_it_goes_on(tmp_path):
    folder = tmp_path / "evidence"
    process = started(folder, "0.05", "layers", "rates")
    while len(measured(folder)) < 6:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = all_rows(folder)
    assert 0 < len(before) < 50
    assert started(folder, "0", "layers", "rates").wait() == 0
    after = all_rows(folder)
    assert {row["key"] for row in before} <= {row["key"] for row in after}
    assert all(one.expected == 0 for one in progress(folder, ["rates", "layers"]))
    begun = [key for _, key in measured(folder)]
    assert len(begun) - len(set(begun)) <= 1, "what was under way is begun again, and nothing else"


def test_two_at_once_share_the_runs(tmp_path):
    folder = tmp_path / "evidence"
    both = [started(folder, "0.02", "rates") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    begun = measured(folder)
    assert len({key for _, key in begun}) == len(begun) == len(all_rows(folder))
    assert {process for process, _ in begun} == {process.pid for process in both}
    assert all(one.expected == 0 for one in progress(folder, ["rates"]))
    assert all(Recorded.from_row(row).loss() < 1 for row in all_rows(folder))
