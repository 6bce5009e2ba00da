"""The still pictures of the explorers of notebooks 09 to 11: what is drawn is what was given."""

import pytest
import torch

from lab_utils import plots


def test_merge_survival_draws_a_line_for_each_weight_and_marks_the_changed_ones():
    block = {
        "before": torch.tensor([1.0, 0.5, -2.0]), "wanted": torch.tensor([1.2, 0.5, -2.0]),
        "after": torch.tensor([2.0, 0.5, -2.0]), "changed": torch.tensor([True, False, False]),
    }  # fmt: skip
    upper, lower = plots.merge_survival(block, [0.1, 1, 10], [0, 0.1, 0.5], [0, 0.2, 0.9], 1, "title").axes
    ends = [line.get_xdata()[[0, 2, 4]].tolist() for line in upper.lines]
    assert ends == [pytest.approx(one) for one in ([0.5, 0.6, 1.0], [0.25, 0.25, 0.25], [-1, -1, -1])]  # over 2
    colors = [line.get_color() for line in upper.lines]
    assert colors == [plots.ORANGE, plots.BLUE, plots.BLUE]
    assert [list(line.get_ydata()) for line in lower.lines[:2]] == [[0, 0.2, 0.9], [0, 0.1, 0.5]]


@pytest.mark.parametrize(("kept", "cut"), [([0, 0.2, 0.9], False), ([-0.1, 0.2, 0.9], True), ([3.5, 1.3, 1], True)])
def test_merge_survival_marks_both_sizes_and_says_what_it_cuts_off(kept, cut):
    block = dict.fromkeys(("before", "wanted", "after"), torch.ones(1)) | {"changed": torch.tensor([False])}
    lower = plots.merge_survival(block, [0.1, 1, 10], [0, 0.1, 0.5], kept, 1, "title", real=1.54).axes[1]
    marked = {line.get_label(): line.get_xdata()[0] for line in lower.lines[2:]}
    assert marked == {"shown above: 1 %": 1, "the real ΔW: 1.54 %": 1.54}
    assert ("outside" in lower.get_xlabel()) == cut


def test_differences_have_an_interval_each_and_an_open_disc_where_it_holds_zero():
    figure = plots.differences({"a": (0.2, 0.1, 0.3), "b": (-0.1, -0.4, 0.2)}, "loss", {"a": [0.1, 0.3]})
    (axes,) = figure.axes
    intervals = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "|"]
    assert intervals == [[0.1, 0.3], [-0.4, 0.2]]
    means = [line for line in axes.lines if line.get_markersize() == 11]
    assert [line.get_xdata()[0] for line in means] == [0.2, -0.1]
    assert [line.get_markerfacecolor() for line in means] == ["#111111", "white"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]


def test_variant_update_paints_both_on_one_scale_and_counts():
    target, update = torch.diag(torch.tensor([2.0, 1.0])), torch.diag(torch.tensor([1.0, 0.0]))
    figure = plots.variant_update({"target": target, "ΔW": update}, {"LoRA": 40, "VeRA": 10}, "VeRA", "trained")
    first, second, spectrum, bars = figure.axes
    limit = 3 * (5 / 4) ** 0.5  # three times the target's root mean square
    assert [axes.images[0].norm.vmax for axes in (first, second)] == pytest.approx([limit, limit])
    assert [list(line.get_ydata()) for line in spectrum.lines] == [pytest.approx([2, 1]), pytest.approx([1, 0])]
    assert [bar.get_width() for bar in bars.patches] == [40, 10]
    assert [text.get_text() for text in bars.texts] == ["40", "10"]
    assert bars.patches[0].get_facecolor() != bars.patches[1].get_facecolor()
