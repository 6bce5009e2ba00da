"""Dots with intervals: each where it was handed in, with its number beside it."""

import pytest

from lab_utils import plots

FOUND = {
    "test": {"words": (1.0, 0.94, 1.0), "adapter": (0.95, 0.86, 0.98)},
    "next month": {"words": (0.5, 0.38, 0.62), "adapter": (0.725, 0.59, 0.82)},
}


def test_each_way_has_a_row_and_in_it_each_set_its_dot_and_interval():
    figure = plots.dots(FOUND, "right answers, %")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["words", "adapter"]
    low, high = axes.get_ylim()
    assert low > high  # the first row is the top one
    drawn = iter(axes.lines)
    for place, ways in enumerate(FOUND.values()):
        for row, (share, low, high) in enumerate(ways.values()):
            interval, dot = next(drawn), next(drawn)
            assert interval.get_xdata() == pytest.approx([100 * low, 100 * high])
            assert dot.get_xdata() == pytest.approx([100 * share])
            assert round(float(dot.get_ydata()[0])) == row and dot.get_color() == interval.get_color()
            assert (dot.get_ydata()[0] > row) == bool(place)  # the second set below the first
    assert [text.get_text() for text in axes.texts] == ["100", "95", "50", "72"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["test", "next month"]


def test_colours_that_mean_something_else_are_passed_over():
    one = plots.with_errors({"a": ([1], [0.5], [0.1])}, "x", "y", skip=2).axes[0].containers[0]
    assert one[0].get_color() == plots.GREEN


def test_changes_have_a_panel_each_and_an_open_disc_where_the_interval_holds_zero():
    named = {"prose": {"a": (0.2, 0.1, 0.3), "b": (-0.1, -0.4, 0.2)}}
    named |= {"style": {"b": (1.0, -1.0, 3.0), "a": (-1, -2, -0.5)}}
    figure = plots.changes(named, "nats")
    assert [axes.get_title() for axes in figure.axes] == list(named) and figure.get_supxlabel() == "nats"
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b"] and first.get_xlim() == second.get_xlim()
    low, high = first.get_ylim()
    assert low > high  # the first row is the top one
    for axes, found in zip(figure.axes, named.values(), strict=True):
        _, *drawn = axes.lines  # zero, then an interval and a disc for each row
        for row, way in enumerate("ab"):
            interval, disc = drawn[2 * row : 2 * row + 2]
            assert interval.get_xdata().tolist() == list(found[way][1:]) and disc.get_xdata()[0] == found[way][0]
            assert disc.get_ydata()[0] == row and (disc.get_markerfacecolor() == "white") == (way == "b")


def test_paths_have_a_thin_line_per_run_and_a_thick_mean_less_is_at_the_right_and_rows_are_beside():
    found = {"measured": [([3, 0.1], [0, 1]), ([3, 0.2], [0, 2])], "each": [([3, 1, 0.1], [0, 0.5, 1])] * 2}
    found["mean"] = [([3, 0.2], [0, 1.5])]
    beside = {"one": (0.5, 0.1, 0.9), "two": (0.2, -0.1, 0.5), "three": None}
    figure = plots.paths({"one": found, "two": found}, "skill", "rise", mark=("0.2", 0.2), beside=beside)
    axes, rows = figure.axes
    start, end = axes.get_xlim()
    assert start > end and axes.get_xscale() == "log" and (axes.get_xlabel(), axes.get_ylabel()) == ("skill", "rise")
    for place, color in enumerate((plots.BLUE, plots.ORANGE)):
        thin, other, *marks, mean, _ = axes.lines[6 * place : 6 * place + 6]
        assert thin.get_xdata().tolist() == other.get_xdata().tolist() == [3, 1, 0.1]
        assert [line.get_ydata().tolist() for line in marks] == [[0, 1], [0, 2]]
        assert {line.get_linestyle() for line in marks} == {"None"} and {thin.get_color(), mean.get_color()} == {color}
        assert mean.get_ydata().tolist() == [0, 1.5] and mean.get_linewidth() > 2 * thin.get_linewidth()
    zero, line = axes.lines[12:]
    assert zero.get_ydata()[0] == 0 and set(line.get_xdata()) == {0.2}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert [text.get_text() for text in rows.get_yticklabels()] == list(beside) and "0.2" in rows.get_title()
    _, *drawn = rows.lines
    for row, (mean, *ends) in enumerate((beside["one"], beside["two"])):
        interval, disc = drawn[2 * row : 2 * row + 2]
        assert interval.get_xdata().tolist() == ends and disc.get_xdata()[0] == mean
        assert (disc.get_markerfacecolor() == "white") == bool(row)
    assert [(text.get_text(), text.xy[1]) for text in rows.texts] == [("not there with all seeds", 2)]
