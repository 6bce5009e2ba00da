"""The variant explorer: what it shows at a rate is what the races say there, and the browser draws every run."""

import re

import alone
import pytest
from choosing_explorers import variant_explorer
from shown import node, shown

from lab_utils.errors import LabError
from lab_utils.sweep import standings, variant_races
from lab_utils.variants import VARIANTS
from lab_utils.widgets.variant_explorer import MODES, VariantExplorer

SAME, BEST = MODES


def test_the_sentence_is_the_races():
    explorer, races = variant_explorer(), variant_races()
    for explorer.race in races:
        for explorer.mode in MODES:
            found = standings(races[explorer.race], explorer.rate if explorer.mode == SAME else None)
            ran = [one for one in found if one.losses]
            said = [float(number) for number in re.findall(r"(\d+\.\d{3}) \(", explorer.summary())]
            assert said == [round(pick(one.mean for one in ran), 3) for pick in (min, max)]
            absent = [VARIANTS[one.variant].title for one in found if not one.losses]
            assert ("Not run at this rate" in explorer.summary()) == bool(absent)


def test_one_run_each_ranks_nobody_and_an_edge_is_named():
    explorer = VariantExplorer(race="bookings, 32 steps", mode=BEST)
    assert "n = 1: a single run ranks nobody" in explorer.summary() and "clearly" not in explorer.summary()
    assert "the optimum may lie outside: all of them" in explorer.summary()
    explorer = VariantExplorer(mode=BEST)
    assert "n = 5 seeds each" in explorer.summary() and "outside" not in explorer.summary()


def test_it_opens_where_most_have_run_and_another_race_begins_there_too():
    explorer = variant_explorer()
    assert explorer.rate == min(explorer.records["mirrored digits"]["rates"]) and explorer.mode == SAME
    explorer.rate, explorer.race = 0.064, "bookings, 32 steps"
    assert explorer.rate == 0.002  # five of eight were run there, more than at any other rate
    with pytest.raises(LabError, match=r"0\.064"):
        explorer.rate = 0.064
    explorer.reset()
    assert (explorer.race, explorer.rate) == ("mirrored digits", 0.0005)
    with pytest.raises(LabError, match="one race or more"):
        VariantExplorer({})


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_script_names_every_run_and_the_order():
    explorer = variant_explorer()
    moves = [{"rate": 0.128}, {"mode": BEST}, {"race": "bookings, 32 steps", "rate": 0.002, "mode": SAME}]
    for move, seen in zip(moves, shown(explorer, moves), strict=True):
        for name, value in move.items():
            setattr(explorer, name, value)
        assert seen["sentence"] == explorer.summary()
        record, found = explorer.records[explorer.race], explorer._now()["rows"]
        dots, order = seen["named"]
        assert f"{sum(map(len, record['dots'].values()))} runs" in dots
        titles = [VARIANTS[row["variant"]].title for row in found]
        assert [one.split(" ")[0] for one in order.split("; ")] == titles
        for row, title in zip(found, titles, strict=True):
            where = "not run" if row["rate"] is None else f"at {row['rate']!r}"
            assert f"{title} {where}" in dots


@pytest.mark.browser
def test_everything_fits_on_a_small_screen_and_moving_the_common_rate_shows_it():
    with alone.shown(VariantExplorer(mode=BEST)) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
        assert page.locator(".lab-explorer").bounding_box()["height"] < 640  # what JupyterLab leaves of 768
        page.get_by_role("slider").press("ArrowRight")
        assert page.evaluate("[model.get('mode'), model.get('rate')]") == [SAME, 0.001]
        assert "all at the learning rate 0.001" in page.locator(".lab-summary").inner_text()
        assert page.errors == []
