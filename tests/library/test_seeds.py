"""Page 08's run with several seeds: what a line must hold, and that the recorder goes on where it was stopped."""

import json

import pytest
from data_scripts import load

from lab_utils.errors import LabError
from lab_utils.recorded import seed_runs

recorder = load("record_seeds")


def line(seed: int, test: str = "110", handwritten: str = "100", **changes) -> dict:
    scores = {
        split: {"right": right, "valid": len(right), "fields": {"name": len(right), "qty": right.count("1")}}
        for split, right in (("test", test), ("handwritten", handwritten))
    }
    row = {
        "recipe": {"seed": seed, "steps": 2}, "scores": scores, "prose": {"off": 3.5, "on": 4.0},
        "training_loss": [3.0, 2.0], "provenance": {"cpu": "some"},
    }  # fmt: skip
    return row | changes


def written(file, *rows: dict):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_runs_come_by_seed_with_their_messages(tmp_path):
    one, two = seed_runs(written(tmp_path / "seeds.jsonl", line(2, "011"), line(0)))
    assert (one.seed, two.seed) == (0, 2)
    assert two.right == {"test": (0.0, 1.0, 1.0), "handwritten": (1.0, 0.0, 0.0)}
    assert one.fields["test"] == {"name": 3, "qty": 2} and one.prose == {"off": 3.5, "on": 4.0}


@pytest.mark.parametrize("rows", [
    [line(0), line(0)],
    [line(0), line(1, recipe={"seed": 1, "steps": 3})],
    [line(0), line(1, "11")],
    [line(0, "1x0")],
    [line(0, prose={"off": 3.5})],
    [line(0, training_loss=[float("nan")])],
    [line(0, scores=line(0)["scores"] | {"test": {"right": "110", "valid": 1, "fields": {}}})],
], ids=["twice", "steps", "messages", "digit", "prose", "number", "formed"])  # fmt: skip
def test_runs_that_cannot_be_compared_are_refused_with_a_way_out(rows, tmp_path):
    with pytest.raises(LabError, match=r"git checkout -- data/seeds.*record_seeds\.py"):
        seed_runs(written(tmp_path / "seeds.jsonl", *rows))


def test_what_is_recorded_is_not_trained_again(tmp_path, monkeypatch):
    file, trained = written(tmp_path / "seeds.jsonl", line(1)), []

    def measure(recipe, messages, characters):
        trained.append(recipe.seed)
        if recipe.seed == 3:
            raise KeyboardInterrupt
        return line(recipe.seed)

    monkeypatch.setattr(recorder, "measure", measure)
    recorder.record(file, [0, 1, 2], recorder.RECIPE, 3)
    with pytest.raises(KeyboardInterrupt):
        recorder.record(file, [0, 3], recorder.RECIPE, 3)
    assert trained == [0, 2, 3] and [run.seed for run in seed_runs(file)] == [0, 1, 2]


def test_what_is_kept_of_scores(monkeypatch):
    rows = [{"right": True, "valid": True}, {"right": False, "valid": True}, {"right": False, "valid": False}]
    found = recorder.Scores(1 / 3, (0, 1), 2 / 3, (0, 1), {"name": 2 / 3, "qty": 1 / 3}, rows)
    assert recorder.counted(found) == {"right": "100", "valid": 2, "fields": {"name": 2, "qty": 1}}
