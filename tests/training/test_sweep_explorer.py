"""The sweep explorer: settings are never mixed; statistics by hand, against pandas, and the browser's."""

import re

import alone
import pytest
from choosing_explorers import sweep_explorer, sweep_row, sweep_rows

from lab_utils.errors import LabError
from lab_utils.sweep import summary as sweep_summary
from lab_utils.sweep import table as sweep
from lab_utils.widgets import sweep_points
from lab_utils.widgets.sweep_explorer import SweepExplorer
from lab_utils.widgets.sweep_points import AXES, CENTRE, COLOURS, QUALITIES


def test_mean_and_standard_error_by_hand():
    mean, error = sweep_points.mean_and_error([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5 and error == pytest.approx((5 / 3 / 4) ** 0.5)  # squares 2.25 + .25 + .25 + 2.25, over n − 1 = 3
    assert sweep_points.mean_and_error([7.0]) == (7.0, None)


def test_failed_runs_are_left_out():
    runs, others = sweep_points.runs_of(sweep_rows())
    assert all(run["validation_loss"] < 1 for run in runs + others)
    assert len(runs) == 15 * 3 and len(others) == 2 * 3 + 2


@pytest.mark.parametrize("x", AXES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_point_differs_from_the_centre_only_where_it_may(x, colour):
    runs, _ = sweep_points.runs_of(sweep_rows())
    free = {*AXES[x][1], colour}
    points = sweep_points.group(runs, x, colour, {})
    assert points
    for point in points:
        for name, value in CENTRE.items():
            if name not in free:
                assert point["settings"][name] == value
            for run in point["runs"]:  # and all of its runs are what the point says
                if name != "alpha":
                    assert run[name] == point["settings"][name]
        seeds = [run["seed"] for run in point["runs"]]
        assert len(set(seeds)) == len(seeds), "two runs of one seed: settings are mixed"
        scalings = {round(run["alpha_over_r"] / run["rank"], 4) for run in point["runs"]}
        assert len(scalings) == 1
    assert [point["x"] for point in points] == sorted(point["x"] for point in points)


def test_the_points_are_those_of_the_sweeps_summary(tmp_path):
    table = tmp_path / "sweep.csv"
    for row in sweep_rows():
        sweep.add_row(table, row)
    frame = sweep_summary.load_sweep(table)
    explorer = SweepExplorer(sweep.read_rows(table), x="rank", colour="layers")
    wanted = sweep_summary.summarize(
        sweep_summary.pick(frame, rank=..., target_modules=...), by=["rank", "target_modules"]
    ).set_index(["rank", "target_modules"])
    points = explorer.points()
    assert len(points) == 5
    for point in points:
        row = wanted.loc[(point["settings"]["rank"], point["settings"]["layers"])]
        assert (point["mean"], point["error"], point["n"]) == pytest.approx((row["mean"], row["error"], row["n"]))


def test_alpha_means_its_scaling_and_no_rule_is_made_of_one_rank():
    runs, _ = sweep_points.runs_of(sweep_rows())
    by_rank = {point["settings"]["alpha"]: [] for point in sweep_points.group(runs, "rank", "alpha", {})}
    assert set(by_rank) == {"2r", "16", "5.66 over √r"}  # 4 and 64 were tried at rank 8 alone
    centre = next(run for run in runs if run["rank"] == 8 and run["layers"] == "all-linear" and run["alpha"])
    assert set(centre["alpha"]) == set(by_rank)  # 16 / 8 = 2√8 / √8 = 2
    numbers = {point["settings"]["alpha"] for point in sweep_points.group(runs, "learning rate", "alpha", {})}
    assert numbers == {4.0, 16.0, 64.0}
    points = sweep_points.group(runs, "alpha", "nothing", {})
    assert [point["x"] for point in points] == [16.0, 64.0]


def test_holding_another_value_shows_its_runs_alone():
    explorer = sweep_explorer()
    explorer.x, explorer.colour, explorer.held = "rank", "nothing", {"base": "none"}
    assert [point["settings"]["base"] for point in explorer.points()] == ["none"]
    explorer.held = {"base": "none", "examples": 16}
    assert explorer.points() == [] and "0 runs with" in explorer.summary() and "examples 16" in explorer.summary()
    assert explorer._repr_mimebundle_()
    with pytest.raises(LabError, match="fp16"):
        explorer.held = {"base": "fp16"}
    with pytest.raises(LabError, match="colour"):
        explorer.held = {"colour": 1}


def test_the_references_are_the_prompt_with_most_examples_and_the_full_fine_tune_with_most_seeds():
    others = {one["name"]: one["runs"] for one in sweep_explorer().others}
    assert {name: len(runs) for name, runs in others.items()} == {
        "full fine-tune, lr 0.0002": 3, "no training, 4 examples shown": 3,
    }  # fmt: skip


def test_the_summary_says_the_centres_numbers():
    explorer = sweep_explorer()
    explorer.at = 1 + [point["settings"] for point in explorer.points()].index(CENTRE)
    # its losses: 0.113 + 0.004 · (0, 1, 2), standard deviation 0.004
    assert f"validation loss 0.1170 ± {0.004 / 3**0.5:.4f}, 3 seeds" in explorer.summary()
    explorer.at = len(explorer.runs)  # beyond the last point: that is shown
    assert f"point {len(explorer.points())} of {len(explorer.points())}" in explorer.summary()


def test_tables_that_cannot_be_shown_are_refused():
    with pytest.raises(LabError, match="steps: 16, 32"):
        SweepExplorer([sweep_row(0, 0.1), sweep_row(1, 0.1, steps=16)])
    with pytest.raises(LabError, match="middle setting"):
        SweepExplorer([sweep_row(0, 0.1, quantization="none")])
    with pytest.raises(LabError, match="middle setting"):
        SweepExplorer([])


@pytest.mark.browser
def test_the_browser_groups_and_averages_as_python_does():
    """Every axis with every colour, point by point (about five seconds)."""
    explorer, states, wanted = sweep_explorer(), [], []
    for number, (x, colour) in enumerate((x, colour) for x in AXES for colour in COLOURS):
        y, held = list(QUALITIES)[number % 3], [{}, {"dropout": 0.1}][number % 2]
        explorer.x, explorer.colour, explorer.y, explorer.held = x, colour, y, held
        points = explorer.points()
        for at, point in enumerate(points or [None], 1):
            states.append({"x": x, "colour": colour, "y": y, "held": held, "at": at})
            wanted.append((at, len(points), point))
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states)
        assert page.errors == []
    assert len(states) > 100
    for state, (at, count, point), text in zip(states, wanted, texts, strict=True):
        if point is None:
            assert text.startswith("0 runs with")
            continue
        start = f"Point {at} of {count}: {sweep_points.named(point['settings'])}: {state['y']} "
        assert text.startswith(start), (state, text)
        numbers = re.findall(r"-?[\d.]+", text.removeprefix(start))
        factor, digit = (1, 1e-4) if state["y"].endswith("loss") else (100, 0.1)
        assert float(numbers[0]) == pytest.approx(factor * point["mean"], abs=0.6 * digit)
        assert float(numbers[1]) == pytest.approx(factor * point["error"], abs=0.6 * digit)
        assert int(numbers[2]) == point["n"] == 3


@pytest.mark.browser
def test_the_pointer_walks_too():
    with alone.shown(sweep_explorer()) as page:
        alone.sentences(page, [{"at": 1}])
        box = page.locator(".lab-plot svg circle.around").bounding_box()
        alone.sentences(page, [{"at": 4}])
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_function("model.get('at') === 1")


@pytest.mark.browser
def test_an_empty_choice_draws_no_nonsense():
    empty = {"x": "rank", "colour": "nothing", "held": {"base": "none", "examples": 16}, "references": False}
    with alone.shown(sweep_explorer()) as page:
        assert alone.sentences(page, [empty])[0].startswith("0 runs with layers all-linear, base none")
        assert "NaN" not in page.locator(".lab-explorer").inner_html() and page.errors == []
