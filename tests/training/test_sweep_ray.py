"""The sweep on Ray: the rows are those of `sweep`, failures leave the others' rows, a lost worker is made up for.

Ray takes 10 s to start on idle cores: once for the real trials, once for all tests with stubs.
"""

import os
import sys
import threading
import time

import pytest

from lab_utils.errors import LabError
from lab_utils.finetune.recipe import Recipe
from lab_utils.sweep import on_ray as sweep_ray
from lab_utils.sweep.on_ray import connect, sweep_on_ray
from lab_utils.sweep.table import COLUMNS, add_row, read_rows
from lab_utils.sweep.trial import Trial
from lab_utils.sweep.trials import sweep

ray = pytest.importorskip("ray")
TRIALS = [Trial(recipe=Recipe(model="smollm2-135m", seed=seed)) for seed in range(3)]


def row_of(trial: Trial, **results) -> dict:
    """A row as `measure` makes it, with made-up results."""
    made_up = {"validation_loss": trial.recipe.seed + 1 / 3, "validation_exact": 0.5, "cpu_seconds": 1.5}
    return dict.fromkeys(COLUMNS, "") | trial.settings | made_up | results


@pytest.fixture(scope="module")
def running():
    """A Ray that this process has started, with two processors."""
    try:
        connect(ray, workers=2, address=None)
    except LabError as error:
        skip_if_busy(error)
    yield
    ray.shutdown()


def skip_if_busy(error: LabError) -> None:
    """Ray gives its own processes 15 s to start; on a busy machine that is too little."""
    if "Ray did not start" not in str(error):
        raise error
    pytest.skip(str(error))


@pytest.fixture
def stub(monkeypatch):
    """A function that replaces `measure`, in the workers too: they get this module's functions with it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield lambda function: monkeypatch.setattr(sweep_ray, "measure", function)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


# Without Ray.


def test_without_ray_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LabError, match=r"not installed.*pip install -c constraints.txt -e '\.\[ray\]'"):
        sweep_on_ray(TRIALS, tmp_path / "table.csv")


def test_nothing_to_do_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_ray, "load_ray", None)  # calling it would fail
    assert sweep_on_ray([], tmp_path / "table.csv") == []
    add_row(tmp_path / "table.csv", row_of(TRIALS[0]))
    assert sweep_on_ray(TRIALS[:1], tmp_path / "table.csv") == read_rows(tmp_path / "table.csv")


def test_no_workers_is_an_error(tmp_path):
    with pytest.raises(LabError, match="workers=0 is out of range"):
        sweep_on_ray(TRIALS, tmp_path / "table.csv", workers=0)


def test_an_address_where_no_ray_answers_is_named(tmp_path, monkeypatch):
    def refuse(address, **settings):
        raise ConnectionError(f"nobody at {address}.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(LabError, match=r"No Ray answers at address='10\.0\.0\.1:1': nobody.*ray start --head"):
        sweep_on_ray(TRIALS, tmp_path / "table.csv", address="10.0.0.1:1")


# A Ray of our own, with real trials.


@pytest.mark.training
def test_real_trials_have_the_results_they_have_without_ray(tmp_path, monkeypatch):
    """Two workers with one thread each, and this process with one thread: equal to the last digit."""
    import torch

    monkeypatch.setenv("LORA_LAB_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = {"model": "smollm2-135m", "steps": 2, "train_examples": 16, "rank": 4, "alpha": 8}
    trials = [Trial(recipe=Recipe(seed=seed, **settings)) for seed in (0, 1)]
    try:
        here = sweep(trials, tmp_path / "here.csv", evaluated=4)
    finally:
        torch.set_num_threads(threads)
    try:
        there = sweep_on_ray(trials, tmp_path / "there.csv", evaluated=4)
    except LabError as error:
        skip_if_busy(error)
    assert not ray.is_initialized()
    losses = [(row["training_loss"], row["validation_loss"], row["test_loss"]) for row in here]
    assert len(set(losses)) == 2 and all(float(loss) > 0 for row in losses for loss in row)
    timed = {"training_seconds", "training_cpu_seconds", "cpu_seconds", "date"}
    for one, other in zip(here, sorted(there, key=lambda row: row["seed"]), strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


# On a Ray that runs already, with stubs.


def test_two_at_once_and_every_row_as_it_was_measured(running, stub, tmp_path):
    """The first two trials wait for each other; the third has the odd values."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    odd = {"problem": 'The loss is nan, at "step" 3:\nlower it', "cpu": "a, b", "tokens": 7, "date": "2026-11-22"}

    def measure(trial, evaluated):
        seed = trial.recipe.seed
        if seed == 2:
            return row_of(trial, **odd, validation_loss="")
        (meeting / str(seed)).touch()
        end = time.monotonic() + 60
        while len(list(meeting.iterdir())) < 2:
            assert time.monotonic() < end, "the other trial never came"
            time.sleep(0.1)
        return row_of(trial, threads=os.environ["LORA_LAB_THREADS"], test_loss=evaluated)

    def say(line):
        with lock:  # a lock cannot be pickled, as little as a widget
            lines.append(line)

    stub(measure)
    lines, lock = [], threading.Lock()
    rows = sweep_on_ray(TRIALS, tmp_path / "t.csv", evaluated=5, progress=say)
    assert ray.is_initialized(), "a Ray that was there before must stay"
    assert rows == read_rows(tmp_path / "t.csv") and len(rows) == 3
    expected = [row_of(trial, threads="1", test_loss=5) for trial in TRIALS[:2]]
    expected.append(row_of(TRIALS[2], **odd, validation_loss=""))
    by_seed = sorted(rows, key=lambda row: row["seed"])
    assert by_seed == [{name: str(value) for name, value in row.items()} for row in expected]
    assert [line[:7] for line in lines] == ["1 of 3:", "2 of 3:", "3 of 3:"]
    assert sum(f"{TRIALS[1]}: validation loss 1.3333" in line for line in lines) == 1
    assert sum("The loss is nan" in line for line in lines) == 1


def test_a_lost_worker_is_made_up_for_and_after_a_failure_the_same_call_goes_on(running, stub, tmp_path):
    """Seed 0's worker dies once; seed 1 fails twice, and has no row until the next call, which measures it alone."""
    calls, table = tmp_path / "calls", tmp_path / "table.csv"
    calls.mkdir()

    def count(trial) -> int:
        seed = trial.recipe.seed
        (calls / f"{seed}-{time.monotonic_ns()}").touch()
        return len(list(calls.glob(f"{seed}-*")))

    def ill(trial, evaluated):
        times = count(trial)
        if trial.recipe.seed == 0 and times == 1:
            os._exit(1)
        if trial.recipe.seed == 1:
            raise ValueError("seed one is ill")
        return row_of(trial)

    def well(trial, evaluated):
        count(trial)
        return row_of(trial)

    def called():
        return sorted(path.name[0] for path in calls.iterdir())

    stub(ill)
    with pytest.raises(LabError, match=r"1 of 3 trials have no row yet \(ValueError: seed one is ill\)"):
        sweep_on_ray(TRIALS, table)
    assert called() == ["0", "0", "1", "1", "2"]
    assert sorted(row["seed"] for row in read_rows(table)) == ["0", "2"]
    stub(well)
    rows = sweep_on_ray(TRIALS, table)
    assert called() == ["0", "0", "1", "1", "1", "2"]
    assert [row["seed"] for row in rows][-1] == "1" and len(rows) == 3
