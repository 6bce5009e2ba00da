"""The recorded trainings of page 04: how they are read, how a rate is chosen, and that they are the page's."""

import json

import numpy as np
import pytest
from data_scripts import load

from lab_utils import plots
from lab_utils.errors import LabError
from lab_utils.lora import digits
from lab_utils.recorded import best_rate, reader_runs
from lab_utils.recorded.rank_and_alpha import CHOOSING, STUDIES
from lab_utils.sweep import compare, holm

recorder = load("record_rank_and_alpha")


def line(rate: float, seed: int, right: list[int], loss: float = 1.0, rank: int = 4) -> str:
    """A run that reads the images `right` and no other."""
    bits = np.zeros(597, dtype=bool)
    bits[right] = True
    choices = recorder.CENTRE | {"learning_rate": rate, "seed": seed, "rank": rank}
    mark = {"loss": loss, "right": recorder.packed(bits)}
    return json.dumps({"choices": choices, "test_images": 597, "after": {"100": mark, "200": mark}}) + "\n"


def test_runs_are_read_by_what_was_chosen(tmp_path):
    (tmp_path / "ranks.jsonl").write_text(line(0.02, 1, [0, 300]) + line(0.01, 2, [596]) + line(0.01, 1, [], rank=8))
    runs = reader_runs("ranks", tmp_path, rank=4, steps=100)
    assert [(run.choices["learning_rate"], run.steps) for run in runs] == [(0.01, 100), (0.02, 100)]
    assert np.flatnonzero(runs[1].right).tolist() == [0, 300] and runs[1].test.sum() == 1 and len(runs[1].test) == 300
    assert runs[1].validation == pytest.approx(1 / CHOOSING)
    with pytest.raises(LabError, match="no run with"):
        reader_runs("ranks", tmp_path, rank=5)
    with pytest.raises(LabError, match="ranks"):
        reader_runs("rank", tmp_path)
    with pytest.raises(LabError, match="'speed'"):
        reader_runs("ranks", tmp_path, speed=3)


def test_a_damaged_or_missing_table_says_how_to_restore_it(tmp_path):
    whole = line(0.01, 1, [])
    damaged = (whole.replace('"right": "', '"right": "!'), whole.replace("1.0", "NaN"), whole.replace("597", "900"))
    for text in ("{", *damaged):
        (tmp_path / "starts.jsonl").write_text(text)
        with pytest.raises(LabError, match=r"record_rank_and_alpha\.py"):
            reader_runs("starts", tmp_path)
    with pytest.raises(LabError, match="git checkout"):
        reader_runs("layers", tmp_path)


def test_the_best_rate_is_the_one_that_reads_most_of_the_images_that_choose(tmp_path):
    """0.02 reads more in all, but of those that are kept for the result; 0.04 has a seed too few."""
    rows = [line(0.01, seed, [0, 1, 2]) for seed in (1, 2)]
    rows += [line(0.02, seed, [0, *range(300, 400)]) for seed in (1, 2)]
    (tmp_path / "ranks.jsonl").write_text("".join(rows) + line(0.04, 1, list(range(200))))
    chosen = best_rate(reader_runs("ranks", tmp_path, steps=100))
    assert [run.choices["learning_rate"] for run in chosen] == [0.01, 0.01]
    with pytest.raises(LabError, match="differ in more"):
        best_rate(reader_runs("ranks", tmp_path))  # 100 and 200 steps


def test_the_recorder_trains_what_the_page_trains_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "wait_for_tests", lambda: None)  # `make test` holds the lock
    recorder.main(["--studies", "scaling", "--most", "1", "--steps", "3", "--output", str(tmp_path)])
    [run] = reader_runs("scaling", tmp_path, steps=3)
    chosen = run.choices
    x, y, new_x, new_y = digits.split(chosen["task"])
    model = digits.adapted(chosen["rank"], chosen["alpha"], seed=chosen["seed"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = digits.fit(model, trained, x, y, steps=3, learning_rate=chosen["learning_rate"])
    assert run.loss == pytest.approx(sum(losses) / 3, abs=1e-5)
    assert run.right.mean() == pytest.approx(digits.accuracy(model, new_x, new_y), abs=1e-6)
    recorder.main(["--studies", "scaling", "--most", "1", "--steps", "3", "--output", str(tmp_path)])
    first, second = (json.loads(one)["choices"] for one in (tmp_path / "scaling.jsonl").read_text().splitlines())
    assert first != second


@pytest.mark.parametrize("start", recorder.STARTS)
def test_every_start_leaves_the_model_as_it_was(start):
    """One of A and B is zero, the other has the spread that its name says."""
    model = recorder.model_of(recorder.CENTRE | {"start": start, "rank": 64})
    A, B = model.first.lora_A.detach(), model.first.lora_B.detach()
    assert not model.first.delta_weight().any()
    random = B if start.startswith("B") else A
    assert float(random.std()) == pytest.approx(0.125 / 3**0.5, rel=0.1)  # at rank 64 all rules agree


def test_what_is_planned_is_recorded():
    for study in STUDIES:
        rows = recorder.done(recorder.FOLDER / f"{study}.jsonl")
        planned = [choices for choices, _ in recorder.planned(study)]
        assert [choices for choices in planned if choices not in rows] == []


def test_the_figure_has_a_column_per_job():
    curves = {"cut": ([1, 2], [10.0, 20.0], None), "trained": ([1, 2], [30.0, 40.0], [1.0, 2.0])}
    curves["short"] = ([1, 2], [5.0, 6.0], [1.0, 2.0])
    figure = plots.capacity({"a": ([2.0, 1.0], curves), "b": ([3.0], curves)})
    upper, lower, *_ = figure.axes
    assert [bar.get_height() for bar in upper.patches] == [2.0, 1.0]
    assert list(lower.containers[1].lines[0].get_ydata()) == [30.0, 40.0] and lower.get_legend() is not None
    looks = [(held.lines[0].get_color(), held.lines[0].get_marker()) for held in lower.containers]
    assert len(set(looks)) == 3 and plots.ORANGE not in dict(looks)  # orange is the page's colour of turned digits


def clear(pairs: dict) -> dict:
    """Is second minus first clear after the correction, as page 04 compares?"""
    sides = {name: [np.array([run.test for run in runs], float) for runs in both] for name, both in pairs.items()}
    found = holm({name: compare(*both) for name, both in sides.items()})
    return {name: one.clear for name, one in found.items()}


def test_page_04_says_of_the_scaling_what_its_runs_say():
    """Clear at rank 1 and nowhere else; where two rules choose one scaling, their runs are the same."""

    def best(rank, alpha, rule="alpha / rank"):
        return best_rate(reader_runs("scaling", steps=100, rank=rank, alpha=alpha, rule=rule))

    two = {rank: best(rank, 2.0 * rank) for rank in (1, 4, 16, 64)}
    root = {rank: best(rank, 16.0, "alpha / √rank") for rank in two}
    for one, other in ((root[64], two[64]), (root[1], best(1, 16.0))):
        assert all((a.right == b.right).all() for a, b in zip(one, other, strict=True))
    pairs = {f"rank {rank}": (two[rank], best(rank, 16.0)) for rank in two}
    found = clear(pairs | {f"root, rank {rank}": (two[rank], root[rank]) for rank in (4, 16)})
    assert [name for name, is_clear in found.items() if is_clear] == ["rank 1"]


def test_page_04_says_of_dropout_what_its_runs_say():
    """Clear at one rate out of three, and not where each has its best rate."""
    shares = (0.0, 0.1, 0.3)
    at = {rate: [reader_runs("dropout", dropout=p, learning_rate=rate, steps=400) for p in shares]
          for rate in (0.0025, 0.005, 0.01)}  # fmt: skip
    found = clear({(rate, p): (runs[0], runs[place]) for rate, runs in at.items() for place, p in ((1, 0.1), (2, 0.3))})
    assert [name for name, is_clear in found.items() if is_clear] == [(0.01, 0.1)]
    without, some, more = (best_rate(reader_runs("dropout", dropout=p, steps=400)) for p in shares)
    assert not any(clear({0.1: (without, some), 0.3: (without, more)}).values())


def test_page_04_says_of_the_layers_what_its_runs_say():
    """Once every rate is searched beyond its best after 100 steps, no place of the adapter is clearly better."""
    pairs = {}
    for steps in (100, 400):
        for task in recorder.TASKS:
            arms = [reader_runs("layers", task=task, layers=layers, steps=steps) for layers in recorder.LAYERS]
            first, *others = (best_rate(runs) for runs in arms)
            largest = max(run.choices["learning_rate"] for run in arms[0])
            assert all(runs[0].choices["learning_rate"] < largest for runs in (first, *others))
            pairs |= {(steps, task, place): (first, runs) for place, runs in enumerate(others)}
    assert not any(clear(pairs).values())
