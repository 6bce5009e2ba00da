"""The variant explorer: the recorded updates obey each variant's law, and the browser shows them."""

import re

import alone
import pytest
import torch
from choosing_explorers import variant_explorer

from lab_utils.lowrank import singular_values
from lab_utils.variants import VARIANTS
from lab_utils.widgets.variant_explorer import LAYERS, RANKS, RATE, STEPS, small_task, trained

each = pytest.mark.parametrize("name", VARIANTS)


@each
def test_no_variant_has_changed_anything_before_the_first_step(name):
    updates, _ = trained(name)
    assert updates.shape == (STEPS + 1, 24, 16)
    assert updates[0].abs().max() < 1e-6 and updates[1].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "rank"), [("lora", 4), ("lora-fa", 4), ("rslora", 4), ("lora+", 4), ("delta-lora", 8), ("pissa", 8)]
)
def test_the_update_has_the_rank_that_the_rule_allows(name, rank):
    """B·A has rank 4; where the frozen part starts or moves along another B·A, that adds 4 more."""
    values = singular_values(trained(name)[0][-1])
    assert values[rank - 1] > 1e-3 * values[0] and values[rank] < 1e-5 * values[0]


def test_the_first_step_of_adam_moves_b_alone():
    """B is 0, so A has no gradient yet; Adam's first step is as large as the learning rate, whatever the gradient."""
    lora, fa, delta, rs = (trained(name)[0][1] for name in ("lora", "lora-fa", "delta-lora", "rslora"))
    assert torch.allclose(lora, fa, atol=1e-7) and torch.allclose(lora, delta, atol=1e-7)
    assert torch.allclose(rs, 2 * lora, atol=1e-6)  # scaling 8 / √4 instead of 8 / 4
    assert float((lora * small_task()[1]).sum()) > 0  # towards the target
    assert lora.abs().max() <= 2 * 4 * RATE * 0.5  # scaling 2, 4 terms of at most RATE · |A|, A drawn from ±½


def test_lora_fa_keeps_the_directions_of_a():
    stacked = torch.cat(list(trained("lora-fa")[0]))
    assert torch.linalg.matrix_rank(stacked, atol=1e-4) == 4
    assert torch.linalg.matrix_rank(torch.cat(list(trained("lora")[0])), atol=1e-4) > 4


def test_vera_multiplies_rows_of_one_matrix():
    updates = trained("vera")[0]
    assert updates[-1].norm() < small_task()[1].norm()
    assert trained("vera")[1] == {"W": "frozen", "B": "frozen", "A": "frozen", "b": "trained", "d": "trained"}


def test_what_trains_is_what_the_counts_count():
    sizes = {"A": 4 * 16, "B": 24 * 4, "m": 24, "b": 24, "d": 16}
    for name, variant in VARIANTS.items():
        parts = trained(name)[1]
        rank = 16 if name == "vera" else 4
        count = sum(sizes[part] for part, state in parts.items() if state == "trained")
        assert count == variant.count(24, 16, rank), name
        assert parts["W"] == ("moves" if name == "delta-lora" else "frozen")


def test_the_counts_are_the_librarys():
    explorer = variant_explorer()
    assert explorer.counts["576 × 576"]["8"]["lora"] == 8 * (576 + 576)
    assert explorer.counts["1,536 × 576"]["8"]["lora-fa"] == 8 * 1536
    assert explorer.counts["576 × 576"]["8"]["vera"] == min(explorer.counts["576 × 576"]["8"].values()) == 576 + 8
    assert set(explorer.counts) == set(LAYERS) and set(explorer.counts["576 × 576"]) == {str(rank) for rank in RANKS}


def test_training_again_gives_the_same():
    trained.cache_clear()
    first, state = trained("dora")[0].clone(), torch.random.get_rng_state()
    trained.cache_clear()
    assert torch.equal(first, trained("dora")[0])
    assert torch.equal(state, torch.random.get_rng_state()), "the page's own random numbers were disturbed"


@pytest.mark.browser
def test_the_browser_shows_what_was_recorded():
    """Three steps of every variant (about five seconds)."""
    explorer = variant_explorer()
    moves = [(name, step, rank) for name in VARIANTS for step, rank in ((0, 1), (7, 8), (STEPS, 64))]
    states = [dict(zip(("variant", "step", "rank"), move, strict=True)) for move in moves]
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states)
        assert page.errors == []
    pattern = re.compile(r"([\d,]+) numbers are .* is ([\d.]+) ?% of W.* rank is (\d+), .* by ([\d.]+) ?%")
    for state, text in zip(states, texts, strict=True):
        explorer.variant, explorer.step, explorer.rank = state.values()
        shown, said = pattern.search(text), pattern.search(explorer.summary())
        assert (shown[1], shown[3]) == (said[1], said[3]), state
        assert [float(shown[2]), float(shown[4])] == pytest.approx([float(said[2]), float(said[4])], abs=0.11)
