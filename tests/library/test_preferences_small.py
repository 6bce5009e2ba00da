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
from lab_utils.widgets.values import fixed


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


@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_step_by_hand(scale):
    """Plain descent on the mean of -advantage · log-probability: every part of a good answer gains, in proportion."""
    (step,) = small_run("valid", group_size=8, temperature=0.7, steps=1, scale_rewards=scale)
    less = step.rewards - step.rewards.mean()
    wanted = less / (less.square().sum() / 7).sqrt() if scale == "group" else less
    assert_close(step.advantages, wanted, rtol=3e-4, atol=0)
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
     ({"temperature": 0}, "temperature=0"), ({"steps": 31}, "steps=31"), ({"scale_rewards": "batch"}, "'batch'")],
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
    explorer.reward, explorer.beta, explorer.divided = "valid", 0.5, False
    explorer.reset()
    assert (explorer.reward, explorer.beta, explorer.divided, explorer.step) == ("right", 0.0, True, 3)


def test_the_explorer_shows_what_the_division_does_to_a_group():
    """By hand: one right of eight has deviation √(0.875 / 7), four of eight √(2 / 7)."""
    explorer, sizes = RewardExplorer(group_size=8), []
    for step, right, size, deviation in ((2, 1, 2 * 0.875 / 8, (0.875 / 7) ** 0.5), (3, 4, 0.5, (2 / 7) ** 0.5)):
        explorer.step = step
        words = f"{right} of 8 sampled answers are right, mean reward"
        sizes.append((size, size / deviation))
        assert words in explorer.summary() and f"deviation {deviation:.3f}." in explorer.summary()
        assert f"advantages: {fixed(size, 3)}, divided by the deviation {size / deviation:.2f}" in explorer.summary()
    explorer.reward, explorer.step = "valid and short", 11
    [short] = {round(one, 3) for one in explorer.run()[10].rewards.tolist()} - {0.625}
    assert short == 0.6  # one character more, in one of eight: divided, it pulls as one right answer of eight does
    assert "advantages: 0.005, divided by the deviation 0.61" in explorer.summary() and round(sizes[0][1], 2) == 0.62


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
         "step": 1 + 7 * at % STEPS, "divided": bool(at % 3)}
        for at, (reward, group) in enumerate((reward, group) for reward in SMALL_REWARDS for group in GROUPS)
    ]  # fmt: skip
    with alone.shown(explorer) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
        texts = alone.sentences(page, states)
        assert page.errors == []
        end = page.locator(".lab-summary").bounding_box()
        top = page.get_by_label("paid for", exact=True).bounding_box()["y"]
        assert end["y"] + end["height"] - top < 640  # what JupyterLab leaves of 768
        assert page.locator(".lab-answers tbody tr").count() == min(states[-1]["group_size"], 8)
    for state, text in zip(states, texts, strict=True):
        for name, value in state.items():
            setattr(explorer, name, value)
        assert text == explorer.summary(), state
