"""Where a style is learned: which rate counts as an arm's best, and that a line holds what its names say."""

import json
from functools import partial
from statistics import fmean

import pytest
from data_scripts import load

from lab_utils.errors import LabError
from lab_utils.folders import NOTEBOOKS
from lab_utils.recorded import at_best_rate, style_parts

recorder = load("record_style_parts")
FIRST = next(iter(recorder.ARMS))


def line(rate: float, seed: int, mushroom: float, other: float = 1.0, arm: str = FIRST) -> dict:
    return {
        "arm": arm, "rank": 8, "alpha": 8, "learning_rate": rate, "seed": seed, "steps": 150, "trained_parameters": 1,
        "losses": {"tree": [other, other], "flower": [2 * other, 4 * other], "mushroom": [mushroom]},
    }  # fmt: skip


def read(tmp_path, *rows: dict) -> list[dict]:
    file = tmp_path / "parts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return style_parts(file)


def test_the_mushrooms_choose_the_rate_and_have_no_say_in_the_result(tmp_path):
    rows = read(tmp_path, line(0.01, 0, 0.3, 1.0), line(0.005, 0, 0.2, 5.0), line(0.005, 1, 0.9, 2.0))
    best = at_best_rate(rows, FIRST)
    assert [row["seed"] for row in best] == [0, 1] and [row["test"] for row in best] == [10.0, 4.0]
    assert best[1]["tested"] == [2.0, 2.0, 4.0, 8.0]
    with pytest.raises(LabError, match=f"'trees'.*{FIRST}"):
        at_best_rate(rows, "trees")


def test_rates_are_tried_until_the_best_has_neighbours_then_seeds_follow(tmp_path):
    low, middle, high = sorted(recorder.RATES)
    assert recorder.missing([], FIRST) == [(rate, 0) for rate in recorder.RATES]
    falling = [line(low, 0, 0.9), line(middle, 0, 0.5), line(high, 0, 0.4)]
    assert recorder.missing(read(tmp_path, *falling), FIRST) == [(2 * high, 0)]
    rising = [line(low, 0, 0.3), line(middle, 0, 0.5), line(high, 0, 0.9)]
    assert recorder.missing(read(tmp_path, *rising), FIRST) == [(low / 2, 0)]
    valley = [line(low, 0, 0.9), line(middle, 0, 0.5), line(high, 0, 0.9)]
    assert recorder.missing(read(tmp_path, *valley), FIRST) == [(middle, 1), (middle, 2)]
    more = [low / 2**step for step in range(1, recorder.MOST_RATES - 2)]  # each smaller rate is better: it ends
    endless = [line(rate, 0, rate) for rate in (low, middle, high, *more)]
    assert recorder.missing(read(tmp_path, *endless), FIRST) == [(more[-1], 1), (more[-1], 2)]


def test_the_page_says_what_was_recorded():
    """Mean square errors on trees and flowers, over the seeds at the rate that the mushrooms choose."""
    rows = style_parts()
    best = {name: at_best_rate(rows, name) for name in ("base", *recorder.ARMS)}
    base, attention, convolutions, more, everything = (
        f"{fmean(row['test'] for row in runs):.3f}" for runs in best.values()
    )
    page = (NOTEBOOKS / "12_beyond_text.ipynb").read_text(encoding="utf-8")
    assert f"from {base} without an adapter to {convolutions}" in page and f"comes to {attention}" in page
    assert f"ten times the numbers to {more}" in page and f"everything together to {everything}" in page
    numbers = {row["arm"]: (row["trained_parameters"], row["alpha"]) for row in rows}
    counts = ((0, 0), (46_080, 8), (47_600, 8), (460_800, 8), (43_032, 8))
    assert numbers == dict(zip(best, counts, strict=True))
    for runs in list(best.values())[1:]:
        assert [row["seed"] for row in runs] == list(recorder.SEEDS)
        tried = sorted(row["learning_rate"] for row in rows if row["arm"] == runs[0]["arm"] and row["seed"] == 0)
        assert runs[0]["learning_rate"] not in (tried[0], tried[-1])  # "every best one between two others"


def test_a_damaged_line_names_the_way_out(tmp_path):
    with pytest.raises(LabError, match=r"git checkout.*record_style_parts\.py"):
        read(tmp_path, line(0.01, 0, -0.3))


def test_a_run_trains_what_its_arm_names_and_gives_the_painter_back(tmp_path, monkeypatch):
    """For a rank r, A and B of a layer have r · (in · window + out) numbers together."""
    pytest.importorskip("diffusers")
    one_moment = partial(recorder.guess_errors, copies=1, moments=(500,))
    monkeypatch.setattr(recorder, "guess_errors", one_moment)
    painter = recorder.load_painter("tiny")
    before = recorder.style_losses(painter)
    assert set(before) == {"tree", "flower", "mushroom"} and min(map(min, before.values())) > 0
    found = recorder.run(painter, "convolutions, r = 2", 1e-2, 0, 1, tmp_path)
    kernels = [
        layer.weight for name, layer in painter.unet.named_modules()
        if name.rpartition(".")[2] in recorder.CONVOLUTIONS
    ]  # fmt: skip
    assert found["trained_parameters"] == sum(2 * (one[0].numel() + len(one)) for one in kernels) == 47_600
    assert found["losses"] != before and recorder.style_losses(painter) == before
