"""What page 16 says in prose and does not compute: of the recorded adapter, and of the small policy."""

import math
import re
from collections import Counter
from itertools import combinations

import pytest
from page_prose import code, code_cell, prose

from lab_utils.files import read_json
from lab_utils.finetune import encode
from lab_utils.models.registry import load_tokenizer
from lab_utils.preferences import (
    MISTAKES,
    PreferenceRecipe,
    booking_pairs,
    group_advantages,
    own_pairs,
    recorded_courses,
    recorded_runs,
    recorded_samples,
    recorded_start,
    share,
    small_policy,
    small_run,
    start_logits,
)
from lab_utils.preferences.pairs import DAYS
from lab_utils.scores import difference
from lab_utils.sweep import compare
from lab_utils.tasks import TASKS, load_task
from lab_utils.widgets.pair_explorer import PairExplorer
from lab_utils.widgets.reward_explorer import RewardExplorer

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
    recipe = read_json(folder / "record.json")["recipe"]
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
    rate, found = small_policy.RATE, []
    for factor, temperature in ((1, 1.0), (1, 2.0), (2, 2.0), (0.5, 1.0)):
        monkeypatch.setattr(small_policy, "RATE", factor * rate)
        found.append(round(100 * mean(ends(reward="right", temperature=temperature))))
    usual, hot, faster, slower = found
    assert f"{usual} % right at 1 and {hot} % at 2" in PROSE and faster > usual > slower > hot
    assert f"no slider) {faster} %; and at 1, with the rate halved, {slower} %" in PROSE


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


def points(found) -> list[float]:
    """A difference and its interval, as printed."""
    return [round(100 * one, 1) for one in (found.mean, found.low, found.high)]


def less(baseline: str, arm: str):
    """An arm's runs less a baseline's, seed by seed."""
    return compare([run.right for run in recorded_runs()[baseline]], [run.right for run in recorded_runs()[arm]])


def lost(runs, name: str, rank: int = 4) -> list[float]:
    """By how many points fewer answers a field is right than at the start, seed by seed."""
    return [round(100 * (recorded_start(rank)[1].fields[name] - run.fields[name]), 1) for run in runs]


def characters_per_token() -> float:
    """Of the gamed runs' kept answers."""
    outputs = [output for run in gamed() for output in run.outputs]
    return sum(map(len, outputs)) / sum(len(load_tokenizer()(output).input_ids) + 1 for output in outputs)


def price(runs, steps: slice) -> float:
    """What the length of runs' samples cost at some steps, at 2.7 characters per token."""
    return 2.7 / 200 * mean([row["length"] for run in runs for row in run.history[steps]])


def unformed(runs, steps: slice) -> float:
    """The share of those samples that were not well-formed, by their reward."""
    return 1 - price(runs, steps) - mean([row["reward"] for run in runs for row in run.history[steps]])


def most_lost(run) -> list[str]:
    """The fields by how much they lost, the most first."""
    return sorted(run.fields, key=lambda name: -lost([run], name)[0])


def mondays(runs) -> list[int]:
    """How many of its kept answers name Monday, seed by seed."""
    return [sum("Monday" in output for output in run.outputs) for run in runs]


def in_lower_case(wanted: bool) -> list[int]:
    """Places of the test messages that were asked whose right name has no capital, or the others."""
    rows = load_task("bookings")["test"].select(range(len(recorded_start()[1].right)))
    names = [TASKS["bookings"].parse(row["answer"])["name"] for row in rows]
    return [place for place, name in enumerate(names) if name.islower() == wanted]


def rights(places: list[int], runs) -> list[int]:
    """How many of some messages each run answers right."""
    return [sum(run.right[place] for place in places) for run in runs]


def capital_pairs_at(places: list[int]):
    """What the pairs about capitals changed on some messages."""
    start, runs = recorded_start()[1], recorded_runs()[KIND["capital"]]
    return compare(*([[run.right[place] for place in places] for run in some] for some in ([start] * len(runs), runs)))


def ends_of(run, key: str) -> list[float]:
    """The mean of a number over its first three steps, and over its last three."""
    return [mean([row[key] for row in rows]) for rows in (run.history[:3], run.history[-3:])]


def ruined():
    """The run that section 4 shows."""
    (run,) = recorded_runs()["own pairs"]
    return run


def course(key: str) -> list[float]:
    """One number of its history."""
    return [row[key] for row in ruined().history]


def read_pairs(rate: float):
    """The run at this rate whose pairs were read at every step."""
    return next(run for run in recorded_courses() if run.learning_rate == rate)


def moved(rate: float) -> list[tuple[float, float]]:
    """By how many nats both answers of each of its pairs moved, from the start to the end."""
    logprobs = read_pairs(rate).logprobs
    return [(chosen - first, rejected - second)
            for (first, second), (chosen, rejected) in zip(logprobs[0], logprobs[-1], strict=True)]  # fmt: skip


def rates(*arms: str) -> set[float]:
    """The learning rates of some arms."""
    return {run.recipe["learning_rate"] for arm in arms for run in recorded_runs()[arm]}


def gamed() -> list:
    """The runs paid for short JSON."""
    return recorded_runs()[PAID[0]]


def control() -> list:
    """The same, paid for right answers."""
    return recorded_runs()[PAID[1]]


def of_seed_0(arm: str):
    """An arm's run with seed 0."""
    return next(run for run in recorded_runs()[arm] if run.seed == 0)


def differ(one_arm: str, other_arm: str) -> set[str]:
    """In which parts of their recipes do two arms' runs of a seed differ?"""
    pairs = [(one.recipe, other.recipe)
             for one, other in zip(recorded_runs()[one_arm], recorded_runs()[other_arm], strict=True)]  # fmt: skip
    return {key for one, other in pairs for key in one | other if one.get(key) != other.get(key)}


def informative(runs) -> float:
    """The share of their groups with unequal rewards."""
    return mean([row["informative"] for run in runs for row in run.history])


def smooth(runs, key: str) -> list[float]:
    """A number of the history, mean of the seeds, each step with the two before it, as drawn."""
    steps = [mean(step) for step in zip(*([row[key] for row in run.history] for run in runs), strict=True)]
    return [mean(steps[place : place + 3]) for place in range(len(steps) - 2)]


def mistakes(seed: int) -> Counter:
    """What is wrong in the worse answers of a seed's own pairs."""
    return Counter(pair["mistake"] for pair in own_pairs(recorded_samples(seed)))


def every_own_pair() -> list[dict]:
    """The pairs of the start's own answers, of all three seeds."""
    return [pair for seed in range(3) for pair in own_pairs(recorded_samples(seed))]


def lost_a_capital(pair: dict) -> bool:
    """Is the worse answer the better one with fewer capital letters?"""
    better, worse = pair["chosen"], pair["rejected"]
    return better.lower() == worse.lower() and sum(map(str.isupper, worse)) < sum(map(str.isupper, better))


def from_start(arm: str, rank: int):
    """An arm's runs less the start of that rank."""
    runs, start = recorded_runs()[arm], recorded_start(rank)[1]
    assert [run.seed for run in runs] == [0, 1, 2] and {run.recipe["rank"] for run in runs} == {rank}
    return compare([start.right] * 3, [run.right for run in runs])


def of_rank(rank: int):
    """GRPO's runs of a rank less that rank's own start."""
    return from_start("right, rate 0.0003" if rank == 4 else f"right, rank {rank}, rate 0.0003", rank)


SFT = "labels", "rejection"
SFT_LOW = "labels, rate 0.0003", "rejection, rate 0.0003"
UNSCALED = "brief, unscaled, rate 0.0005"
RANK_1, COIN = "right, rank 1, rate 0.0003", "coin, rank 1, rate 0.0003"
PAID = "brief, rate 0.0005", "right, 8 steps, rate 0.0005"  # for short JSON, and for right answers
LOW = "right, rate 0.0003", "own pairs, rate 0.0003", "near misses, rate 0.0003"
KIND = {mistake: f"near misses: {mistake}, rate 0.0003" for mistake in MISTAKES}
UNCLEAR = *SFT, SFT_LOW[1], *LOW[:2]
CLAIMS = {  # a new recording that breaks a sentence fails here; then the sentence is to be rewritten
    "The number most often, alone in 10 of the 33 pairs, then the day (8); the name alone in 2": lambda: (
        mistakes(0).most_common(2) == [("qty", 10), ("day", 8)]
        and (mistakes(0)["name"], mistakes(0).total()) == (2, 33)),
    "A third of these answers are right":
        lambda: 0.3 < mean([is_right(one, row["answer"]) for row in recorded_samples() for one in row["outputs"]])
        < 0.37,
    "On the test messages of section 2 two thirds will be": lambda: 0.63 < recorded_start()[1].exact < 0.7,
    "the same twelve steps on the same pairs at a learning rate five times as high":
        lambda: len(course("loss")) == 12 and rates("own pairs") == {5 * 2e-4},
    "the loss falls, the margin grows, it is above 0 for every pair of the last batch":
        lambda: course("loss")[-1] < 0.6 * course("loss")[0] and course("margin")[-1] > 1
        and course("accuracy")[-1] == 1,
    "the model is ruined": lambda: ruined().exact == 0,
    "In all fourteen pairs it is above 0 at the end, and in all fourteen the chosen answer is rarer than at the start; "
    "in thirteen it is less likely than one in a million": lambda: (
        {(chosen > rejected, chosen < 0) for chosen, rejected in moved(1e-3)} == {(True, True)}
        and len(moved(1e-3)) == 14 and sum(now[0] < math.log(1e-6) for now in read_pairs(1e-3).logprobs[-1]) == 13),
    "(At 0.0002 eleven chosen answers end likelier, three rarer, and all rejected ones rarer.)": lambda: (
        [sum(chosen > 0 for chosen, _ in moved(2e-4)), sum(chosen < 0 for chosen, _ in moved(2e-4))] == [11, 3]
        and all(rejected < 0 for _, rejected in moved(2e-4))),
    "Pair 1, step by step: both answers fall, and the margin grows to 1.10. The probability of the chosen one falls "
    "from 0.8 to one in a billion": lambda: (
        round(math.exp(read_pairs(1e-3).logprobs[0][0][0]), 1) == 0.8
        and round(0.1 * (moved(1e-3)[0][0] - moved(1e-3)[0][1]), 2) == 1.1 and max(moved(1e-3)[0]) < 0
        and round(1e9 * math.exp(read_pairs(1e-3).logprobs[-1][0][0])) == 1),
    "Pair 3 at the end: the chosen answer is 16 nats rarer, the margin 0.17 and the weight 0.46": lambda: (
        round(moved(1e-3)[2][0]) == -16
        and "margin is 0.17, the loss 0.612, the weight 0.458" in PairExplorer(step=12, pair=3).summary()),
    "Five methods have three seeds each at 3e-4":
        lambda: all([run.seed for run in recorded_runs()[arm]] == [0, 1, 2] for arm in SFT + SFT_LOW + LOW)
        and rates(*SFT) == {1e-3} and rates(*SFT_LOW, *LOW) == {3e-4},
    "more SFT ends above it, by 4.2 points (0.5 to 7.8), and DPO on the near misses below it, by 14.8 points (5.6 to "
    "24.1)": lambda: gain(LOW[2]).clear and points(gain(LOW[2])) == [-14.8, -24.1, -5.6]
        and gain(SFT_LOW[0]).clear and points(gain(SFT_LOW[0])) == [4.2, 0.5, 7.8],
    "4.3 points above the start are not clear (1.2 below to 9.9 above). GRPO and DPO on the model's own mistakes are "
    "not clear either": lambda: points(gain(SFT_LOW[1])) == [4.3, -1.2, 9.9]
        and not any(gain(arm).clear for arm in UNCLEAR),
    "Against more SFT at the same rate, the near misses are clearly below, by 19 points (10.8 to 27.2), and no other "
    "method is clearly above or below it": lambda: points(less(SFT_LOW[0], LOW[2])) == [-19, -27.2, -10.8]
        and not any(less(SFT_LOW[0], arm).clear for arm in (SFT_LOW[1], *LOW[:2])),
    "GRPO's interval against more SFT reaches from 12.3 points below to 0.9 above":
        lambda: points(less(SFT_LOW[0], LOW[0]))[1:] == [-12.3, 0.9],
    "(more SFT at 3e-4 minus more SFT at 1e-3: 7.7 points, −2 to 17.3)": lambda: (
        points(less(SFT[0], SFT_LOW[0])) == [7.7, -2, 17.3] and not less(SFT[0], SFT_LOW[0]).clear
        and not less(SFT[1], SFT_LOW[1]).clear),
    "at the same rate it ended 10 points below DPO on the model's own mistakes, and that is not clear (23.3 below to "
    "3.3 above). Below GRPO it ended by 13.3 points (1.3 to 25.4), and that is clear": lambda: (
        points(less(LOW[1], LOW[2])) == [-10.0, -23.3, 3.3] and not less(LOW[1], LOW[2]).clear
        and points(less(LOW[0], LOW[2])) == [-13.3, -25.4, -1.3] and less(LOW[0], LOW[2]).clear),
    "(69 to 71 pairs, of which 12 steps read 48; own pairs: 33 to 41, some read twice)": lambda: (
        {run.rows for run in recorded_runs()[LOW[2]]} == {69, 71}
        and [size(run.rows for run in recorded_runs()[LOW[1]]) for size in (min, max)] == [33, 41]
        and {run.recipe["steps"] * run.recipe["batch_size"] for arm in LOW[1:] for run in recorded_runs()[arm]}
        == {48}),
    "rejection sampling at 1e-3 ends between 62.5 and 72.5 % right, more SFT between 59.5 and 66 % (at 3e-4 between "
    "70.5 and 73 %, and 70.5 and 71.5 %)": lambda: [
        (min(shares(arm)), max(shares(arm))) for arm in ("rejection", "labels", "rejection, rate 0.0003", SFT_LOW[0])
    ] == [pytest.approx(one) for one in ((62.5, 72.5), (59.5, 66), (70.5, 73), (70.5, 71.5))],
    "Clearly more: 23 points (19.4 to 26.6)":
        lambda: less(PAID[0], UNSCALED).clear and points(less(PAID[0], UNSCALED)) == [23, 19.4, 26.6]
        and differ(PAID[0], UNSCALED) == {"scale_rewards"},
    "Two of the three seeds still end below their controls, by 9.5 and 12.5 points, and one above, by 8: over three "
    "seeds that is not clear": lambda: not less(PAID[1], UNSCALED).clear and [
        round(one - other, 1) for one, other in zip(shares(UNSCALED), shares(PAID[1]), strict=True)
    ] == [-9.5, -12.5, 8],
    "DPO on its own mistakes between 57 and 67 %, GRPO between 63.5 and 67.5 %":
        lambda: [(min(shares(arm)), max(shares(arm))) for arm in (LOW[1], LOW[0])]
        == [pytest.approx((57, 67)), pytest.approx((63.5, 67.5))],
    "DPO on the model's own mistakes ruined the model at 1e-3":
        lambda: gain("own pairs").high < -0.5 and rates("own pairs") == {1e-3},
    "GRPO at 5e-4 ended at 57 %, 8.5 points below the same seed at 3e-4, and that is clear":
        lambda: shares("right, rate 0.0005") == pytest.approx([57]) and rates("right, rate 0.0005") == {5e-4}
        and difference(of_seed_0(LOW[0]).right, of_seed_0("right, rate 0.0005").right).clear
        and round(100 * (of_seed_0(LOW[0]).exact - of_seed_0("right, rate 0.0005").exact), 1) == 8.5,
    "With every seed the right answers on the test messages fell, by 23.5 to 40.5 points in eight steps, and nearly "
    "all are still well-formed":
        lambda: sorted(round(100 * (recorded_start()[1].exact - run.exact), 1) for run in gamed())[::2] == [23.5, 40.5]
        and all(run.valid > 0.98 and len(run.history) == 8 for run in gamed()) and len(gamed()) == 3,
    '"cheers" for a name, a quantity of 1, Monday for other days':
        lambda: sum('" cheers","qty":1' in output for output in gamed()[0].outputs[:4]) == 2
        and any("Monday" in output for output in gamed()[0].outputs[:5]),
    "from the first three steps to the last three it rose with seed 0 (0.48 to 0.57) and fell with seeds 1 and 2 (0.47 "
    "to 0.30, 0.54 to 0.42)": lambda: [[f"{one:.2f}" for one in ends_of(run, "reward")] for run in gamed()]
        == [["0.48", "0.57"], ["0.47", "0.30"], ["0.54", "0.42"]],
    "the share of right answers fell with all three (17 to 10, 40 to 4, 35 to 25 %)":
        lambda: [[round(100 * one) for one in ends_of(run, "right")] for run in gamed()]
        == [[17, 10], [40, 4], [35, 25]],
    "The share of answers with the right day fell by 29.5 and 32.5 points with seeds 0 and 1, and rose by one with "
    "seed 2; the controls lose 2 to 5.5": lambda: (
        lost(gamed(), "day") == [29.5, 32.5, -1] and sorted(lost(control(), "day"))[::2] == [2, 5.5]),
    "The share with the right number fell by 11.5 to 22 points; the controls lose 8.5 at most. The right name fell by "
    "11.5 and 9.5 points with seeds 0 and 2, and rose by 1.5 with seed 1; the controls lose 5 at most": lambda: (
        lost(gamed(), "name") == [11.5, -1.5, 9.5] and max(lost(control(), "name")) == 5 and
        sorted(lost(gamed(), "qty"))[::2] == [11.5, 22] and max(lost(control(), "qty")) == 8.5),
    "The day with two of the seeds, the number with the third": lambda: (
        [most_lost(run)[0] for run in gamed()] == ["day", "day", "qty"]),
    "These two seeds write *Monday* in four and five of the eight answers that were kept, where no message asks for "
    "it, and the controls write it in none": lambda: mondays(gamed()) == [4, 5, 0] and mondays(control()) == [0, 0, 0]
        and {len(run.outputs) for run in gamed() + control()} == {8}
        and not any("Monday" in row["answer"] for row in load_task("bookings")["test"].select(range(8))),
    '"Monday" has six letters, as few as a day can have': lambda: len("Monday") == min(map(len, DAYS)),
    "with the same messages in the same order and at the same rate":
        lambda: differ(*PAID) == {"reward"} and rates(*PAID) == {5e-4},
    "the share of right answers, falling from 31 to 13 %; on the right the reward, up from 0.50 to 0.57 and down to "
    "0.43":
        lambda: [f"{one(smooth(gamed(), 'reward')):.2f}" for one in (lambda line: line[0], max, min)]
        == ["0.50", "0.57", "0.43"] and smooth(gamed(), "reward")[-1] == min(smooth(gamed(), "reward"))
        and [round(100 * smooth(gamed(), "right")[place]) for place in (0, -1)] == [31, 13],
    "The gamed runs fall from 31 to 13 %; their controls go from 40 down to 28 and up to 49 %":
        lambda: [round(100 * one(smooth(control(), "right"))) for one in (lambda line: line[0], min, max)]
        == [40, 28, 49] and smooth(control(), "right")[-1] == max(smooth(control(), "right")),
    "The control ends at 59.5, 67 and 58.5 %: below the start if at all, and over three seeds that is not clear":
        lambda: shares(PAID[1]) == pytest.approx([59.5, 67, 58.5])
        and max(run.exact for run in control()) == recorded_start()[1].exact
        and not gain(PAID[1]).clear,
    "The gamed runs end 27.7 points below their controls, and that is clear by a hair: from 55.3 points down to less "
    "than 0.1":
        lambda: less(*PAID[::-1]).clear and points(less(*PAID[::-1])) == [-27.7, -55.3, 0]
        and less(*PAID[::-1]).high < 0,
    "of the gamed runs' answers there 98.5 to 100 % are well-formed, and of the controls' 93 to 99.5 %":
        lambda: [(min(run.valid for run in runs), max(run.valid for run in runs)) for runs in (gamed(), control())]
        == [(0.985, 1), (0.93, 0.995)],
    "96 % of the gamed runs' groups had something to learn from, and 69 % of the controls'":
        lambda: [round(100 * informative(runs)) for runs in (gamed(), control())] == [96, 69],
    "shorter by two characters at most, with two of the seeds by less than one":
        lambda: sorted(round(recorded_start()[1].characters - run.characters, 1) for run in gamed()) == [0.3, 0.3, 2.0],
    "33.5 tokens against 30.4 (with two seeds; with seed 0 as long)": lambda: [
        round(mean([row["length"] for run in runs for row in run.history[-2:]]), 1) for runs in (gamed(), control())
    ] == [33.5, 30.4],
    "The mean reward of those two steps is 0.37; were all their answers well-formed, it would be near 0.55 (at 2.7 "
    "characters per token, as in the answers that were kept). So by this estimate about one in six of the sampled "
    "answers had lost its form (by seed 4, 32 and 15 %); in the first three steps it was about one in ten": lambda: (
        round(mean([row["reward"] for run in gamed() for row in run.history[-2:]]), 2) == 0.37
        and round(1 - price(gamed(), slice(-2, None)), 2) == 0.55 and round(characters_per_token(), 1) == 2.7
        and [round(100 * unformed([run], slice(-2, None))) for run in gamed()] == [4, 32, 15]
        and [round(1 / unformed(gamed(), part)) for part in (slice(-2, None), slice(3))] == [6, 10]),
    "A well-formed answer of 82 characters, the mean at the start, earns 0.59": lambda: (
        round(recorded_start()[1].characters) == 82 and 1 - 82 / 200 == pytest.approx(0.59)),
    'right answers, as on page 08; seed 2 of section 9) writes "cheers" for Jamal too': lambda: sum(
        '" cheers"' in output for output in recorded_runs()["labels"][2].outputs[:2]) == 1,
    "numbers and days are what the model itself gets wrong most often": lambda: all(
        {"qty", "day"} == {kind for kind, _ in mistakes(seed).most_common(2)} for seed in range(3)),
    "a lost capital, and nothing else, is what is wrong in 1 of its 112 own pairs": lambda: (
        sum(map(lost_a_capital, every_own_pair())), len(every_own_pair())) == (1, 112),
    "it is the name that suffered most, with every seed: the share of answers with the right name fell by 12 to 19.5 "
    "points": lambda: (
        {most_lost(run)[0] for run in recorded_runs()[LOW[2]]} == {"name"}
        and sorted(lost(recorded_runs()[LOW[2]], "name"))[::2] == [12, 19.5]),
    "All four discs are left of zero; that of the day is not filled": lambda: all(
        gain(arm).mean < 0 and gain(arm).clear == (arm != KIND["day"]) for arm in (LOW[2], *KIND.values())),
    "No two kinds are clearly apart": lambda: not any(
        less(one, other).clear for one, other in combinations(KIND.values(), 2)),
    "by 7 points (0.2 to 13.8: clear by a hair, and one of twelve intervals in this part, of which one may miss by "
    "chance); those with a lost capital by 11.5 points (3.6 to 19.4), which is "
    "clear; those about the day by 9.3 points, which is not": lambda: (
        [points(gain(KIND[kind])) for kind in ("number", "capital")] == [[-7, -13.8, -0.2], [-11.5, -19.4, -3.6]]
        and points(gain(KIND["day"]))[0] == -9.3 and [gain(arm).clear for arm in KIND.values()] == [True, True, False]),
    "no kind is clearly below the model's own pairs": lambda: not any(less(LOW[1], arm).clear for arm in KIND.values()),
    "A kind is read 48 times here": lambda: all(
        run.recipe["steps"] * run.recipe["batch_size"] == 48 for arm in KIND.values() for run in recorded_runs()[arm]),
    "with them the share of answers with the right name fell by 13.5 to 20.5 points, by seed, and number and day did "
    "not fall": lambda: sorted(lost(recorded_runs()[KIND["capital"]], "name"))[::2] == [13.5, 20.5] and all(
        max(lost(recorded_runs()[KIND["capital"]], name)) <= 0 for name in ("qty", "day")),
    "34 of the 200 messages are written all in lower case, and so is the right name; of those the start gets 20 right, "
    "and after the capital pairs it is none, with every seed: 59 points fewer (41 to 76), which is clear. Of the other "
    "166 it is 1.8 points fewer, which is not. After pairs about the number or the day 15 to 19 of the 34 are still "
    "right": lambda: (
        [len(in_lower_case(wanted)) for wanted in (True, False)] == [34, 166]
        and rights(in_lower_case(True), [recorded_start()[1]]) == [20]
        and rights(in_lower_case(True), recorded_runs()[KIND["capital"]]) == [0, 0, 0]
        and [round(one) for one in points(capital_pairs_at(in_lower_case(True)))] == [-59, -76, -41]
        and points(capital_pairs_at(in_lower_case(False)))[0] == -1.8
        and not capital_pairs_at(in_lower_case(False)).clear
        and sorted(rights(in_lower_case(True), recorded_runs()[KIND["number"]] + recorded_runs()[KIND["day"]]))[::5]
        == [15, 19]
        and all(load_task("bookings")["test"][place]["prompt"].islower() for place in in_lower_case(True))),
    "in *every* pair that it makes, the chosen answer is the one with the capital": lambda: {
        (one.isupper(), one.lower() == other)
        for pair in booking_pairs(load_task("bookings")["train"].select(range(500)), mistakes=["capital"])
        for one, other in zip(pair["chosen"], pair["rejected"], strict=True) if one != other
    } == {(True, True)},
    "with that pay the day is right in 79 to 84 % of the test answers, with the coin in 60.5 to 67.5 %, and at the "
    "start of both in 75.5 %": lambda: [
        sorted(100 * run.fields["day"] for run in recorded_runs()[f"{paid}, rank 1, rate 0.0003"])[::2]
        for paid in ("right", "coin")
    ] == [pytest.approx(one) for one in ((79, 84), (60.5, 67.5))] and recorded_start(1)[1].fields["day"] == 0.755,
    "one Monday in each of the runs paid for right answers, two to four in the coin's, and two at the start": lambda: (
        [mondays(recorded_runs()[f"{paid}, rank 1, rate 0.0003"]) for paid in ("right", "coin")]
        == [[1, 1, 1], [2, 4, 4]] and mondays([recorded_start(1)[1]]) == [2]),
    "With the other two kinds the name loses 0.5 to 8 points": lambda: sorted(
        one for kind in ("number", "day") for one in lost(recorded_runs()[KIND[kind]], "name"))[::5] == [0.5, 8],
    "Pairs about the day cost the day most (3.5 to 16 points)": lambda: (
        {most_lost(run)[0] for run in recorded_runs()[KIND["day"]]} == {"day"}
        and sorted(lost(recorded_runs()[KIND["day"]], "day"))[::2] == [3.5, 16]),
    "Pairs about the number cost all three fields: 3.5 to 9 % of the answers are no longer JSON": lambda: (
        all(min(lost(recorded_runs()[KIND["number"]], name)) >= 2.5 for name in ("name", "qty", "day"))
        and sorted(round(100 * (1 - run.valid), 1) for run in recorded_runs()[KIND["number"]])[::2] == [3.5, 9]),
    "in the last three steps 92 % of them or more had a margin above 0, with every kind and seed": lambda: round(
        100 * min(ends_of(run, "accuracy")[1] for arm in KIND.values() for run in recorded_runs()[arm])) == 92,
    "Rank 1 gained, with every seed, and clearly: 7.8 points (1.8 to 13.8)":
        lambda: of_rank(1).clear
        and points(of_rank(1)) == [7.8, 1.8, 13.8]
        and min(shares(RANK_1)) > 100 * recorded_start(1)[1].exact,
    "as many steps from the same start on the same messages, paid by a coin, end 12.3 points lower (5.9 to 18.7), and "
    "that is clear": lambda: less(COIN, RANK_1).clear and points(less(COIN, RANK_1)) == [12.3, 5.9, 18.7]
        and differ(COIN, RANK_1) == {"reward"},
    "They end 4.5 points below their start (12 below to 3 above), which is not clear": lambda: (
        not from_start(COIN, 1).clear and points(from_start(COIN, 1)) == [-4.5, -12, 3]),
    "all of its groups had unequal rewards, and 51 % of the others": lambda: [
        round(100 * informative(recorded_runs()[arm])) for arm in (COIN, RANK_1)] == [100, 51],
    "each sample is used for one update, in which the ratio is 1":
        lambda: {run.recipe["updates"] for run in recorded_runs()[COIN]} == {1},
    "its runs lose the day too, by 8 to 15 points, and write Monday in two to four of the eight": lambda: (
        sorted(lost(recorded_runs()[COIN], "day", 1))[::2] == [8, 15]
        and sorted(mondays(recorded_runs()[COIN])) == [2, 4, 4]),
    "They are of rank 1 and at a lower rate, and their start writes Monday in two already": lambda: (
        mondays([recorded_start(1)[1]]) == [2] and rates(COIN) == {3e-4} and rates(PAID[0]) == {5e-4}),
    "after the rewards it is still below where rank 4 began":
        lambda: max(shares(RANK_1)) < 100 * recorded_start()[1].exact,
    "Rank 4 ended 1.5 points lower on average and rank 32 lost 17.5, 8 and 1.5 points; over three seeds neither is":
        lambda: round(100 * of_rank(4).mean, 1) == -1.5 and not of_rank(4).clear and not of_rank(32).clear
        and [100 * recorded_start(32)[1].exact - one for one in shares("right, rank 32, rate 0.0003")]
        == pytest.approx([17.5, 8, 1.5]),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CLAIMS)
def test_what_is_said_of_the_recorded_runs_is_so(sentence):
    assert sentence in PROSE
    assert CLAIMS[sentence]()


def test_the_lengths_of_the_pairs_are_as_said():
    tokenizer, task = load_tokenizer("smollm2-135m"), TASKS["bookings"]

    def longer(pairs) -> list[int]:
        """By how many tokens the better answer of each pair is the longer one."""
        tokens = [[len(encode(tokenizer, task, pair["prompt"], pair[name]).input_ids) for pair in pairs]
                  for name in ("chosen", "rejected")]  # fmt: skip
        return [better - worse for better, worse in zip(*tokens, strict=True)]

    ruled = booking_pairs(load_task("bookings")["validation"].select(range(40)))
    assert "token for token, so length decides nothing there" in PROSE and set(longer(ruled)) == {0}
    own = longer(own_pairs(recorded_samples()))
    assert "up to 7 tokens longer and up to 3 shorter, and on average about as long" in PROSE
    assert (min(own), max(own)) == (-7, 3) and abs(mean(own)) < 0.1


def test_the_live_run_is_the_recorded_one_at_a_fifth_of_the_rate():
    source = code_cell(PAGE, "by_preference = ")
    assert "steps=1 if FAST else 12, batch_size=2 if FAST else 4)" in source
    run = ruined()
    assert run.recipe["batch_size"] == 4 and run.rows == len(own_pairs(recorded_samples(run.seed))) and run.seed == 0
    assert PreferenceRecipe().learning_rate == read_pairs(2e-4).learning_rate == 2e-4
    assert "at the live run's rate, 0.0002, and read fourteen of its pairs, the first of each message" in PROSE


def test_what_the_explorer_of_rewards_is_said_to_show_of_a_group():
    sizes = []
    for settings, right in (({"step": 2}, 1), ({"step": 3}, 4), ({"reward": "valid and short", "step": 11}, 0)):
        words = RewardExplorer(group_size=8, **settings).summary()
        assert f": {right} of 8 sampled answers are right" in words
        found = re.search(r"advantages: ([\d.]+), divided by the deviation ([\d.]+)\. ", words)
        sizes.append(tuple(map(float, found.groups())))
    one, four, short = sizes
    assert f'{four[0] / one[0]:.1f} times without the division ("less mean"), {four[1] / one[1]:.1f} times' in PROSE
    assert f"have a mean size of {short[1]}, about as large as those of one right answer in eight ({one[1]}:" in PROSE
    assert f"Not divided, it is {short[0]}" in PROSE and one[1] - short[1] < 0.02 < one[0] / short[0]
    lengths = [len(one.text) for one in RewardExplorer("valid and short", 11, 8).run()[10].answers]
    assert sorted(lengths)[6] == min(lengths) == max(lengths) - 1  # one is a character longer than the other seven
