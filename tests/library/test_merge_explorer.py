"""The merge explorer: what it says at a setting is what `merging` computes there, in Python and in the browser."""

import base64
import re

import alone
import numpy as np
import pytest
import torch
from choosing_explorers import merge_explorer

from lab_utils.errors import LabError
from lab_utils.lowrank import best_rank_r
from lab_utils.merging import round_to, what_is_left
from lab_utils.widgets.merge_explorer import GRIDS, INTO, PERCENTS, MergeExplorer


def test_it_shows_what_merging_computes_at_that_setting():
    generator = torch.Generator().manual_seed(2)
    weight, A, B = (torch.randn(*shape, generator=generator) for shape in ((32, 512), (3, 512), (32, 3)))
    weight, update = weight.bfloat16().float(), 0.01 * B @ A
    explorer = MergeExplorer(weight, update, rank=3, grid="NF4", into="Q4_1", percent=2)
    before = round_to(weight, "NF4").values
    left = what_is_left(before, 0.02 * weight.norm() / update.norm() * update, "Q4_1")
    found = explorer.results()
    assert found["kept"] == pytest.approx(left.kept, rel=1e-3) and found["noise"] == pytest.approx(left.noise, rel=1e-3)
    assert found["changed"] == pytest.approx(left.changed * weight.numel(), abs=3)  # a near-tie may fall to either side
    assert explorer.real_percent == pytest.approx(100 * float(update.norm() / weight.norm()), rel=1e-5)


def test_the_same_update_arrives_on_another_grid_and_not_on_its_own():
    explorer = merge_explorer()
    explorer.percent = 0.8
    kept = {}
    for explorer.grid, explorer.into in (("NF4", "NF4"), ("NF4", "Q4_0"), ("Q4_0", "Q4_0"), ("Q4_0", "NF4")):
        kept[explorer.grid, explorer.into] = explorer.results()["kept"]
    assert kept["NF4", "NF4"] < 0.1 and kept["Q4_0", "Q4_0"] < 0.1
    assert kept["NF4", "Q4_0"] > 0.6 and kept["Q4_0", "NF4"] > 0.6
    explorer.into = "float16"
    assert explorer.results()["kept"] == pytest.approx(1, abs=0.01)


def test_it_opens_at_a_size_of_real_updates_and_the_picture_marks_the_real_one():
    explorer = merge_explorer()
    assert explorer.percent == explorer.start["percent"] == 1.6
    lower = explorer.figure().axes[1]
    marked = {line.get_label(): line.get_xdata()[0] for line in lower.lines[2:]}
    assert marked == {"shown above: 1.6 %": 1.6, f"the real ΔW: {explorer.real_percent:.2f} %": explorer.real_percent}


def test_the_direction_is_the_updates_best_fit_as_large_as_the_weight():
    weight, update = torch.randn(2, 10, 128, generator=torch.Generator().manual_seed(1))
    explorer = MergeExplorer(weight, 0.02 * update, rank=3)
    direction = explorer._direction.view(10, 128)
    assert torch.linalg.matrix_rank(direction) == 3
    assert float(direction.norm()) == pytest.approx(float(explorer._weight.norm()), rel=1e-5)
    B, A = best_rank_r(update, 3)
    assert float(torch.cosine_similarity((B @ A).flatten(), direction.flatten(), dim=0)) == pytest.approx(1, abs=1e-5)


def test_the_browser_gets_the_weights_to_the_bit():
    explorer = merge_explorer()
    bits = np.frombuffer(base64.b64decode(explorer.weight), "<u2").astype(np.uint32) << 16
    assert np.array_equal(bits.view(np.float32), explorer._weight.numpy())
    assert explorer._weight.numel() == 2**14 and explorer.sizes["rows"] == 32  # of 40 rows


def test_the_block_that_is_drawn_changes_as_many_codes_as_the_average_one():
    explorer = merge_explorer()
    before, delta = explorer._sides(explorer.percent)
    moved = (round_to(before + delta, "Q4_0").codes != round_to(before, "Q4_0").codes).view(-1, 64)[:, :32].sum(1)
    shown = explorer.sizes["shown"]
    assert shown % 64 == 0 and int(moved[shown // 64]) >= int(moved.float().mean()) > 0


def test_what_was_recorded_is_said_beside_the_setting_it_belongs_to():
    weight, update = torch.randn(2, 10, 128, generator=torch.Generator().manual_seed(1))
    explorer = MergeExplorer(weight, update, rank=1, recorded={("NF4", "Q4_1"): "Recorded: 30 of 40."})
    assert "Recorded" not in explorer.summary()
    explorer.into = "Q4_1"
    assert explorer.summary().endswith("Recorded: 30 of 40.")


def test_arguments_that_do_not_fit_are_named():
    weight = torch.randn(4, 64)
    for bad in (torch.zeros(4, 64), torch.ones(4, 32)):
        with pytest.raises(LabError, match="update"):
            MergeExplorer(weight, bad)
    with pytest.raises(LabError, match=r"\(4, 63\)"):
        MergeExplorer(weight[:, :63], weight[:, :63])


@pytest.mark.browser
def test_the_browser_rounds_as_python_does():
    """Every grid with every format once, at sizes from 0.1 to 100 % (about five seconds)."""
    explorer = merge_explorer()
    pairs = [(grid, into) for grid in GRIDS for into in INTO]
    states = [
        {"grid": grid, "into": into, "percent": PERCENTS[(5 * number) % len(PERCENTS)]}
        for number, (grid, into) in enumerate(pairs)
    ]
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states)
        assert page.errors == []
    pattern = re.compile(r": (-?[\d.]+) % of the update .* error of ([\d.]+) % of W; (\d+) of 16384")
    for state, text in zip(states, texts, strict=True):
        for name, value in state.items():
            setattr(explorer, name, value)
        found, numbers = explorer.results(), pattern.search(text.replace(",", ""))
        assert int(numbers[3]) == found["changed"], (state, text)
        assert float(numbers[1]) == pytest.approx(100 * found["kept"], abs=0.06), (state, text)
        assert float(numbers[2]) == pytest.approx(100 * found["noise"], abs=0.006), (state, text)
