"""The recorded runs of page 16: what is read, in which order, and what is refused."""

import json

import pytest

from lab_utils.errors import LabError
from lab_utils.preferences import recorded_courses, recorded_runs, recorded_samples, recorded_start

SCORES = {"examples": 4, "exact": 0.5, "valid": 1.0, "right": "1010", "characters": 80.5, "fields": {"qty": 0.75}}
WHERE = {"cpu": "x", "threads": 1, "date": "2026-11-30", "versions": {}, "cpu_seconds": 3}


def line(arm="right", seed=0, **changes):
    row = {"arm": arm, "seed": seed, "learns_from": "rewards", "rows": 40, "recipe": {"steps": 1}, "outputs": ["{}"]}
    return row | SCORES | WHERE | {"history": [{"step": 1, "reward": 0.5}]} | changes


def written(folder, *rows):
    (folder / "runs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return folder


def test_arms_and_seeds_come_in_order_and_count_what_is_right(tmp_path):
    low = line("rejection, rate 0.0003")
    found = recorded_runs(written(tmp_path, line(seed=1), line("another"), low, line("rejection"), line()))
    assert [(arm, [run.seed for run in runs]) for arm, runs in found.items()] == [
        ("rejection", [0]), ("rejection, rate 0.0003", [0]), ("right", [0, 1]), ("another", [0]),
    ]  # fmt: skip
    run = found["right"][0]
    assert run.right == (1, 0, 1, 0) and run.exact == 0.5 and run.history[0]["reward"] == 0.5
    assert run.fields == {"qty": 0.75} and run.outputs == ("{}",)


def test_a_start_may_have_kept_no_answers(tmp_path):
    for rank, kept in (4, {}), (2, {"outputs": ["{}"]}):
        folder = tmp_path / ("start" if rank == 4 else "start-2")
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(SCORES | WHERE | kept))
        assert recorded_start(rank, tmp_path)[1].outputs == tuple(kept.get("outputs", ()))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([line(), line()], "there twice"),
        ([line(), line(seed=1, examples=2, right="10")], "different numbers of messages"),
        ([line(right="1011")], "exact=0.5 where 0.75"),
        ([line(right="12x0")], "invalid literal"),
        ([line(right="101")], "one digit per message"),
        ([line(fields={"qty": None})], "where a number"),
        ([line(history=[{"reward": None}])], "where a number"),
        ([{"arm": "right"}], "history"),
    ],
)
def test_a_damaged_table_is_refused_with_the_way_out(rows, reason, tmp_path):
    with pytest.raises(LabError, match=reason) as caught:
        recorded_runs(written(tmp_path, *rows))
    assert "record_preferences.py" in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    ranked, sampled = lambda folder: recorded_start(32, folder), lambda folder: recorded_samples(7, folder)
    for read in (recorded_runs, recorded_courses, ranked, sampled):
        with pytest.raises(LabError, match=r"cannot be read .*git checkout"):
            read(tmp_path)


def test_samples_have_answers(tmp_path):
    row = {"prompt": "a", "answer": "b", "outputs": ["b", "c"]}
    path = tmp_path / "samples-0.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert recorded_samples(0, tmp_path) == [row]
    path.write_text(json.dumps(row | {"outputs": []}) + "\n")
    with pytest.raises(LabError, match="has no answers"):
        recorded_samples(0, tmp_path)


def pair_line(**changes):
    row = {"arm": "own pairs", "seed": 0, "recipe": {"learning_rate": 0.001, "beta": 0.1}, "places": [0]}
    return row | {"history": [{"step": 1}], "logprobs": [[[-1.0, -2.0]], [[-1.5, -4.0]]]} | changes


@pytest.mark.parametrize(
    ("rows", "reason"),
    [([], "no run"), ([pair_line(places=[1])], "IndexError"), ([{"arm": "own pairs"}], "seed"),
     ([pair_line(logprobs=[[[-1.0, -2.0]]])], "1 readings of 1"),
     ([pair_line(logprobs=[[[1.0, -2.0]]] * 2)], "where a number of 0")],
)  # fmt: skip
def test_pairs_step_by_step_are_read_or_refused(rows, reason, tmp_path):
    right, wrong = '{"name":" Jo","qty":2}', '{"name":" Jo","qty":3}'
    sample = {"prompt": "Two for Jo", "answer": right, "outputs": [right, wrong]}
    (tmp_path / "samples-0.jsonl").write_text(json.dumps(sample) + "\n")
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(LabError, match=reason) as caught:
        recorded_courses(tmp_path)
    assert "record_pairs.py" in str(caught.value)
    slow = pair_line(recipe={"learning_rate": 0.0001, "beta": 0.1})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (pair_line(), slow)))
    first, second = recorded_courses(tmp_path)
    assert (first.learning_rate, second.learning_rate) == (0.0001, 0.001)
    assert second.pairs[0]["rejected"] == wrong and second.logprobs == (((-1.0, -2.0),), ((-1.5, -4.0),))
