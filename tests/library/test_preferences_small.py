"""The smallest policy trained by reward, and its explorer: steps by hand, and the browser's as Python's."""

import base64
import json

import pytest
import torch
from torch.testing import assert_close

from lab_utils.errors import LabError
from lab_utils.preferences import SMALL_REWARDS, share, small_run, start_logits
from lab_utils.preferences.small_policy import PARTS, RATE, STEPS, Answer, chances, draw
from lab_utils.widgets.reward_explorer import BETAS, GROUPS, TEMPERATURES, RewardExplorer


def test_the_policy_starts_with_the_probabilities_of_its_parts():
    found = start_logits().softmax(-1)
    for row, part in zip(found.tolist(), PARTS, strict=True):
        assert row[: len(part)] == pytest.approx(list(part.values())) and not any(row[len(part) :])
    assert share(start_logits(), "right") == pytest.approx(0.7 * 0.5 * 0.5 * 0.6)
    assert share(start_logits(), "valid") == pytest.approx(0.7)


def test_each_way_is_drawn_as_often_as_it_is_likely():
    even = ((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)[:, None].expand(-1, len(PARTS))
    for temperature in (1.0, 0.5):
        ways = torch.tensor([one.ways for one in draw(start_logits(), even, temperature)])
        for part, likely in enumerate((start_logits() / temperature).softmax(-1)):
            counts = ways[:, part].bincount(minlength=len(likely)) / 1000
            assert_close(counts.double(), likely, rtol=0, atol=1.01e-3)


def test_a_step_by_hand():
    """Plain descent on the mean of -advantage · log-probability: every part of a good answer gains, in proportion."""
    (step,) = small_run("valid", group_size=8, temperature=0.7, steps=1)
    likely, wanted = (start_logits() / 0.7).softmax(-1), start_logits()
    for answer, advantage in zip(step.answers, step.advantages.tolist(), strict=True):
        for part, way in enumerate(answer.ways):
            toward = torch.eye(likely.shape[1], dtype=torch.float64)[way] - likely[part]
            wanted[part] += RATE * advantage * toward / 0.7 / (8 * len(PARTS))
    assert_close(step.after[likely > 0], wanted[likely > 0])
    assert step.loss == pytest.approx(0, abs=1e-12)  # and yet it learns
    assert share(step.after, "valid") > share(step.before, "valid")


def test_beta_pulls_back_to_where_it_began():
    free, held = small_run("right", beta=0.0), small_run("right", beta=1.0)
    assert share(start_logits(), "right") < share(held[-1].after, "right") < share(free[-1].after, "right")
    assert held[0].after.equal(free[0].after)  # at the start the distance is 0, and so is its gradient


def test_what_the_page_and_the_explorer_ask_about():
    """Equal rewards in about half of the steps; a reward for form and brevity is earned, and nothing is right."""
    taught = [sum(bool(step.advantages.any()) for step in small_run("right", size)) for size in (2, 4, 8, 16)]
    assert taught == sorted(taught) and taught[0] < taught[1] and 12 <= taught[1] <= 18 and taught[3] >= 20
    assert share(small_run("right", group_size=4)[-1].after, "right") > 0.9
    hacked = small_run("valid and short")
    assert hacked[-1].rewards.mean() > hacked[0].rewards.mean() + 0.1
    assert share(hacked[-1].after, "valid") > 0.95 and share(hacked[-1].after, "right") < 0.01


def test_answers_read_as_they_are_written():
    best, short = Answer((0, 0, 0, 0)), Answer((0, 1, 0, 1))
    assert best.text == "{ Anna Weber, 3, Friday}" and best.right and best.valid and not short.right
    assert [worth(best) for worth in SMALL_REWARDS.values()] == [1, 1, 1 - 24 / 40]
    assert SMALL_REWARDS["valid and short"](short) > SMALL_REWARDS["valid and short"](best)
    assert not Answer((1, 0, 0, 0)).valid and Answer((1, 0, 0, 0)).text.startswith("Sure")
    assert chances().min() > 0 and chances().max() < 1 and chances().shape == (STEPS, 16, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"reward": "nice"}, "Unknown reward 'nice'"), ({"group_size": 1}, "group_size=1"), ({"beta": -1}, "beta=-1"),
     ({"temperature": 0}, "temperature=0"), ({"steps": 31}, "steps=31")],
)  # fmt: skip
def test_settings_out_of_range_are_named(settings, words):
    with pytest.raises(LabError, match=words):
        small_run(**settings)


def test_the_explorer_says_what_the_library_computes():
    explorer = RewardExplorer(step=3, group_size=8)
    step = small_run("right", 8)[2]
    assert f"from {100 * share(step.before, 'right'):.1f} % to {100 * share(step.after, 'right'):.1f} %" in str(
        explorer.summary()
    )
    assert explorer.summary().startswith("Step 3 of 30, paid for “right”: ")
    data, _ = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and "\n" not in data["text/plain"]
    state = {name: value for name, value in explorer.get_state().items() if name != "layout"}
    json.dumps(state, allow_nan=False)
    assert state["_esm"].rstrip().endswith("export default { render };")
    explorer.reward, explorer.beta = "valid", 0.5
    explorer.reset()
    assert (explorer.reward, explorer.beta, explorer.step) == ("right", 0.0, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("reward", "x"), ("step", 0), ("step", 31), ("group_size", 3), ("temperature", 0.9), ("beta", 3.0)],
)
def test_the_explorer_refuses_what_is_not_there(name, value):
    with pytest.raises(LabError, match=name):
        setattr(RewardExplorer(), name, value)


@pytest.mark.browser
def test_the_browser_trains_as_python_does():
    """Every reward with every group at some temperature, beta and step (about two seconds)."""
    import alone

    explorer = RewardExplorer()
    states = [
        {"reward": reward, "group_size": group, "temperature": TEMPERATURES[at % 6], "beta": BETAS[(at + 2) % 6],
         "step": 1 + 7 * at % STEPS}
        for at, (reward, group) in enumerate((reward, group) for reward in SMALL_REWARDS for group in GROUPS)
    ]  # fmt: skip
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states)
        assert page.errors == []
        assert page.locator(".lab-answers tbody tr").count() == min(states[-1]["group_size"], 8)
    for state, text in zip(states, texts, strict=True):
        for name, value in state.items():
            setattr(explorer, name, value)
        assert text == explorer.summary(), state
