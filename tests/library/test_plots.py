"""The pictures: what is drawn is what was given."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

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


def test_whole_steps_have_whole_ticks():
    steps = {"a": ([1, 2, 3], [3, 2, 1])}
    halves = {"a": ([0.25, 0.5, 0.75], [3, 2, 1])}
    for figure in (plots.loss_curve(history([2.0, 1.0])), plots.lines(steps, "step", "loss")):
        assert all(float(place).is_integer() for place in figure.axes[0].get_xticks())
    assert not all(float(place).is_integer() for place in plots.lines(halves, "share", "loss").axes[0].get_xticks())


def test_drawing_again_replaces():
    figure, axes = plots.new_figure()
    plots.draw_loss(axes, history([2.0]), 5)
    plots.draw_loss(axes, history([2.0, 1.0]), 5)
    assert len(axes.lines) == 2 and len(figure.axes) == 1


def share(value, low, high, n=40):
    return SimpleNamespace(value=value, low=low, high=high, n=n)


def test_before_after_has_a_bar_with_its_interval_for_each_model_and_measure():
    models = {
        "before": {"exact": share(0.0, 0.0, 0.09), "day": share(0.25, 0.14, 0.40)},
        "after": {"exact": share(0.9, 0.77, 0.96), "day": share(1.0, 0.91, 1.0)},
    }
    first, second = plots.before_after({"new phrasings": models, "by hand": models}).axes
    for axes, name in ((first, "new phrasings"), (second, "by hand")):
        assert [bar.get_height() for bar in axes.patches] == pytest.approx([0, 25, 90, 100])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["exact", "day"]
        assert axes.get_title(loc="left") == f"{name}: 40 messages per bar"
        lines = [segment[:, 1] for group in axes.collections for segment in group.get_segments()]
        assert np.array(lines) == pytest.approx(np.array([[0, 9], [14, 40], [77, 96], [91, 100]]))
        assert [text.get_text() for text in axes.texts] == ["0", "25", "90", "100"]
        assert all(text.get_position()[1] > 100 * one.high for text, one in
                   zip(axes.texts, [one for found in models.values() for one in found.values()], strict=True))


def test_memory_bars_are_megabytes():
    axes = plots.memory_bars({"a": 2_000_000, "b": 500_000}, "t").axes[0]
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([0.5, 2.0])


def test_compare_losses_has_a_line_each():
    axes = plots.compare_losses({"one": history([2, 1]), "two": history([3, 2])}).axes[0]
    assert [line.get_label() for line in axes.lines] == ["one", "two"]
    assert list(axes.lines[1].get_ydata()) == [3, 2]
    assert axes.get_yscale() == "log"  # 0.14 beside 0.10 is one line on another scale


def test_learning_rates_have_plain_numbers_on_their_axis():
    figure = plots.lines({"a": ([6e-4, 1e-2], [1, 2])}, "learning rate", "loss", logx=10)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    seen = [tick.get_text() for tick in axes.get_xticklabels()]
    assert axes.get_xscale() == "log" and {"0.001", "0.002", "0.005", "0.01"} <= set(seen)


@pytest.mark.parametrize("ends", [(1.2, 1.9), (0.3, 3), (0.1, 0.14), (1.6, 1.61), (0.17, 6), (0.01, 10), (1e-4, 1e3)])
def test_a_logarithmic_axis_has_two_plain_numbers_or_more_whatever_it_spans(ends):
    for figure in (plots.lines({"a": ([1, 2], ends)}, "x", "y", logy=True), plots.loss_curve(history(ends))):
        figure.draw_without_rendering()
        axes = figure.axes[0]
        low, high = axes.get_ylim()
        ticks = zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
        seen = {label.get_text(): place for label, place in ticks if low <= place <= high}
        assert 2 <= len(seen) <= 9 and all(float(text) == pytest.approx(place) for text, place in seen.items())
        assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))


def test_validation_curves_have_one_colour_for_each_kind_and_circle_the_lowest():
    rows = history([9, 8, 7, 6, 4, 3, 2, 1])
    rows[3]["validation_loss"], rows[5]["validation_loss"], rows[7]["validation_loss"] = 3.0, 0.5, 0.75
    axes = plots.validation_curves({"one": rows, "two": rows, "short": history([2, 1])}).axes[0]
    assert axes.get_yscale() == "log"
    colors = {line.get_label(): line.get_color() for line in axes.lines if line.get_label()[0] != "_"}
    assert {label.split(", ")[1]: color for label, color in colors.items()} == {
        "training": plots.BLUE, "validation": plots.ORANGE,
    }  # fmt: skip
    assert len(colors) == 5 and len(set(colors.values())) == 2
    dashes = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert dashes["one, training"] == dashes["one, validation"] != dashes["two, validation"]
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in circles] == [(6, 0.5), (6, 0.5)]
    curve = next(line for line in axes.lines if line.get_label() == "one, training")
    assert list(curve.get_xdata()) == [5, 6, 7, 8]
    assert list(curve.get_ydata()) == pytest.approx(plots.smooth([9, 8, 7, 6, 4, 3, 2, 1])[4:])


def test_matrices_paint_every_value_on_one_scale():
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[4.0, 0.5]])
    axes = plots.matrices({"a": first, "b": second}, numbers=True).axes
    assert [one.get_title() for one in axes] == ["a", "b"]
    for one, values in zip(axes, (first, second), strict=True):
        image = one.images[0]
        assert (image.norm.vmin, image.norm.vmax) == (-4, 4)
        assert image.get_array().tolist() == values.tolist()
        assert [float(text.get_text()) for text in one.texts] == values.flatten().tolist()
    assert plots.matrices({"grey": second}, limit=2, grey=True).axes[0].images[0].norm.vmin == 0


def test_each_picture_can_have_a_scale_of_its_own_and_numbers_have_two_decimals():
    small = torch.tensor([[0.126, -0.05]])
    one, other = plots.matrices({"prices": 10 * small, "missing": small}, limit=[2, 0.126], numbers=True).axes
    assert [axes.images[0].norm.vmax for axes in (one, other)] == [2, 0.126]
    assert [text.get_text() for text in other.texts] == ["0.13", "-0.05"]


def test_zero_is_white_and_the_signs_differ():
    axes = plots.matrices({"m": torch.tensor([[-1.0, 0.0, 1.0]])}).axes[0]
    below, zero, above = axes.images[0].to_rgba(axes.images[0].get_array())[0]
    assert zero[:3].min() > 0.98 and below[2] > below[0] and above[0] > above[2]


def test_approximations_mark_the_error_of_the_rank():
    values = torch.tensor([2.0, 1.0])
    weight = torch.diag(values)
    axes = plots.approximations({"w": weight, "rank 1": torch.diag(torch.tensor([2.0, 0.0]))}, values, 1).axes
    curve, mark = axes[-1].lines
    assert list(curve.get_ydata()) == pytest.approx([100, 100 * (1 / 5) ** 0.5, 0])  # √(1² / (1² + 2²))
    assert list(mark.get_xdata()) == [1] and list(mark.get_ydata()) == pytest.approx([100 * (1 / 5) ** 0.5])


def test_grid_writes_every_value():
    axes = plots.grid(torch.tensor([[1.0, 10.0], [0.1, 2.0]]), (1, 2), ("a", "b"), "x", "y", title="loss").axes[0]
    assert axes.get_title("left") == "loss"
    assert [text.get_text() for text in axes.texts] == ["1", "10", "0.1", "2"]


def test_moved_counts_what_is_true():
    axes = plots.moved({"W": torch.tensor([[True, False], [False, False]])}).axes[0]
    assert axes.texts[0].get_text() == "W\n1 of 4"


def test_a_line_of_one_point_is_a_dot():
    for x, marker in (([1], "o"), ([1, 2], "None")):
        (line,) = plots.lines({"a": (x, x)}, "x", "y").axes[0].get_lines()
        assert line.get_marker() == marker


def test_panels_have_an_axis_each():
    found = plots.panels({"a share": ([1, 2], [0.3, 0.1]), "a reward": ([1, 2], [5, 6])}, "step").axes
    assert [[list(line.get_ydata()) for line in axes.lines] for axes in found] == [[[0.3, 0.1]], [[5, 6]]]
    assert [axes.get_title("left") for axes in found] == ["a share", "a reward"] and found[0].get_ylim()[1] < 1
    assert len({line.get_color() for axes in found for line in axes.lines}) == 2
    assert [axes.get_xlabel() for axes in found] == ["step"] * 2


def test_lines_and_spread_draw_what_they_are_given():
    axes = plots.lines({"one": ([1, 2], [3, 4]), "two": ([1, 2], [5, 6])}, "x", "y", logx=True).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 4], [5, 6]] and axes.get_xscale() == "log"
    steps = plots.histograms({"values": torch.tensor([0.1, 0.1, -0.3])}, "x", limit=1.0).axes[0].patches[0]
    assert steps.get_xy()[:, 1].max() == pytest.approx(2 / 3 / 0.025)  # two of three values in a bin of 2/80


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32", "trained"])
def test_tensors_of_any_dtype_are_drawn(kind):
    """matplotlib itself knows neither bfloat16 nor a tensor with a gradient."""
    one = torch.tensor([[0.5, 0.25], [1.0, 2.0]])  # exact in each of them
    given = one.clone().requires_grad_() if kind == "trained" else one.to(getattr(torch, kind))
    painted = {
        "matrices": plots.matrices({"w": given}), "grid": plots.grid(given, [0, 1], [0, 1], "x", "y"),
        "yours": plots.target_and_yours(given, given),
    }  # fmt: skip
    for name, figure in painted.items():
        [image, *_] = figure.axes[0].get_images()
        wanted = one.log() if name == "grid" else one
        assert np.asarray(image.get_array()) == pytest.approx(wanted.numpy(), abs=1e-2), name
    [line] = plots.lines({"a": (given[0], given[1])}, "x", "y").axes[0].get_lines()
    assert line.get_xdata().tolist() == [0.5, 0.25] and line.get_ydata().tolist() == [1.0, 2.0]


def test_a_picture_of_bytes_stays_one():
    pixels = torch.tensor([[[200, 100, 0]]], dtype=torch.uint8)
    [image] = plots.picture_rows({"": [pixels]}, ["red"]).axes[0].get_images()
    assert image.get_array().tolist() == pixels.tolist()


def test_fits_show_every_run_and_its_accuracy():
    shared = {"losses": [2.0, 1.0], "before": 0.4}
    runs = [{"rank": 1, "accuracy": 0.7, **shared}, {"rank": 4, "accuracy": None, **shared}]
    curve, dots = plots.fits(runs).axes
    assert len(curve.lines) == 2
    assert [list(line.get_ydata()) for line in dots.lines] == [[70.0], [40.0, 40.0]]  # the dot, and the line of before
    assert [text.get_text() for text in curve.get_legend().get_texts()] == ["earlier runs", "the last, rank 4"]
    assert [text.get_text() for text in dots.texts] == ["before training"] and "per image" in curve.get_ylabel()


def test_parameter_pictures():
    layer = plots.layer_to_scale({"q": (4, 4), "v": (2, 4)}, 1, "t").axes[0]
    assert sorted((abs(box.get_width()), abs(box.get_height())) for box in layer.patches) == [
        (1, 2), (1, 4), (4, 1), (4, 1), (4, 2), (4, 4),
    ]  # fmt: skip
    assert not any(box.get_linewidth() for box in layer.patches)  # an edge would be drawn on top of the scale
    assert [text.get_text() for text in layer.get_legend().get_texts()] == ["W", "B", "A"]
    thin = plots.layer_to_scale({"q": (4096, 4096)}, 1, "t").axes[0]
    assert 1 < abs(thin.patches[1].get_width()) < 4096 / 900  # one pixel of some thousand
    some = plots.layer_to_scale({"q": (4, 4), "v": (2, 4), "e": (8, 4)}, {"q": 0, "v": 1, "e": 2}, "t").axes[0]
    assert sorted((abs(box.get_width()), abs(box.get_height())) for box in some.patches) == [
        (1, 2), (2, 8), (4, 1), (4, 2), (4, 2), (4, 4), (4, 8),
    ]  # fmt: skip
    stacked = plots.stacked_gigabytes({"full": {"weights": 2 * 2**30, "Adam": 8 * 2**30}}, "t").axes[0]
    assert [bar.get_width() for bar in stacked.patches] == [2, 8] and stacked.patches[1].get_x() == 2
    shares = plots.shares_by_size({"all": [("m", 10**9, 0.01)]}, ("line", [1e8, 1e10], [0.1, 0.01])).axes[0]
    assert list(shares.lines[0].get_ydata()) == [1.0] and list(shares.lines[1].get_ydata()) == [10.0, 1.0]


def test_rounding_shows_the_first_blocks_levels_and_every_groups_error():
    values, rounded = torch.zeros(128), torch.zeros(128)
    rounded[:2], rounded[64:] = torch.tensor([1.0, -1.0]), 0.5
    upper, lower = plots.rounding(values, rounded, "t", first=64).axes
    assert sorted(line.get_xdata()[0] for line in upper.lines) == [-1, 0, 1]
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([(2 / 64) ** 0.5, 0.5])


def test_code_use_draws_the_code_and_the_shares():
    upper, lower = plots.code_use(torch.tensor([0.1]), [-1.0, 1.0], [0.25, 0.75], "t").axes
    assert [line.get_xdata()[0] for line in upper.lines] == [-1, 1]
    assert [bar.get_height() for bar in lower.patches] == [25, 75]


def test_a_figure_follows_the_theme_and_says_what_it_shows():
    figure = plots.lines({"a": ([1, 2], [3, 4])}, "step", 'loss, "nats"', title="A & B")
    bundle = figure._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert f'src="data:image/png;base64,{bundle["image/png"]}"' in bundle["text/html"]
    assert 'alt="A &amp; B: loss, &quot;nats&quot; against step"' in bundle["text/html"]
    panels = plots.picture_rows({"ink": [torch.zeros(2, 2, 3)]}, ["a yellow mushroom, neon"], "Ink")
    panels.supxlabel("one step")
    words = "Ink; one step; a yellow mushroom, neon: ink"
    assert f'alt="{words}"' in panels._repr_mimebundle_()["text/html"]
    assert "[data-jp-theme-light=false] .lab-figure" in bundle["text/html"]
    assert 'class="lab-figure"' in bundle["text/html"]
    assert "http" not in bundle["text/html"]


def test_nothing_of_a_saved_figure_is_cut_off():
    """Its edges are white: the titles' first layout reached over the top, and a text may reach over a side."""
    three = plots.matrices({name: torch.ones(64, 64) for name in ("W, frozen", "2 · B · A", "W + 2 · B · A")})
    figure, _ = plots.new_figure(2, 2)
    figure.text(0.95, 0.5, "over the edge")
    sizes = []
    for one in (three, figure):
        image = torch.tensor(np.asarray(Image.open(io.BytesIO(plots.png(one))).convert("L")))
        sizes.append(image.shape)
        assert all((edge == 255).all() for edge in (image[0], image[-1], image[:, 0], image[:, -1]))
    assert 335 <= sizes[0][0] < 345 and sizes[0][1] == 930  # never smaller than the figure, and hardly larger
    assert sizes[1][0] == 200 and sizes[1][1] > 250


def test_the_colours_of_photographs_stay():
    """Ink on a digit is bright in every theme."""
    digit = plots.matrices({"7": torch.rand(8, 8)}, limit=1.0, grey=True)
    pictures = plots.picture_rows({"base": [torch.rand(4, 4, 3).numpy()]}, ["one"])
    for figure in (digit, pictures):
        bundle = figure._repr_mimebundle_()
        text = bundle["text/html"]
        assert "filter" not in text and figure._repr_mimebundle_()["image/png"] == bundle["image/png"]
        pattern = r'<img class="lab-photograph lab-(\w+)" alt="[^"]+" src="data:image/png;base64,([^"]+)"( hidden)?>'
        prints = re.findall(pattern, text)
        assert [(time, bool(off)) for time, _, off in prints] == [("day", False), ("night", True)]
        files = (io.BytesIO(base64.b64decode(data)) for _, data, _ in prints)
        day, night = (np.asarray(Image.open(file).convert("RGBA")) for file in files)
        assert (day[..., 3] == 255).all() and night[0, 0, 3] == 0  # clear paper
        height, width = day.shape[0] // 2, day.shape[1] // 2
        assert day.shape == night.shape and (day[height, width] == night[height, width]).all()  # and the same picture
    signed = plots.matrices({"W": torch.randn(8, 8)})._repr_mimebundle_()["text/html"]
    assert 'class="lab-figure" alt="W"' in signed
