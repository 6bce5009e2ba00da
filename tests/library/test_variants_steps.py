"""What a few steps of Adam do to W under each variant: the rank that the update has, and where the first step goes."""

from functools import cache

import pytest
import torch

from lab_utils.lowrank import singular_values
from lab_utils.variants import VARIANTS, after_step, before_step, inject, learned_update, optimizer_groups

OUT, IN, RATE, STEPS = 24, 16, 0.02, 12


@cache
def target() -> torch.Tensor:
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(5))


@cache
def updates(variant: str) -> torch.Tensor:
    """W' − W after 0 to 12 steps, (13, 24, 16); rank 4, alpha 8, towards one target of full rank."""
    torch.manual_seed(0)
    model = inject(torch.nn.Sequential(torch.nn.Linear(IN, OUT, bias=False)), variant, ["0"], 4, 8)
    optimizer = torch.optim.Adam(optimizer_groups(model, variant, RATE / 4 if variant == "lora+" else RATE))
    wanted, found = model(torch.eye(IN)).detach() + target().T, []
    for _ in range(STEPS + 1):
        found.append(learned_update(model[0]).detach().clone())
        optimizer.zero_grad()
        (model(torch.eye(IN)) - wanted).square().sum().backward()
        before_step(model)
        optimizer.step()
        after_step(model)
    return torch.stack(found)


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_has_changed_before_the_first_step(name):
    assert updates(name)[0].abs().max() < 1e-6 and updates(name)[1].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "rank"), [("lora", 4), ("lora-fa", 4), ("rslora", 4), ("lora+", 4), ("delta-lora", 8), ("pissa", 8)]
)
def test_the_update_has_the_rank_that_the_rule_allows(name, rank):
    """B·A has rank 4; where the frozen part starts or moves along another B·A, that adds 4 more."""
    values = singular_values(updates(name)[-1])
    assert values[rank - 1] > 1e-3 * values[0] and values[rank] < 1e-5 * values[0]


def test_the_first_step_of_adam_moves_b_alone():
    """B is 0, so A has no gradient yet; Adam's first step is as large as the learning rate, whatever the gradient."""
    lora, fa, delta, rs = (updates(name)[1] for name in ("lora", "lora-fa", "delta-lora", "rslora"))
    assert torch.allclose(lora, fa, atol=1e-7) and torch.allclose(lora, delta, atol=1e-7)
    assert torch.allclose(rs, 2 * lora, atol=1e-6)  # scaling 8 / √4 instead of 8 / 4
    assert float((lora * target()).sum()) > 0  # towards the target
    assert lora.abs().max() <= 2 * 4 * RATE * 0.5  # scaling 2, 4 terms of at most RATE · |A|, A drawn from ±½


def test_lora_fa_keeps_the_directions_of_a():
    assert torch.linalg.matrix_rank(torch.cat(list(updates("lora-fa"))), atol=1e-4) == 4
    assert torch.linalg.matrix_rank(torch.cat(list(updates("lora"))), atol=1e-4) > 4


@pytest.mark.parametrize("optimizer_class, rate, alpha", [(torch.optim.AdamW, 1e-3, 128), (torch.optim.SGD, 1e-2, 32)])
def test_lora_plus_is_lora_with_another_alpha(optimizer_class, rate, alpha):
    """λ = 16: λ times alpha where a step ignores the gradient's size, √λ times where it is in proportion to it."""
    generator = torch.Generator().manual_seed(1)
    x, wanted = torch.randn(5, IN, generator=generator), torch.randn(5, OUT, generator=generator)

    def losses(name: str, alpha: float) -> list[float]:
        torch.manual_seed(0)
        model, found = inject(torch.nn.Sequential(torch.nn.Linear(IN, OUT)), name, ["0"], 4, alpha), []
        optimizer = optimizer_class(optimizer_groups(model, name, rate), lr=rate, weight_decay=0.0)
        for _ in range(10):
            loss = (model(x) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    assert losses("lora+", 8) == pytest.approx(losses("lora", alpha), rel=1e-4)
    assert losses("lora+", 8) != pytest.approx(losses("lora", 8), rel=1e-2)
