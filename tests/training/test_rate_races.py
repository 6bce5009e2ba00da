"""Races of variants: which rate is a variant's best, who may be ranked, and when a difference to LoRA is clear."""

import json
from itertools import product
from math import inf, nan, sqrt

import made_up_runs
import pandas
import pytest
from data_scripts import load

from lab_utils.errors import LabError
from lab_utils.recorded import load_race
from lab_utils.sweep import standings, variant_races
from lab_utils.sweep.rate_races import best_rate, compared_by
from lab_utils.sweep.rate_search import rate
from lab_utils.sweep.recording import record
from lab_utils.variants import VARIANTS

COLUMNS = ("variant", "learning_rate", "seed", "validation_loss", "test_loss")


def race(*rows):
    return pandas.DataFrame([dict(zip(COLUMNS, row, strict=True)) for row in rows])


def test_the_best_rate_rests_on_the_seeds_that_every_rate_has():
    """Seed 1 was run at 0.02 alone and looks bad there; on seed 0, which both have, 0.02 is better."""
    runs = race(("lora", 0.01, 0, 0.5, 0.1), ("lora", 0.02, 0, 0.4, 0.3), ("lora", 0.02, 1, 0.9, 0.5))
    assert best_rate(runs, "lora") == 0.02
    [one] = standings(runs)
    assert one.learning_rate == 0.02 and one.losses == {0: 0.3, 1: 0.5} and one.edge
    assert one.mean == pytest.approx(0.4) and one.reach == pytest.approx(12.706 * 0.1, rel=1e-3)  # sd/√2 = 0.1


def test_a_rate_that_blew_up_is_nobodys_best_and_the_edge_is_what_was_tried():
    runs = race(*(("dora", rate, 0, loss, loss) for rate, loss in ((0.01, 0.5), (0.02, 0.4), (0.04, inf))))
    [one] = standings(runs)
    assert one.learning_rate == 0.02 and not one.edge  # a higher one was tried: it blew up
    [gone] = standings(runs, 0.04)
    assert gone.learning_rate is None and gone.losses == {} and gone.mean == inf
    assert standings(race(("vera", 0.01, 0, inf, inf)))[0].learning_rate is None
    with pytest.raises(LabError, match="share no seed"):
        best_rate(race(("lora", 0.01, 0, 1.0, 1.0), ("lora", 0.02, 1, 1.0, 1.0)), "lora")


def test_one_run_each_is_put_in_no_order():
    alone = race(("lora", 0.01, 0, 0.9, nan), ("dora", 0.01, 0, 0.2, 0.2), ("vera", 0.02, 0, 0.1, 0.1))
    assert compared_by(alone) == "validation_loss"
    assert [one.variant for one in standings(alone, 0.01)] == ["lora", "dora", "vera"]
    assert not any(one.clear for one in standings(alone, 0.01))
    more = pandas.concat([alone, race(("lora", 0.01, 1, 0.8, 0.8), ("dora", 0.01, 1, 0.3, 0.3))])
    assert [one.variant for one in standings(more, 0.01)] == ["dora", "lora", "vera"]  # VeRA was not run there


def test_the_order_is_that_of_the_test_losses_where_all_are_known():
    rows = (("lora", 0.01, 0.1, 0.9), ("dora", 0.01, 0.3, 0.7))
    runs = race(*((name, rate, seed, aside, test) for (name, rate, aside, test), seed in product(rows, (0, 1))))
    assert compared_by(runs) == "test_loss" and standings(runs)[0].variant == "dora"


@pytest.mark.parametrize(("rivals", "clear"), [(1, True), (2, False)])
def test_a_difference_is_clear_when_students_interval_says_so_at_its_share_of_5_percent(rivals, clear):
    """Three paired gaps with t = 5: above 4.30, which 5 % need, and below 6.21, which each of two needs."""
    weak = tuple(2 + turn * 2 * sqrt(3) / 5 for turn in (-1, 0, 1))  # mean 2, sd 2·√3/5: t = 2 / (sd / √3)
    rows = [("lora", 0.01, seed, 10.0 * seed, 10.0 * seed) for seed in range(3)]  # seeds differ far more than variants
    for name in ("dora", "vera")[:rivals]:
        rows += [(name, 0.01, seed, 10.0 * seed + gap, 10.0 * seed + gap) for seed, gap in enumerate(weak)]
    found = {one.variant: one.clear for one in standings(race(*rows), 0.01)}
    assert found.pop("lora") is False and set(found.values()) == {clear}


def test_runs_that_are_one_run_are_not_tested():
    """Nothing is drawn in them, so five of them know no more than one; a spread as small as you like is one."""
    rows = [("lora", 0.01, seed, 1 + 0.01 * seed, 1 + 0.01 * seed) for seed in range(5)]
    same = [("pissa", 0.01, seed, 9.0, 9.0) for seed in range(5)]
    drawn = [("dora", 0.01, seed, 9 + 1e-6 * seed, 9 + 1e-6 * seed) for seed in range(5)]
    found = {one.variant: one.clear for one in standings(race(*rows, *same, *drawn), 0.01)}
    assert found == {"lora": False, "pissa": False, "dora": True}


def test_the_recorded_race_is_complete_and_a_run_again_is_the_same():
    runs, recipe = load_race()
    recorder = load("record_variant_race")
    assert recipe["steps"] == recorder.STEPS and recipe["rank"] == recorder.RANKS
    keys = set(map(tuple, runs[["variant", "learning_rate", "seed"]].to_numpy().tolist()))
    assert keys == set(product(VARIANTS, recorder.RATES, recorder.SEEDS)) and len(runs) == len(keys)
    again = recorder.run("lora-fa", 0.064, 3)
    [row] = runs[(runs["learning_rate"] == 0.064) & (runs["seed"] == 3) & (runs["variant"] == "lora-fa")].to_dict(
        "records"
    )
    assert {name: again[name] for name in COLUMNS[:3]} == {name: row[name] for name in COLUMNS[:3]}
    for name in COLUMNS[3:]:  # another processor adds up in another order
        assert again[name] == pytest.approx(row[name], rel=0.02)


def test_the_race_is_written_as_it_is_read_and_a_damaged_one_names_the_way_out(tmp_path):
    recorder, file = load("record_variant_race"), tmp_path / "race.json"
    rows = [recorder.run("vera", 0.1, 0, steps=1), recorder.run("lora", 1e30, 0, steps=2)]
    assert rows[1]["test_loss"] is None  # it blew up
    recorder.write(file, rows, 1.0)
    runs, _ = load_race(file)
    assert runs["test_loss"].isna().tolist() == [False, True] and list(runs["variant"]) == ["vera", "lora"]
    file.write_text(json.dumps({"rows": [rows[0] | {"test_loss": "low"}], "recipe": {}}))
    with pytest.raises(LabError, match=r"git checkout.*record_variant_race\.py"):
        load_race(file)


def test_races_are_those_recorded_and_new_runs_join_as_they_come(tmp_path):
    """A study of which one run of one arm is recorded is a race already; all of it is one with best rates inside."""
    races = variant_races(evidence=tmp_path)
    assert list(races) == ["mirrored digits", "bookings, 32 steps"]
    assert all(list(runs.columns) == list(COLUMNS) for runs in races.values())

    def more(runs: int | None):
        record(tmp_path, lambda arm, run: made_up_runs.results(run), studies=["variants"], runs=runs, say=str)
        return variant_races(evidence=tmp_path)["bookings, 100 steps"]

    [first] = standings(more(1))
    assert first.variant == "lora" and first.edge and len(first.losses) == 1
    found = standings(more(None))
    assert {one.variant for one in found} == set(VARIANTS) and all(len(one.losses) == 3 for one in found)
    assert {one.learning_rate for one in found if not one.edge} == {rate(4)}  # the valley of the made-up losses
