"""Pictures of sweeps: what is handed in is where it is drawn."""

import pytest

from lab_utils import plots


def test_means_are_where_they_belong_with_their_errors_as_bars():
    figure = plots.with_errors(
        {"one": ([1, 2, 4], [0.3, 0.2, 0.1], [0.03, 0.02, 0.01]), "two": ([1, 2], [0.4, 0.5], [0.1, 0.1])},
        "rank", "loss", marks={"full": (8, 0.05, 0.01)}, logx=2,
    )  # fmt: skip
    axes = figure.axes[0]
    one, _, full = axes.containers
    assert one[0].get_xydata().tolist() == [[1, 0.3], [2, 0.2], [4, 0.1]]
    (low, high), *_ = (segment[:, 1] for segment in one[2][0].get_segments())
    assert (low, high) == pytest.approx((0.27, 0.33))
    assert full[0].get_xydata().tolist() == [[8, 0.05]]
    assert axes.get_xscale() == "log" and [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert "full" in [text.get_text() for text in axes.texts]


def test_a_bar_may_reach_further_down_than_up():
    shares = ([1, 2], [91.0, 50.0], [(15.0, 9.0), (20.0, 20.0)])
    plain, with_values = plots.with_errors({"a": shares}, "rank", "%"), plots.capacity({"job": ([1.0], {"a": shares})})
    for axes in (plain.axes[0], with_values.axes[1]):
        ends = [segment[:, 1].tolist() for segment in axes.containers[0][2][0].get_segments()]
        assert ends == [[76, 100], [30, 70]]


def test_series_drawn_apart_keep_their_places_around_the_true_one():
    series = {name: ([1, 4], [0.1, 0.2], [0.05, 0.05]) for name in ("left", "middle", "right")}
    drawn = plots.with_errors(series, "factor", "loss", logx=2, apart=True).axes[0].containers
    left, middle, right = (one[0].get_xdata() for one in drawn)
    assert middle.tolist() == [1, 4] and (left < middle).all() and (middle < right).all()
    assert left * right == pytest.approx(middle**2) and right / middle == pytest.approx(2**0.06)
    assert drawn[2][0].get_ydata().tolist() == [0.1, 0.2]


def test_a_strip_has_its_runs_their_mean_and_its_interval():
    axes = plots.strips({"bf16": [1.0, 2.0, 6.0], "alone": [4.0]}, "loss").axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[1, 2, 6], [4]]
    assert [line.get_color() for line in dots] == [plots.BLUE, plots.ORANGE]
    mean, _, bars = axes.containers[0]
    assert mean.get_xydata().tolist() == [[3, 0]]
    left, right = bars[0].get_segments()[0][:, 0]
    assert right - left == pytest.approx(2 * 4.302653 * (7 / 3) ** 0.5)  # deviation √7 of three runs, Student's t
    assert [text.get_text() for text in axes.get_yticklabels()] == ["bf16", "alone"]
    low, high = axes.get_ylim()
    assert low > high  # the first row is the top one


def test_a_timeline_puts_each_name_in_its_month():
    axes = plots.timeline({"LoRA": "2021-06", "PiSSA": "2024-04"}).axes[0]
    (dots,) = (line for line in axes.lines if line.get_marker() == "o")
    assert dots.get_xdata().tolist() == pytest.approx([2021 + 5.5 / 12, 2024 + 3.5 / 12])
    assert axes.get_xlim() == (2021, 2025)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["LoRA", "PiSSA"]
