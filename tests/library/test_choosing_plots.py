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


def test_rate_race_draws_every_run_and_marks_the_rate_of_each():
    runs = {"LoRA": [(0.01, 0.5), (0.02, 0.2), (0.02, 0.3), (0.04, 99.0)], "VeRA": [(0.02, 1.0)]}
    used = {"LoRA": (0.02, [0.2, 0.3], 0.25, 0.6), "VeRA": (None, [], None, 0.0)}
    *panels, ladder = plots.rate_race(runs, used, "loss", "title").axes
    lora, vera = panels[:2]
    assert [axes.get_visible() for axes in panels] == [True] * 2 + [False] * 6
    everything, line, marked = lora.lines
    assert list(everything.get_xdata()) == [0.01, 0.02, 0.02, 0.04]
    assert list(everything.get_ydata()) == [0.5, 0.2, 0.3, 30 * 0.2]  # the last is above the upper edge
    assert line.get_xdata()[0] == 0.02 and list(marked.get_ydata()) == [0.2, 0.3]
    assert len(vera.lines) == 1  # not run at that rate
    assert [text.get_text() for text in ladder.get_yticklabels()] == ["LoRA  0.02", "VeRA"]
    assert lora.xaxis.get_major_formatter()(0.001) == "0.001"  # not 10⁻³
