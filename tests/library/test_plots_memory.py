"""Memory over the time of a step: the peak is where the estimate has it, and the card's line where it is near."""

import pytest

from lab_utils import plots
from lab_utils.memory import estimate, timeline
from lab_utils.plots.memory import phase_spans

GIB = 2**30


def drawn(room_bytes=None, **more):
    moments = [(one.at, one.phase, one.parts) for one in timeline(estimate("GPT-2", "full"), "full")]
    return moments, plots.memory_over_time(moments, "a step", room_bytes=room_bytes, **more)


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_highest_point_of_the_areas_is_the_marked_peak():
    moments, figure = drawn()
    total = estimate("GPT-2", "full").total_bytes / GIB
    [axes] = figure.axes
    highest = max(path.vertices[:, 1].max() for area in axes.collections for path in area.get_paths())
    assert highest == pytest.approx(total) and words(figure) == [f"peak {total:.1f} GiB"]
    assert axes.get_ylim()[1] > total
    assert [one.get_text() for one in axes.get_legend().get_texts()] == list(moments[0][2])


@pytest.mark.parametrize(("room", "line"), [(2 * GIB, True), (80 * GIB, False)])
def test_a_card_is_a_line_if_it_is_near_and_words_if_it_is_far(room, line):
    _, figure = drawn(room)
    [said] = [text for text in words(figure) if "room" in text]
    assert said.startswith("↑") != line and f"{room / GIB:.1f} GiB" in said
    level = [one for one in figure.axes[0].lines if list(one.get_ydata()) == [room / GIB] * 2]
    assert bool(level) == line


@pytest.mark.parametrize("parts", [("gradients", "activations", "transients"), None])
def test_the_title_is_just_above_the_legend_and_the_cards_words_are_above_its_line(parts):
    moments, _ = drawn()
    moments = [(at, phase, {part: held[part] for part in parts or held}) for at, phase, held in moments]
    figure = plots.memory_over_time(moments, "a step", room_bytes=GIB)
    figure.draw_without_rendering()
    [axes] = figure.axes
    gap = axes._left_title.get_window_extent().y0 - axes.get_legend().get_window_extent().y1
    assert 0 <= gap < 20  # pixels: less than a line
    [said] = [text for text in axes.texts if "room" in text.get_text()]
    assert said.get_window_extent().y0 > axes.transData.transform((0, 1))[1] + 2


def test_a_measured_phase_is_stretched_to_its_own_span():
    moments, figure = drawn(measured={"forward": [(0.0, 0), (1.0, GIB)], "optimizer": [(0.5, 2 * GIB)]})
    spans = phase_spans(moments)
    [line] = [one for one in figure.axes[0].lines if one.get_label() == "measured"]
    assert list(line.get_xdata()) == [0, spans["forward"][1], sum(spans["optimizer"]) / 2]
    assert list(line.get_ydata()) == [0, 1, 2]
    assert spans["forward"][1] == spans["backward"][0] and spans["backward"][1] == spans["optimizer"][0]


def test_a_part_has_one_look_beside_any_others():
    """Also in bars that leave a part out, and on the page that has one part more; no part has the measured line's."""
    from matplotlib.colors import to_hex

    def looks(parts):
        figure = plots.stacked_gigabytes({"a step": dict.fromkeys(parts, GIB)}, "bars")
        return {bars.get_label(): to_hex(bars[0].get_facecolor()) for bars in figure.axes[0].containers}

    moments, figure = drawn(measured={"forward": [(0.0, 0), (1.0, GIB)]})
    areas = {area.get_label(): to_hex(area.get_facecolor()[0]) for area in figure.axes[0].collections}
    assert areas == looks(moments[0][2]) and len(set(areas.values())) == 6
    more = looks([*moments[0][2], "gathered"])
    assert more | areas == more and len(set(more.values())) == 7
    fewer = looks(["weights", "gradients", "transients"])
    assert areas | fewer == areas
    [line] = [one for one in figure.axes[0].lines if one.get_label() == "measured"]
    assert line.get_color() not in areas.values()
