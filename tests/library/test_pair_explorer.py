"""The pair explorer: margin, loss and weight are DPO's, the browser agrees with Python, no step is shown early."""

import re

import alone
import pytest
import torch
from shown import node, shown

from lab_utils.errors import LabError
from lab_utils.preferences import dpo_loss, own_pairs, recorded_courses, recorded_runs, recorded_samples
from lab_utils.widgets.pair_explorer import BETAS, PairExplorer, parts

MOVES = [
    {"step": step, "pair": pair, "learning_rate": rate, "beta": beta}
    for step, pair, rate, beta in ((0, 1, 1e-3, 0.1), (1, 2, 1e-3, 1.0), (5, 3, 2e-4, 0.01), (12, 14, 2e-4, 0.3),
                                   (12, 4, 1e-3, 1.0), (7, 11, 1e-3, 0.03))
]  # fmt: skip


def said(text: str) -> tuple[float, float, float]:
    """Margin, loss and weight of a sentence."""
    found = re.search(r"margin is (-?[\d.]+), the loss ([\d.]+), the weight ([\d.]+)\.$", text)
    return tuple(map(float, found.groups()))


def at(move: dict) -> PairExplorer:
    """An explorer that was moved there."""
    explorer = PairExplorer()
    for name, value in move.items():
        setattr(explorer, name, value)
    return explorer


@pytest.mark.parametrize("move", MOVES)
def test_margin_loss_and_weight_are_those_of_the_loss_and_of_its_gradient(move):
    course = next(one for one in recorded_courses() if one.learning_rate == move["learning_rate"])
    now, then = (torch.tensor(course.logprobs[step][move["pair"] - 1], dtype=torch.float64)
                 for step in (move["step"], 0))  # fmt: skip
    chosen, rejected = (one.clone().view(1).requires_grad_() for one in now)
    found = dpo_loss(chosen, rejected, then[:1], then[1:], beta=move["beta"])
    found.loss.backward()
    weight = -float(chosen.grad) / move["beta"]
    assert float(rejected.grad) == pytest.approx(-float(chosen.grad))  # both answers are pulled with the one weight
    wanted = (float(found.margins), float(found.loss.detach()), weight)
    assert said(at(move).summary()) == pytest.approx(wanted, abs=0.0051)


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_browser_says_what_python_says():
    for move, seen in zip(MOVES, shown(PairExplorer(), MOVES), strict=True):
        assert seen["sentence"] == at(move).summary()
        assert f"weight of the pair {said(seen['sentence'])[2]:.3f}" in " ".join(seen["named"])


def test_what_differs_is_found_by_fields():
    right = '{"name":" Ann","qty":3,"day":"Friday"}'
    assert parts(right, '{"name":" Ann","qty":4,"day":"Friday"}') == ('"qty":3', '"qty":4')
    assert parts(right, '{"name":" Bo","qty":4,"day":"Friday"}') == ('"name":" Ann","qty":3', '"name":" Bo","qty":4')
    assert parts(right, '{"name":" Ann","day":"Friday"}') == ('"qty":3', "")
    assert parts(right, "Sure!") == (right, "Sure!")


def test_the_rerun_whose_pairs_were_read_is_the_recorded_run():
    slow, fast = recorded_courses()
    assert (slow.learning_rate, fast.learning_rate, slow.beta) == (2e-4, 1e-3, 0.1) and slow.pairs == fast.pairs
    keys = ("loss", "margin", "chosen_logprob", "rejected_logprob")
    [recorded] = recorded_runs()["own pairs"]
    assert [[row[key] for key in keys] for row in fast.history] == [[row[key] for key in keys] for row in
                                                                    recorded.history]  # fmt: skip
    prompts = [pair["prompt"] for pair in own_pairs(recorded_samples(0))]
    assert [pair["prompt"] for pair in fast.pairs] == list(dict.fromkeys(prompts))  # the first pair of each message
    assert slow.logprobs[0] == fast.logprobs[0]  # one start


def test_runs_of_other_pairs_are_refused():
    from dataclasses import replace

    slow, fast = recorded_courses()
    for changed in ({"pairs": fast.pairs[1:]}, {"beta": 0.2}, {"logprobs": fast.logprobs[1:]}):
        with pytest.raises(LabError, match="courses differ"):
            PairExplorer(courses=[slow, replace(fast, **changed)])


@pytest.mark.browser
def test_no_step_is_drawn_before_it_is_reached_and_all_is_on_one_screen():
    with alone.shown(PairExplorer()) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
        heights = set()
        for move in MOVES:
            alone.sentences(page, [move])
            points = page.locator(".lab-plot").first.locator("polyline").all()
            assert [len(one.get_attribute("points").split()) for one in points] == [move["step"] + 1] * 2
            end = page.locator(".lab-summary").bounding_box()
            top = page.get_by_label("step", exact=True).bounding_box()["y"]
            assert end["y"] + end["height"] - top < 640  # what JupyterLab leaves of 768
            heights.add(page.locator(".lab-explorer").bounding_box()["height"])
        assert len(heights) == 1 and page.errors == []
        assert page.locator("input").count() == 4 and {one["beta"] for one in MOVES} == set(BETAS)
