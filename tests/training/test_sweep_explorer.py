"""The sweep explorer: its settings by name, and differences that are the library's, in Python and in its script."""

import random
import re

import alone
import pytest
from choosing_explorers import sweep_explorer, sweep_row, sweep_rows
from shown import node, shown

from lab_utils.errors import LabError
from lab_utils.sweep import by_name, compare, load_sweep, pick
from lab_utils.sweep.summary import frame_of
from lab_utils.widgets.sweep_explorer import SweepExplorer

RECORDED = {  # name -> what `pick` calls it
    "centre": {}, "dropout 0.1": {"dropout": 0.1}, "16 messages": {"train_examples": 16}, "r = 64": {"rank": 64},
    "bfloat16 base": {"quantization": "none"}, "q and v, r = 8": {"target_modules": "qv"},
    "q, k, v, o, r = 64": {"target_modules": "attention", "rank": 64}, "α = 4": {"scaling": 0.5},
    "α = 64, lr 0.0005": {"scaling": 8.0, "learning_rate": 5e-4}, "r = 64, α = 16": {"rank": 64, "alpha": 16.0},
    "r = 64, α = 5.66, α/√r": {"rank": 64, "use_rslora": True, "scaling": ...},
    "full fine-tune, lr 0.0002": {"method": "full", "learning_rate": 2e-4},
    "no training, 1 solved in the prompt": {"method": "prompt", "shots": 1},
}  # fmt: skip


def test_each_name_has_the_runs_of_its_setting_and_none_is_lost():
    runs = load_sweep()
    named = by_name(runs)
    assert next(iter(named)) == "centre"
    for name, settings in RECORDED.items():
        wanted = pick(runs, **settings).sort_values("seed")
        assert named[name]["validation_loss"].tolist() == wanted["validation_loss"].tolist(), name
    assert sum(map(len, named.values())) == len(runs) - 1  # the prompt without an example is one run


def test_runs_that_failed_settings_with_one_seed_and_seeds_that_the_centre_lacks_are_left_out():
    named = by_name(frame_of(sweep_rows()))
    assert all(part["seed"].tolist() == [0, 1, 2] for part in named.values())
    assert "full fine-tune, lr 0.0001" not in named and "no training, 0 solved in the prompt" not in named
    assert all(part["validation_loss"].max() < 1 for part in named.values())


def test_a_difference_between_two_settings_by_hand():
    """Losses 0.113 + 0.004 · seed on validation, twice that on test; the other setting's are 0.1 for every seed."""
    explorer = sweep_explorer()
    names = [one["name"] for one in explorer.settings]
    explorer.first, explorer.second = names.index("r = 1") + 1, 1
    found = explorer.differences()
    assert found["validation"].mean == pytest.approx(0.017) and found["test"].mean == pytest.approx(0.034)
    assert found["validation"].seed_error == pytest.approx(0.004 / 3**0.5)
    assert found["both"].mean == pytest.approx(0.0255)
    text = explorer.summary()
    assert text.startswith("Setting 1 (centre) minus") and "validation +0.0170 (+0.0071 to +0.0269)" in text
    assert text.endswith("not clear.")  # two sets of messages that say 0.017 and 0.034 leave a wide interval
    explorer.quality = "right answers"
    assert "validation -1.7 (-2.7 to -0.7)" in explorer.summary()


def test_tables_that_cannot_be_shown_are_refused():
    with pytest.raises(LabError, match="steps: 16, 32"):
        SweepExplorer(frame_of([sweep_row(0, 0.1), sweep_row(1, 0.1, steps=16)]))
    with pytest.raises(LabError, match="middle setting"):
        SweepExplorer(frame_of([sweep_row(0, 0.1, quantization="none"), sweep_row(1, 0.1, quantization="none")]))
    with pytest.raises(LabError, match="middle setting"):
        SweepExplorer(frame_of([sweep_row(0, 0.1)]))


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_script_says_of_pairs_what_python_says():
    explorer, chance = sweep_explorer(), random.Random(0)
    places = {"first": len(explorer.settings), "second": len(explorer.settings)}
    moves = [
        {name: chance.randint(1, last) for name, last in places.items()} | {"quality": list(explorer.qualities)[n % 2]}
        for n in range(10)
    ]
    for move, seen in zip(moves, shown(explorer, moves), strict=True):
        for name, value in move.items():
            setattr(explorer, name, value)
        told = [re.findall(r"[-+]?\d+(?:\.\d+)?|[a-zα√]+", text) for text in (seen["sentence"], explorer.summary())]
        for mine, other in zip(*told, strict=True):
            last_digit = 10.0 ** -len(other.split(".")[-1])  # the two may round a half differently
            near = mine == other or float(mine) == pytest.approx(float(other), abs=1.01 * last_digit)
            assert near, (seen["sentence"], explorer.summary())


def test_two_sets_of_messages_are_two_draws_for_the_interval():
    """What `difference` hands to `compare`: a row per seed, a column per set."""
    runs = load_sweep()
    sides = [pick(runs, **one)[["validation_loss", "test_loss"]].to_numpy() for one in ({}, {"rank": 64})]
    explorer = SweepExplorer(runs, second=1 + list(by_name(runs)).index("r = 64"))
    found, wanted = explorer.differences()["both"], compare(*sides)
    assert (found.low, found.high, found.messages) == (wanted.low, wanted.high, 2)


@pytest.mark.browser
def test_a_click_on_a_point_chooses_it_and_looks_are_counted():
    with alone.shown(sweep_explorer()) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
        assert page.locator(".lab-explorer").bounding_box()["height"] < 640  # what JupyterLab leaves of 768
        alone.sentences(page, [{"second": 6}])
        place = page.locator(".lab-atlas .orange").bounding_box()
        alone.sentences(page, [{"second": 1}])
        assert "2 comparisons" in page.locator(".lab-looks").inner_text()
        page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        page.wait_for_function("model.get('second') !== 1")
        assert "NaN" not in page.locator(".lab-explorer").inner_html() and page.errors == []
