"""What page 04 says of trainings that it stops at a loss, held against runs made in another way."""

from math import sqrt

import pytest
import torch
from page_prose import prose

from lab_utils import lora
from lab_utils.lora import digits
from lab_utils.recorded import best_rate, reader_runs

PROSE = prose("04_rank_and_alpha.ipynb")


@torch.no_grad()
def size(model) -> float:
    return float(model.first.delta_weight().norm() / model.first.base_layer.weight.norm())


def steps_to(target: float, alpha: float, seed: int) -> tuple[int, float]:
    """Steps after which the loss is first at most `target`, and the size of the update after just so many."""
    x, y, _, _ = digits.split("mirrored")
    watched, again = (digits.adapted(8, alpha, seed=seed).train() for _ in range(2))
    losses = digits.training(watched, lora.trainable_parameters(watched), x, y, steps=400, learning_rate=5e-3)
    steps = next(number for number, loss in enumerate(losses) if loss <= target)
    digits.fit(again, lora.trainable_parameters(again), x, y, steps=steps, learning_rate=5e-3)
    return steps, size(again)


@pytest.mark.parametrize("seed", [1, 2])
def test_alpha_changes_how_soon_a_loss_is_reached_and_hardly_the_update_that_reaches_it(seed):
    assert "about one and a half times as large, in about nine times fewer steps" in PROSE
    (slow, small), (fast, large) = (steps_to(0.5, alpha, seed) for alpha in (1, 128))
    assert 1.3 < large / small < 1.7
    assert 8 < slow / fast < 10 < sqrt(128)


def test_at_the_two_lowest_ranks_the_seeds_are_far_apart():
    assert "At rank 1 the seeds are more than ten points apart after 800 steps, at rank 2 after 400" in PROSE
    for rank, steps in ((1, 800), (2, 400)):
        runs = best_rate(reader_runs("ranks", layers="first", task="turned", rank=rank, steps=steps))
        shares = [float(run.test.mean()) for run in runs]
        assert len(shares) == 3 and max(shares) - min(shares) > 0.1
