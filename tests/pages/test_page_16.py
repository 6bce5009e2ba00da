"""What page 16 says in prose and does not compute: of the recorded adapter, and of the small policy."""

import json
import math
import re

import pytest
from page_prose import code, code_cell, prose

from lab_utils.preferences import (
    PreferenceRecipe,
    group_advantages,
    own_pairs,
    recorded_runs,
    recorded_samples,
    recorded_start,
    share,
    small_policy,
    small_run,
    start_logits,
)
from lab_utils.scores import difference
from lab_utils.sweep import compare
from lab_utils.tasks import TASKS

PAGE = "16_preferences_and_rewards.ipynb"
PROSE, CODE = prose(PAGE), code(PAGE)
is_right = TASKS["bookings"].is_right


def ends(what="right", seeds=12, **settings):
    """The share of right (or well-formed) answers after the last step, with each of some seeds."""
    return [share(small_run(seed=seed, **settings)[-1].after, what) for seed in range(seeds)]


def mean(values):
    return sum(values) / len(values)


def test_the_half_trained_adapter_is_the_one_that_the_page_starts_from():
    folder, scored = recorded_start()
    recipe = json.loads((folder / "record.json").read_text())["recipe"]
    seen = recipe["steps"] * recipe["batch_size"]
    assert seen == recipe["train_examples"]
    assert f"rank {recipe['rank']}, {recipe['steps']} steps, {seen} messages seen once" in PROSE
    assert f"{sum(scored.right)} of the {len(scored.right)} test messages" in PROSE


def test_what_is_said_of_the_small_policy_is_so():
    small = small_run("right", group_size=4)
    assert all(abs(step.loss) < 1e-12 for step in small)  # "the loss is 0"
    silent = [sum(not step.advantages.any() for step in small_run("right", group_size=size)) for size in (4, 16)]
    assert f'"about {silent[1]}", "{silent[0]}, as before"' in CODE  # the explorer's answers
    assert f"{share(start_logits(), 'right'):.1%}".replace("%", " %") + " of the answers are right" in PROSE
    samples = {answer.text for answer in small_run("valid and short", group_size=8)[-1].answers}
    assert all("Fri}" in text and "Weber" not in text for text in samples)  # the surname and half of the weekday


def test_the_sixteen_answers_of_a_step_and_the_worked_groups():
    source = code_cell(PAGE, "\nby_reward = ")
    sizes = [int(number) for number in re.findall(r"FAST else (\d+)", source)]
    assert sizes[1] * sizes[2] == 16 and "each step writes sixteen" in PROSE
    import torch

    assert group_advantages(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1]), 4)[4:].tolist() == [0] * 4


def test_temperature_is_told_from_the_step_size(monkeypatch):
    cold, usual, hot = (mean(ends(seeds=5, reward="right", temperature=one)) for one in (0.3, 1.0, 2.0))
    assert cold < usual - 0.1 and hot < usual - 0.05  # at the page's rate either end looks worse
    monkeypatch.setattr(small_policy, "RATE", 2 * small_policy.RATE)
    usual, hot = (round(100 * mean(ends(reward="right", temperature=one))) for one in (1.0, 2.0))
    assert f"{hot} % right at 2, and {usual} % at 1" in PROSE and hot >= usual


def test_beta_says_where_a_run_ends(monkeypatch):
    free, held = (100 * mean(ends(reward="right", group_size=8, beta=beta)) for beta in (0.0, 0.5))
    assert f"near 50 % and not {free:.0f} %" in PROSE and abs(held - 50) < 2
    gamed = ends(reward="valid and short", group_size=8, beta=0.5)
    assert f"near {100 * mean(gamed):.0f} %, still below" in PROSE and max(gamed) < share(start_logits(), "right")
    monkeypatch.setattr(small_policy, "STEPS", 300)
    small_policy.chances.cache_clear()
    try:
        runs = [small_run("right", group_size=16, beta=0.5, steps=300, seed=seed) for seed in (0, 3)]  # two of the four
        moved = [share(run[299].after, "right") - share(run[29].after, "right") for run in runs]
        assert all(abs(one) < 0.1 for one in moved)  # "by a few points"
    finally:
        small_policy.chances.cache_clear()


def test_paid_for_form_alone_the_other_parts_drift():
    drifted = ends(reward="valid", group_size=8)
    assert min(drifted) < share(start_logits(), "right") < max(drifted)  # up with one seed and down with another


def gain(arm: str, seeds: int | None = None):
    """Exact match of an arm's first runs less that of the start, on the same messages; over seeds too from two on."""
    runs, start = recorded_runs()[arm][:seeds], recorded_start()[1]
    if len(runs) == 1:
        return difference(start.right, runs[0].right)
    return compare([start.right] * len(runs), [run.right for run in runs])


def shares(arm: str) -> list[float]:
    """Exact match of an arm's runs, seed by seed, in per cent."""
    return [100 * run.exact for run in recorded_runs()[arm]]


def ruined():
    """The run that section 4 shows."""
    (run,) = recorded_runs()["own pairs"]
    return run


def course(key: str) -> list[float]:
    """One number of its history."""
    return [row[key] for row in ruined().history]


def rates(*arms: str) -> set[float]:
    """The learning rates of some arms."""
    return {run.recipe["learning_rate"] for arm in arms for run in recorded_runs()[arm]}


def gamed():
    """The only run paid for short JSON."""
    (run,) = recorded_runs()["brief, rate 0.0005"]
    return run


def control():
    """The same paid for right answers."""
    (run,) = recorded_runs()["right, rate 0.0005"]
    return run


def paid_slowly():
    """The control's seed at a lower rate."""
    return next(run for run in recorded_runs()["right, rate 0.0003"] if run.seed == control().seed)


def below_control():
    """The gamed run less its control, on the same messages."""
    return difference(control().right, gamed().right)


def alike() -> bool:
    """Do the two differ in their reward and the number of steps, and in nothing else?"""
    one, other = gamed().recipe, control().recipe
    return {key for key in one | other if one.get(key) != other.get(key)} == {"reward", "steps"}


def sampled_right(run) -> list[float]:
    """Per cent right among the sampled answers of its first eight steps."""
    return [100 * row["right"] for row in run.history[:8]]


def smooth(values: list[float]) -> list[int]:
    """Each with the two before it, as the figure has them, in whole per cent."""
    return [round(mean(values[place : place + 3])) for place in range(len(values) - 2)]


def informative(run) -> float:
    """The share of its groups with unequal rewards."""
    return mean([row["informative"] for row in run.history])


def beside_sft(arm: str):
    """An arm's runs less those of more SFT, seed by seed."""
    return compare([run.right for run in recorded_runs()["labels"]], [run.right for run in recorded_runs()[arm]])


def spread(values: list[float]) -> float:
    return max(values) - min(values)


SFT = "labels", "rejection"
OFTEN = "rejection", "labels", "own pairs, rate 0.0003"
CLAIMS = {  # a new recording that breaks a sentence fails here; then the sentence is to be rewritten
    "A third of these answers are right":
        lambda: 0.3 < mean([is_right(one, row["answer"]) for row in recorded_samples() for one in row["outputs"]])
        < 0.37,
    "On the test messages of section 2 two thirds will be": lambda: 0.63 < recorded_start()[1].exact < 0.7,
    "the same twelve steps on the same pairs at a learning rate five times as high":
        lambda: len(course("loss")) == 12 and rates("own pairs") == {5 * 2e-4},
    "both lines fall, from about 0 to far below. The rejected answers' falls faster":
        lambda: course("chosen_logprob")[0] > -3 and max(course("chosen_logprob")[4:]) < -10
        and all(two < one for one, two in zip(course("chosen_logprob"), course("rejected_logprob"), strict=True)),
    "the loss falls, the margin grows, the pairs are told apart":
        lambda: course("loss")[-1] < 0.6 * course("loss")[0] and course("margin")[-1] > 1
        and course("accuracy")[-1] == 1,
    "the model is ruined": lambda: ruined().exact == 0,
    "less likely than one in a million": lambda: all(one < math.log(1e-6) for one in course("chosen_logprob")[4:]),
    "Three methods are recorded with three seeds each":
        lambda: {arm for arm, runs in recorded_runs().items() if len(runs) == 3} == set(OFTEN)
        and all([run.seed for run in recorded_runs()[arm]] == [0, 1, 2] for arm in OFTEN),
    "DPO on the model's own mistakes at 3e-4. None of the three is clearly above or below the start":
        lambda: not any(gain(arm).clear for arm in OFTEN) and rates(OFTEN[2]) == {3e-4} and rates(*SFT) == {1e-3},
    "neither of the other two is clearly above or below more SFT":
        lambda: not any(beside_sft(arm).clear for arm in OFTEN if arm != "labels"),
    "from twelve points or more below the start to six or more above it":
        lambda: all(gain(arm).low < -0.12 and gain(arm).high > 0.06 for arm in OFTEN),
    "Of the first two seeds of rejection sampling alone, the interval was more than a hundred points wide":
        lambda: gain("rejection", 2).high - gain("rejection", 2).low > 1,
    "rejection sampling ends between 62.5 and 72.5 % right, more SFT between 59.5 and 66 %":
        lambda: [(min(shares(arm)), max(shares(arm))) for arm in OFTEN[:2]]
        == [pytest.approx((62.5, 72.5)), pytest.approx((59.5, 66))],
    "DPO at 3e-4 between 57 and 67 %":
        lambda: (min(shares(OFTEN[2])), max(shares(OFTEN[2]))) == pytest.approx((57, 67)),
    "The means of the three methods lie within six points, about as far apart as means of three such seeds would be":
        lambda: spread([mean(shares(arm)) for arm in OFTEN]) < 6,
    "DPO on the model's own mistakes ruined the model at 1e-3, with one seed":
        lambda: gain("own pairs").high < -0.5 and rates("own pairs", *SFT) == {1e-3},
    "at 3e-4 it ended at 57, 67 and 62.5 %": lambda: shares(OFTEN[2]) == pytest.approx([57, 67, 62.5]),
    "ended at 65.5 and 67.5 % at 3e-4, from 67, and with the first of these seeds at 57 % at 5e-4":
        lambda: shares("right, rate 0.0003") == pytest.approx([65.5, 67.5]) and recorded_start()[1].exact == 0.67
        and shares("right, rate 0.0005") == pytest.approx([57]) and shares("right, rate 0.0003")[0] == 65.5
        and recorded_runs()["right, rate 0.0003"][0].seed == control().seed,
    "8.5 points lower on the same messages, and that is clear":
        lambda: difference(paid_slowly().right, control().right).clear
        and round(100 * (paid_slowly().exact - control().exact), 1) == 8.5,
    "The right answers on the test messages fell by more than half in eight steps, and nearly all are still "
    "well-formed":
        lambda: gamed().exact < recorded_start()[1].exact / 2 and gamed().valid > 0.98 and len(gamed().history) == 8,
    '"cheers" for a name, a quantity of 1':
        lambda: sum('" cheers","qty":1' in output for output in gamed().outputs[:4]) == 2,
    "The control starts from the same adapter, with the same messages in the same order, at the same peak rate, 5e-4":
        lambda: alike() and control().seed == gamed().seed and gamed().recipe["learning_rate"] == 5e-4,
    "The control ends 10 points below the start, and that is clear":
        lambda: gain("right, rate 0.0005").clear and gain("right, rate 0.0005").value == pytest.approx(-0.1),
    "ends another 30.5 points below its control, so most of its fall came with the wrong reward":
        lambda: below_control().clear and below_control().value == pytest.approx(-0.305)
        and below_control().value < gain("brief, rate 0.0005").value / 2,
    "with the same seed and steps at 3e-4 the model stayed at 65.5 %":
        lambda: paid_slowly().exact == 0.655 and len(paid_slowly().history) == len(control().history)
        and not difference(recorded_start()[1].right, paid_slowly().right).clear,
    "87.5 % of the control's answers are well-formed, and 99.5 % of the gamed run's":
        lambda: (control().valid, gamed().valid) == (0.875, 0.995),
    "the control took twelve steps where the gamed run took eight":
        lambda: (len(control().history), len(gamed().history)) == (12, 8),
    "12 % were right in the gamed run and 43 % in its control":
        lambda: [round(mean(sampled_right(run)[1:])) for run in (gamed(), control())] == [12, 43],
    "over the first eight steps the control's rates add up to 0.0032 and the gamed run's to 0.0025":
        lambda: [round(sum(row["learning_rate"] for row in run.history[:8]), 4) for run in (control(), gamed())]
        == [0.0032, 0.0025],
    "single steps of sixteen answers range from 0 to 31 % and from 0 to 75 %":
        lambda: [(min(line), round(max(line))) for line in map(sampled_right, (gamed(), control()))]
        == [(0, 31), (0, 75)],
    "The average stays between 10 and 21 % in the gamed run and between 35 and 44 % in its control":
        lambda: [(min(line), max(line)) for line in map(smooth, map(sampled_right, (gamed(), control())))]
        == [(10, 21), (35, 44)],
    "every group of the gamed run had something to learn from, and in the control, over the same eight steps, half of":
        lambda: informative(gamed()) == 1 and mean([row["informative"] for row in control().history[:8]]) == 0.5,
    "shorter by two characters only": lambda: round(recorded_start()[1].characters - gamed().characters) == 2,
    "The reward shows nothing of it":
        lambda: sum(row["reward"] for row in gamed().history[-3:]) > sum(row["reward"] for row in gamed().history[:3]),
    "arms for rank 1 and rank 32, and nothing of them is recorded yet":
        lambda: not any("rank" in arm for arm in recorded_runs()),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CLAIMS)
def test_what_is_said_of_the_recorded_runs_is_so(sentence):
    assert sentence in PROSE
    assert CLAIMS[sentence]()


def test_the_live_run_is_the_recorded_one_at_a_fifth_of_the_rate():
    source = code_cell(PAGE, "by_preference = ")
    assert "steps=1 if FAST else 12, batch_size=2 if FAST else 4)" in source
    run = ruined()
    assert run.recipe["batch_size"] == 4 and run.rows == len(own_pairs(recorded_samples(run.seed))) and run.seed == 0
    assert PreferenceRecipe().learning_rate == 2e-4
