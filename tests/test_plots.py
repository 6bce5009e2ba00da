"""The pictures: what is drawn is what was given."""

import pytest

from lab_utils import plots


def history(losses):
    return [{"step": i + 1, "loss": loss, "seconds": 1.0} for i, loss in enumerate(losses)]


def test_smooth_by_hand():
    # weights 0.5: averages 4, (0.5·4 + 2)·0.5 / 0.75 = 8/3, ...
    assert plots.smooth([4.0, 2.0, 2.0], weight=0.5) == pytest.approx([4.0, 8 / 3, (4 * 0.125 + 2 * 0.75) / 0.875])
    assert plots.smooth([3.0] * 5) == pytest.approx([3.0] * 5)
    assert plots.smooth([]) == []


def test_loss_curve_draws_every_step():
    axes = plots.loss_curve(history([2.0, 1.0, 0.5]), steps=10).axes[0]
    dots, line = axes.lines
    assert list(dots.get_xdata()) == [1, 2, 3] and list(dots.get_ydata()) == [2.0, 1.0, 0.5]
    assert list(line.get_ydata()) == pytest.approx(plots.smooth([2.0, 1.0, 0.5]))
    assert axes.get_xlim() == (0, 10) and "step 3 of 10" in axes.get_title("left")


def test_drawing_again_replaces():
    figure, axes = plots.new_figure()
    plots.draw_loss(axes, history([2.0]), 5)
    plots.draw_loss(axes, history([2.0, 1.0]), 5)
    assert len(axes.lines) == 2 and len(figure.axes) == 1


def test_before_after_bars():
    axes = plots.before_after({"exact": 0.0, "day": 0.25}, {"exact": 0.9, "day": 1.0}, "title").axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0, 25, 90, 100])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["exact", "day"]


def test_memory_bars_are_megabytes():
    axes = plots.memory_bars({"a": 2_000_000, "b": 500_000}, "t").axes[0]
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([0.5, 2.0])


def test_compare_losses_has_a_line_each():
    axes = plots.compare_losses({"one": history([2, 1]), "two": history([3, 2])}).axes[0]
    assert [line.get_label() for line in axes.lines] == ["one", "two"]
    assert list(axes.lines[1].get_ydata()) == [3, 2]
