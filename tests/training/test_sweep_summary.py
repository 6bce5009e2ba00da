"""What is said about a sweep: means and errors as worked by hand, settings that are never mixed, choices that hold."""

import math

import pytest

from lab_utils.errors import LabError
from lab_utils.sweep.summary import (  # fmt: skip
    CENTRE,
    TABLE,
    cheapest_within_one_error,
    difference,
    load_sweep,
    pick,
    summarize,
)
from lab_utils.sweep.table import COLUMNS, RESULTS, add_row


def row(seed: int, loss: float | str = 0.5, **settings) -> dict:
    """A row of the table at the sweep's centre, with some settings changed."""
    plain = {
        "method": "adapter", "shots": 0, "model": "smollm2-135m", "task": "bookings", "quantization": "nf4", "rank": 8,
        "alpha": 16, "use_rslora": "false", "target_modules": "all-linear", "dropout": 0, "learning_rate": 0.002,
        "steps": 32, "batch_size": 4, "train_examples": 128, "seed": seed,
    }  # fmt: skip
    results = dict.fromkeys(RESULTS, 1.0) | {"validation_loss": loss}
    return dict.fromkeys(COLUMNS, "") | plain | results | settings


@pytest.fixture
def frame(tmp_path):
    """A function: rows -> the frame that `load_sweep` makes of them."""

    def load(*rows):
        table = tmp_path / "sweep.csv"
        table.unlink(missing_ok=True)
        for one in rows:
            add_row(table, one)
        return load_sweep(table)

    return load


def test_means_and_errors_are_those_worked_by_hand(frame):
    found = summarize(frame(row(0, 1.0), row(1, 2.0), row(2, 6.0)), ["rank"]).iloc[0]
    # mean 3, squared distances 4 + 1 + 9 = 14, over n - 1 = 2: variance 7
    assert found["mean"] == 3
    assert found["deviation"] == pytest.approx(math.sqrt(7))
    assert found["error"] == pytest.approx(math.sqrt(7 / 3))
    assert found["reach"] == pytest.approx(4.302653 * math.sqrt(7 / 3))  # Student's t, two degrees of freedom
    assert (found["low"], found["high"], found["n"], found["failed"]) == (1, 6, 3, 0)


def test_a_failed_run_is_counted_and_not_averaged(frame):
    found = summarize(frame(row(0, 1.0), row(1, 3.0), row(2, "", problem="the loss is nan")), ["rank"]).iloc[0]
    assert (found["mean"], found["n"], found["failed"]) == (2, 2, 1)


def test_runs_that_differ_in_more_than_their_seed_are_no_group(frame):
    runs = frame(row(0), row(0, rank=16, alpha=32), row(1))
    with pytest.raises(LabError, match="rank"):
        summarize(runs, ["quantization"])
    assert len(summarize(runs, ["rank"])) == 2


def test_picking_keeps_the_rest_at_the_centre(frame):
    runs = frame(
        row(0), row(0, rank=16, alpha=32), row(0, rank=16, alpha=16), row(0, quantization="fp4"),
        row(0, method="full", learning_rate=2e-4), row(0, use_rslora="true", alpha=2 * math.sqrt(8)),
    )  # fmt: skip
    assert len(pick(runs)) == 1
    assert sorted(pick(runs, rank=...)["alpha"]) == [16, 32]  # scaling 2 at both ranks
    assert pick(runs, rank=16, alpha=16)["scaling"].tolist() == [1]
    assert pick(runs, quantization=["nf4", "fp4"])["quantization"].tolist() == ["nf4", "fp4"]
    assert pick(runs, use_rslora=True)["scaling"].tolist() == [2]
    assert pick(runs, method="full", learning_rate=2e-4)["method"].tolist() == ["full"]
    with pytest.raises(LabError, match="rank=32"):
        pick(runs, rank=32)
    with pytest.raises(LabError, match="colour"):
        pick(runs, colour="red")


def test_a_difference_is_taken_seed_by_seed_with_students_interval(frame):
    runs = frame(
        row(0, 1.0), row(1, 5.0), row(2, 9.0),
        row(0, 1.3, rank=1, alpha=2), row(1, 5.1, rank=1, alpha=2), row(2, 9.2, rank=1, alpha=2),
    )  # fmt: skip
    found = difference(pick(runs), pick(runs, rank=1), "validation_loss")
    # differences 0.3, 0.1, 0.2: mean 0.2, deviation 0.1; Student's t with two degrees of freedom: 4.302653
    assert found.mean == pytest.approx(0.2)
    assert found.seed_error == pytest.approx(0.1 / math.sqrt(3)) and "3 seeds alone" in str(found)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert not found.clear and "not clear" in str(found)
    assert difference(pick(runs, rank=1), pick(runs), "validation_loss").mean == pytest.approx(-0.2)


def test_over_both_sets_of_messages_an_interval_is_as_wide_as_two_sets_leave_it(frame):
    """Differences 0.3 and 0.1 on validation and test for both seeds: no noise of seeds, two draws of messages."""
    runs = frame(
        row(0, 1.0), row(1, 5.0),
        row(0, 1.3, rank=1, alpha=2, test_loss=1.1), row(1, 5.3, rank=1, alpha=2, test_loss=1.1),
    )  # fmt: skip
    found = difference(pick(runs), pick(runs, rank=1))
    assert (found.mean, found.messages) == (pytest.approx(0.2), 2)
    assert found.message_error == pytest.approx(0.1)  # deviation 0.2 / √2, over √2
    assert found.high - found.mean == pytest.approx(12.7062 * 0.1, rel=1e-4) and not found.clear
    assert "2 seeds × 2 sets of messages" in str(found)
    assert difference(pick(runs), pick(runs, rank=1), "test_loss").clear
    with pytest.raises(LabError, match="speed"):
        difference(pick(runs), pick(runs, rank=1), "speed")


def test_a_difference_needs_two_seeds_and_one_setting_a_side(frame):
    runs = frame(row(0, 1.0), row(1, 2.0), row(0, 1.5, rank=1, alpha=2))
    with pytest.raises(LabError, match="two at least"):
        difference(pick(runs), pick(runs, rank=1))
    with pytest.raises(LabError, match="seed twice"):
        difference(pick(runs), pick(runs, rank=...))


def test_the_cheapest_within_one_error_of_the_best(frame):
    runs = frame(
        *(row(seed, loss, rank=64, alpha=128, trainable_parameters=64) for seed, loss in enumerate((1.0, 1.2, 1.4))),
        *(row(seed, loss, rank=8, trainable_parameters=8) for seed, loss in enumerate((1.2, 1.3, 1.4))),
        *(row(seed, loss, rank=1, alpha=2, trainable_parameters=1) for seed, loss in enumerate((1.3, 1.4, 1.5))),
    )  # fmt: skip
    groups = summarize(runs, ["rank"])  # means 1.2, 1.3, 1.4; the best one's error is 0.2 / √3 = 0.115
    assert cheapest_within_one_error(groups)["rank"] == 8
    groups["trainable_parameters"] = 8
    assert cheapest_within_one_error(groups)["rank"] == 64  # all cost the same: the best


def test_a_missing_table_says_how_to_get_it_back(tmp_path):
    with pytest.raises(LabError, match="record_sweep"):
        load_sweep(tmp_path / "none.csv")


def test_the_recorded_sweep_has_its_centre_with_three_seeds():
    runs = load_sweep(TABLE)
    assert sorted(pick(runs)["seed"]) == [0, 1, 2]
    assert set(CENTRE) - {"scaling"} <= set(runs.columns)
    assert runs[runs["problem"] == ""][["validation_loss", "test_exact"]].notna().all().all()
