"""What page 15 says in prose and does not compute: of the recorded adapter, of rates, of its runs."""

import csv
import json
import math
from itertools import pairwise
from statistics import fmean

import pytest
from page_prose import code_cell, prose

from lab_utils import facts, retention
from lab_utils.finetune import Recipe
from lab_utils.folders import DATA
from lab_utils.retention.arms import REPLAY
from lab_utils.sweep import TABLE, compare
from lab_utils.tasks import load_task

PAGE = "15_what_it_forgot.ipynb"
PROSE = prose(PAGE)
RUNS = retention.load_forgetting()
CURES = ("a quarter of the rate", "replay", "KL")
METHODS = ("LoRA r=1", "LoRA r=8", "LoRA r=32", "LoRA r=64", "LoRA r=128", "LoRA r=8, bfloat16", "full")


def test_the_recorded_adapter_is_the_one_that_the_page_describes():
    recipe = json.loads((DATA / "adapters" / "bookings" / "record.json").read_text())["recipe"]
    assert f"rank {recipe['rank']}, {recipe['steps']} steps of four messages" in PROSE and recipe["batch_size"] == 4
    assert recipe["steps"] > 5 * RUNS["LoRA r=8"][0].steps  # "more than five times as long"


def test_the_rates_are_the_best_of_those_that_were_tried():
    with open(TABLE, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "bookings" and row["method"] == "adapter"]
    plain = {"rank": "8", "alpha": "16", "quantization": "nf4", "target_modules": "all-linear", "steps": "32",
             "batch_size": "4", "train_examples": "128", "dropout": "0"}  # fmt: skip
    found: dict[float, list[float]] = {}
    for row in rows:
        if all(row[name] == value for name, value in plain.items()):
            found.setdefault(float(row["learning_rate"]), []).append(float(row["validation_loss"]))
    assert sorted(found) == [5e-4, 2e-3, 8e-3] and min(found, key=lambda rate: fmean(found[rate])) == 2e-3
    for arm, runs in RUNS.items():
        changed = "rate" in arm
        expected = 1e-4 if arm.startswith("full") else 2e-3
        assert changed or {run.learning_rate for run in runs} == {expected}, arm


def test_every_run_is_of_the_same_budget_and_reads_the_same_texts():
    runs = [run for some in RUNS.values() for run in some]
    assert {run.steps for run in runs} == {32} and {tuple(run.at) for run in runs} == {(0, 8, 16, 32)}
    for run in runs:
        assert run.before.mean("skill") > 2 > run.after.mean("skill")
        base = next((arm for arm in ("full", "LoRA r=8, bfloat16") if run.arm.startswith(arm)), "LoRA r=8")
        assert run.before.losses == RUNS[base][0].before.losses


def test_what_the_prose_says_of_the_runs_is_so():
    """No intruders as trained; a random adapter hardly noticed; half the strength keeps nearly all of the skill."""
    eight = RUNS["LoRA r=8"]
    assert all(len(run.strengths) == 7 and run.random for run in eight)
    for run in eight:
        assert abs(run.random.mean("skill") - run.before.mean("skill")) < 0.05 < run.before.mean("skill")
    lower = [run for arm, runs in RUNS.items() if "r=128" not in arm for run in runs]
    assert min(one for run in lower for some in run.cosines.values() for one in some) >= 0.5
    size = {arm: fmean(one for run in runs for one in run.relative_updates.values()) for arm, runs in RUNS.items()}
    cost = {arm: retention.risen(runs, "questions").mean for arm, runs in RUNS.items()}
    for arm in ("random labels", "replay", "KL"):  # "updates about as large as rank 8's, and very different prices"
        assert size[arm] == pytest.approx(size["LoRA r=8"], rel=0.15)
    assert max(cost["replay"], cost["KL"]) < cost["LoRA r=8"] < cost["random labels"]


def test_at_these_rates_full_fine_tuning_forgot_less_than_rank_8_at_equal_skill():
    """And more at twice its rate than at its own."""
    compared = [run for arm in ("LoRA r=1", "LoRA r=8", "LoRA r=64", "full") for run in RUNS[arm]]
    target = max(run.after.mean("skill") for run in compared)
    for kind in retention.KINDS[1:]:
        rises = [[[b - a for a, b in zip(run.before.losses[kind], retention.at_skill(run, target)[kind], strict=True)]
                  for run in RUNS[arm]] for arm in ("LoRA r=8", "full")]  # fmt: skip
        assert retention.change(*rises).high < 0
        assert retention.risen(RUNS["full, twice the rate"], kind).mean > retention.risen(RUNS["full"], kind).mean


def test_the_base_alone_does_not_explain_it():
    """Rank 8 on the base that full fine-tuning starts from: the two read it alike, and full forgot less than it."""
    on_it, start = RUNS["LoRA r=8, bfloat16"], RUNS["full"][0].before
    assert len(on_it) == 3
    assert all(abs(on_it[0].before.mean(kind) - start.mean(kind)) < 0.02 for kind in retention.KINDS)
    target = common_loss()

    def at_target(run):
        return retention.at_skill(run, target)

    full, base = (retention.apart(*(RUNS[arm] for arm in pair), at_target) for pair in
                  (("LoRA r=8, bfloat16", "full"), ("LoRA r=8", "LoRA r=8, bfloat16")))  # fmt: skip
    assert all(full[kind].high < 0 and not base[kind].clear for kind in retention.KINDS[1:])
    assert "full fine-tuning has again forgotten less on all three" in PROSE
    assert "rank 8 on the one base and on the other are not clearly apart" in PROSE


def less(arm: str, kind: str, target: float):
    """How far an arm's loss is from plain rank 8's at equal skill, on the seeds that both have."""
    sides = [{run.seed: run for run in RUNS[name]} for name in ("LoRA r=8", arm)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    return retention.change(*([retention.at_skill(side[seed], target)[kind] for seed in seeds] for side in sides))


def test_what_helps_is_what_the_page_says():
    """At equal skill; half strength and the last step beside the same runs stopped at step 16."""
    target = max(run.after.mean("skill") for arm in ("LoRA r=8", *CURES) for run in RUNS[arm])
    clear = {arm: {kind for kind in retention.KINDS[1:] if less(arm, kind, target).high < 0} for arm in CURES}
    assert clear == {arm: set(retention.KINDS[1:]) for arm in CURES} and {len(RUNS[arm]) for arm in CURES} == {3}
    eight = RUNS["LoRA r=8"]

    def since_step_16(kind: str, losses):
        return retention.change([run.at[16].losses[kind] for run in eight], [losses(run)[kind] for run in eight])

    half = {kind: since_step_16(kind, lambda run: run.strengths[0.5].losses) for kind in retention.KINDS}
    assert {kind for kind, one in half.items() if one.high < 0} == {"prose", "style"} and half["skill"].low < 0
    more = {kind: since_step_16(kind, lambda run: run.after.losses) for kind in retention.KINDS}
    assert more["skill"].high < 0 and all(one.low < 0 for one in more.values())
    for sentence in ("each clearly below plain rank 8 on all three kinds", "no kind of text got clearly worse"):
        assert sentence in PROSE


def test_rank_1_forgot_less_than_rank_8_and_64_is_not_clear():
    compared = [run for arm in ("LoRA r=1", "LoRA r=8", "LoRA r=64", "full") for run in RUNS[arm]]
    target = max(run.after.mean("skill") for run in compared)
    for kind in retention.KINDS[1:]:
        assert less("LoRA r=1", kind, target).high < 0
        assert less("LoRA r=64", kind, target).low < 0 < less("LoRA r=64", kind, target).high


def test_rank_128_forgot_more_than_rank_8_at_one_rate_and_has_intruders():
    """At equal skill, from the same base; the same rate moves its weights four times as far."""
    one, other = RUNS["LoRA r=8"], RUNS["LoRA r=128"]
    target = common_loss()
    found = retention.apart(one, other, lambda run: retention.at_skill(run, target))
    assert len(other) == 3 and all(found[kind].low > 0 for kind in retention.KINDS[1:])
    assert {run.learning_rate for run in other} == {run.learning_rate for run in one}
    sizes = [fmean(size for run in runs for size in run.relative_updates.values()) for runs in (one, other)]
    assert sizes[1] / sizes[0] == pytest.approx(4, abs=0.5) and "its update is four times as large as rank 8's" in PROSE
    assert "32 more on questions and style, and 128 more on all three; 64 against 8 is not clear on any" in PROSE
    middle = retention.apart(one, RUNS["LoRA r=32"], lambda run: retention.at_skill(run, target))
    assert len(RUNS["LoRA r=32"]) == 3
    assert {kind for kind in retention.KINDS[1:] if middle[kind].low > 0} == {"questions", "style"}
    assert not middle["prose"].clear
    worst = [min(some) for run in other for some in run.cosines.values()]
    assert f"an intruder in {sum(one < 0.5 for one in worst)} of {len(worst)} of them" in PROSE
    costs = {arm: retention.risen(runs, "prose").mean for arm, runs in RUNS.items()}
    assert max(costs, key=costs.get) == "LoRA r=128"


def test_forgetting_here_is_not_overfitting():
    """No message is seen twice, by the recorded adapter nor, with fewer steps, by the short runs."""
    recipe = json.loads((DATA / "adapters" / "bookings" / "record.json").read_text())["recipe"]
    rows = len(load_task("bookings")["train"])
    seen = recipe["steps"] * recipe["batch_size"]
    assert f"Each of its {seen} messages was seen once" in PROSE and seen <= rows and recipe["train_examples"] is None


def test_what_is_said_of_the_controls_and_of_rank_64_at_equal_steps_is_so():
    eight, labels = RUNS["LoRA r=8"], RUNS["random labels"]
    for kind in retention.KINDS:
        before, after = ([one.losses[kind] for one in some] for some in
                         ((run.before for run in eight), (run.random for run in eight)))  # fmt: skip
        assert not retention.change(before, after).clear
    part = retention.risen(labels, "skill")
    whole = retention.risen(eight, "skill").mean
    assert "(by the interval, between half and four fifths)" in PROSE and len(labels) == 3
    assert 0.5 < part.high / whole < part.low / whole < 0.8
    falls = [[run.before.mean("skill") - run.after.mean("skill") for run in some] for some in (labels, eight)]
    told = "seed by seed {}, {} and {} % of it".format(*(round(100 * a / b) for a, b in zip(*falls, strict=True)))
    assert told in PROSE and part.mean / whole == pytest.approx(2 / 3, abs=0.01)  # "two thirds of the fall"
    exact = sorted(round(100 * run.after.exact) for run in eight)
    assert f"with any seed; trained, {exact[0]} to {exact[-1]} % are" in PROSE
    assert not any(one for run in labels for one in run.after.right) and len(labels[0].after.right) == 32
    assert all(retention.risen(labels, kind).low > 0 for kind in retention.KINDS[1:])
    price = retention.apart(eight, labels, lambda run: run.after.losses)
    assert price["questions"].low > 0 and not price["prose"].clear and not price["style"].clear
    assert "cost more on questions, clearly over three seeds; on prose and style that difference is not clear" in PROSE
    assert "at equal steps rank 64 forgot clearly on all three kinds" in PROSE
    assert all(retention.risen(RUNS["LoRA r=64"], kind).low > 0 for kind in retention.KINDS[1:])


def test_about_two_thirds_are_answered_letter_by_letter_at_strength_1():
    assert "At strength 1 about two thirds of the messages are answered letter by letter" in PROSE
    assert 0.6 < fmean(run.strengths[1.0].exact for run in RUNS["LoRA r=8"]) < 0.73


def test_the_lead_of_full_fine_tuning_at_other_losses():
    """Against rank 8 on its own base it is clear at all of them; against the 4-bit one only at the earliest."""
    target = common_loss()
    early = [run for arm in METHODS for run in RUNS[arm] if run.at[8].mean("skill") < target]
    assert len(early) == 7 and sum(len(RUNS[arm]) for arm in METHODS) == 21
    assert "seven of the twenty-one runs at the first rates were there before step 8" in PROSE
    assert "on all three, at 0.09 and 0.06 as at 0.146" in PROSE and round(target, 3) == 0.146
    for loss in (target, 0.09, 0.06):
        own, four_bits = (retention.apart(RUNS[arm], RUNS["full"], lambda run, loss=loss: retention.at_skill(run, loss))
                          for arm in ("LoRA r=8, bfloat16", "LoRA r=8"))  # fmt: skip
        assert all(own[kind].high < 0 > four_bits[kind].mean for kind in retention.KINDS[1:])
        assert all(four_bits[kind].clear for kind in retention.KINDS[1:]) == (loss == target)


def moment(run, target: float) -> float:
    """The step at which a run's loss on the skill is the target, on straight lines between its checkpoints."""
    for before, after in zip(run.at, list(run.at)[1:], strict=False):
        high, low = run.at[before].mean("skill"), run.at[after].mean("skill")
        if high >= target >= low:
            return before + (after - before) * (high - target) / (high - low)
    return math.nan


def first_below(run, target: float, share: list[float]) -> int:
    """Whole steps before the loss on the skill is the target, if it falls from step 16 on in proportion to the rate."""
    high, low = run.at[16].mean("skill"), run.at[32].mean("skill")
    parts = [sum(share[16:step]) / sum(share[16:]) for step in range(16, 33)]
    return 16 + max(place for place, part in enumerate(parts) if high - part * (high - low) > target)


def test_what_is_said_of_the_moments_in_the_schedule_is_so():
    recipe, eight = Recipe(steps=32, learning_rate=2e-3), RUNS["LoRA r=8"]
    share = [recipe.learning_rate_at(step) / recipe.learning_rate for step in range(32)]
    assert share[:3] == pytest.approx([0.5, 1, 1]) and share[31] < 0.01 and 0.5 < share[16] < 0.6
    target = common_loss()
    there = [first_below(run, target, share) for run in RUNS["LoRA r=1"]]
    assert there == [22, 23, 31] and RUNS["LoRA r=1"][2].after.mean("skill") == target
    assert [round(share[step], 2) for step in there[:2]] == [0.25, 0.21]
    assert "there after steps 22 and 23, with a quarter and a fifth of the rate left" in PROSE
    assert "after step 27" in PROSE and all(moment(run, target) > 27 for run in RUNS["LoRA r=1"])
    assert "between steps 10 and 13" in PROSE and all(10 < moment(run, target) < 13 for run in eight)
    assert share[12] > 0.749 and share[27] < 0.1
    slowest = max(run.after.mean("skill") for arm in ("LoRA r=8", *CURES) for run in RUNS[arm])
    found = [moment(run, slowest) for run in eight]
    assert "near step 9" in PROSE and abs(fmean(found) - 9) < 0.5 and share[int(max(found))] > 0.8
    assert all(moment(run, slowest) > 29 for run in RUNS["a quarter of the rate"])  # "at its last steps"


def test_replay_and_kl_are_below_plain_rank_8_step_by_step():
    def clear(arm: str, step: int) -> set[str]:
        found = retention.apart(RUNS["LoRA r=8"], RUNS[arm], lambda run: run.at[step].losses)
        return {kind for kind, one in found.items() if one.high < 0}

    every = {"prose", "questions", "style"}
    assert [clear("replay", step) for step in (8, 16, 32)] == [every, {"prose"}, {"prose", "questions"}]
    assert [clear("KL", step) for step in (8, 16, 32)] == [every, {"prose", "style"}, every]
    assert "on all three kinds after 8 steps, on prose alone after 16, and on prose and questions after 32" in PROSE
    assert "KL on all three after 8, on prose and style after 16, and on all three after 32" in PROSE


def common_loss() -> float:
    """The loss on the skill that the slowest run of section 5 ended with."""
    return max(run.after.mean("skill") for arm in METHODS for run in RUNS[arm])


def at_common_loss(one: str, other: str) -> dict:
    """The second arm's rises less the first's where each has learned as much as the slowest run."""
    loss = common_loss()
    return retention.apart(RUNS[one], RUNS[other], lambda run: retention.at_skill(run, loss))


def test_at_twice_its_rate_full_fine_tuning_is_ahead_of_rank_8_on_its_base_on_prose_alone():
    assert len(RUNS["full, twice the rate"]) == 3
    found = at_common_loss("LoRA r=8, bfloat16", "full, twice the rate")
    assert found["prose"].high < 0 and round(found["prose"].mean, 1) == -0.1
    assert not found["questions"].clear and not found["style"].clear
    assert "on the same base on prose alone, by a tenth of a nat, and on questions and style not clearly" in PROSE


def test_rank_128_at_half_the_rate_forgot_less_than_at_the_full_one_and_is_not_clearly_apart_from_rank_8():
    assert len(RUNS["LoRA r=128, half the rate"]) == 3
    less = at_common_loss("LoRA r=128", "LoRA r=128, half the rate")
    other = at_common_loss("LoRA r=8", "LoRA r=128, half the rate")
    assert all(less[kind].high < 0 and 0.9 < -less[kind].mean < 2.1 for kind in ("prose", "questions", "style"))
    assert not any(other[kind].clear for kind in ("prose", "questions", "style"))
    assert "clearly less than at the full rate on all three kinds of text, by one to two nats" in PROSE
    assert "Rank 1 at twice and rank 128 at half its rate are not clearly apart from rank 8 on any kind" in PROSE


def test_what_is_said_of_many_epochs_is_so():
    few = retention.load_epochs()["50 messages, 20 epochs"]
    points = [retention.by_epoch(run) for run in few]
    assert [run.seed for run in few] == [0, 1] and [len(run) for run in points] == [20, 20]
    assert all(run[-1]["training"] < 3.1e-4 for run in points)
    assert all(min(run, key=lambda point: point["validation"])["epoch"] == 2 for run in points)
    told = [[f"{run[epoch]['validation']:.3f}" for run in points] for epoch in (1, -1)]
    assert "lowest after two epochs, {} and {}, and at the end {} and {}".format(*told[0], *told[1]) in PROSE
    exact = [[round(100 * run[epoch]["exact"]) for run in points] for epoch in (1, -1)]
    told = "letter by letter {} and {} % are right after epoch 2, and {} and {} % at"
    assert told.format(*exact[0], *exact[1]) in PROSE
    worst = [point["validation"] for point in points[1]]
    assert max(worst[1:]) == worst[3] == pytest.approx(2 * worst[1], rel=0.03)  # "twice as much at epoch 4"
    level = [fmean(run[place]["validation"] for run in points) for place in range(7, 20)]
    assert max(level) - min(level) < 0.005 and "level from epoch 8 on" in PROSE
    for run in few:
        at_lowest = run.at[points[0][1]["step"]].losses
        later = retention.apart([run], [run], lambda run, before=at_lowest: before, lambda run: run.after.losses)
        assert [later[kind].clear for kind in ("skill", "prose", "questions", "style")] == [False, False, True, True]
        assert all(0.4 <= round(later[kind].mean, 1) <= 0.8 for kind in ("questions", "style"))
    assert "questions and style have paid clearly more with either seed, by 0.4 to 0.8 nats; for prose it is" in PROSE
    paid = [[texts.mean("questions") - run.before.mean("questions") for texts in (run.at[25], run.after)]
            for run in few]  # fmt: skip
    told = "had paid {:.1f} of their {:.1f} nats after two epochs with one seed, and {:.1f} of {:.1f} with the other"
    assert points[0][1]["step"] == 25 and told.format(*paid[0], *paid[1]) in PROSE
    exact = [[list(map(float, texts.right)) for texts in (run.at[25], run.after)] for run in few]
    assert not compare(*zip(*exact, strict=True)).clear and "leave the difference not clear" in PROSE
    costs = {}
    for seed, run in enumerate(few):
        for right in (False, True):
            places = [place for place, one in enumerate(run.after.right) if one == right]
            costs[seed, right] = [fmean(texts.losses["skill"][place] for place in places)
                                  for texts in (run.at[25], run.after)]  # fmt: skip
    told = "from {:.2f} to {:.2f} nats with one seed and from {:.2f} to {:.2f} with the other"
    assert told.format(*costs[0, False], *costs[1, False]) in PROSE
    assert max(costs[0, True][1], costs[1, True][1]) < 0.01 < 0.03 < min(costs[0, True][0], costs[1, True][0])


def test_what_is_said_of_200_messages_is_so():
    """One run: its intervals are over texts alone."""
    recorded = retention.load_epochs()
    few, more = recorded["50 messages, 20 epochs"], recorded["200 messages, 20 epochs"]
    points, others = retention.by_epoch(more[0]), [retention.by_epoch(run) for run in few]
    assert [run.seed for run in more] == [0] and len(points) == 20 and "and on 200 with one" in PROSE
    assert max(run[9]["training"] for run in (points, *others)) < 0.001  # "below 0.001 by epoch 10"
    for run in (points, *others):
        assert run[0]["training"] > 9 * run[0]["validation"]
        assert run[0]["training"] == max(point["training"] for point in run)
    losses = [point["validation"] for point in points]
    assert all(loss < min(run[place]["validation"] for run in others) for place, loss in enumerate(losses))
    assert losses.index(min(losses)) == 3 and max(losses[9:]) - min(losses[9:]) < 0.005  # level from epoch 10 on
    assert sum(a > b for a, b in pairwise(losses)) < 16  # "goes up and down"
    assert max(losses[4:9]) - min(losses[4:9]) > 0.01
    assert f"lowest after four epochs, {losses[3]:.3f}, and {losses[-1]:.3f} at the end" in PROSE
    exact = [round(100 * points[place]["exact"]) for place in (3, -1)]
    assert "{} % are right after epoch 4, and {} % at the end".format(*exact) in PROSE
    kinds = retention.KINDS[1:]
    later = retention.apart(more, more, lambda run: run.at[points[3]["step"]].losses, lambda run: run.after.losses)
    gained = retention.change(*([float(right) for right in texts.right] for texts in (more[0].at[200], more[0].after)))
    assert points[3]["step"] == 200 and not gained.clear and "for no gain in skill that is clear" in PROSE
    assert not later["skill"].clear and all(later[kind].low > 0 for kind in kinds)
    rises = sorted(later[kind].mean for kind in kinds)
    assert f"each kind has paid clearly more, by {rises[0]:.1f} to {rises[-1]:.1f} nats" in PROSE
    sizes = retention.apart(few, more, lambda run: run.after.losses)
    assert all(sizes[kind].high < 0 and sizes[kind].runs == 1 for kind in kinds)
    recipe = Recipe(steps=250, learning_rate=2e-3)
    assert recipe.learning_rate_at(25) > 0.95 * recipe.learning_rate  # "near its height"


def test_what_the_trained_adapters_cost_is_not_clear_at_the_end_and_is_at_the_common_loss():
    eight, kinds = RUNS["LoRA r=8"], retention.KINDS[1:]
    rises = [[run.after.mean(kind) - run.before.mean(kind) for kind in kinds] for run in eight]
    assert all(one > 0 for run in rises for one in run)
    questions = [run[kinds.index("questions")] for run in rises]
    assert f"on questions by {min(questions):.1f} to {max(questions):.1f} nats" in PROSE
    assert not any(retention.risen(eight, kind).clear for kind in kinds)
    assert all(retention.risen(RUNS["random labels"], kind).low > 0 for kind in kinds)
    target = common_loss()
    earlier = retention.rises(eight, lambda run: retention.at_skill(run, target))
    assert all(earlier[kind].low > 0 for kind in kinds)


def test_what_is_said_of_ranks_at_equal_steps_is_so():
    above = {arm: retention.apart(RUNS["LoRA r=8"], RUNS[arm], lambda run: run.after.losses) for arm in METHODS}
    clear = {arm: {kind for kind in retention.KINDS[1:] if found[kind].low > 0} for arm, found in above.items()}
    assert clear["LoRA r=128"] == {"prose", "questions", "style"} and clear["LoRA r=64"] == {"questions", "style"}
    assert not any(above[arm][kind].clear for arm in ("LoRA r=1", "LoRA r=32") for kind in retention.KINDS[1:])
    skill = {arm: fmean(run.after.mean("skill") for run in RUNS[arm]) for arm in METHODS}
    first = skill.pop("LoRA r=1")
    told = f"rank 1 is at {first:.3f} nats, the others at {min(skill.values()):.3f} to {max(skill.values()):.3f}"
    assert told in PROSE and "So after equally many steps, at one rate, rank 128 has forgotten clearly more" in PROSE
    assert not retention.apart(RUNS["full"], RUNS["full, twice the rate"], lambda run: run.after.losses)["skill"].clear


def test_the_explorer_of_section_5_has_what_the_page_says_of_it():
    """Its arms are those of the table; at 0.146 all but one are there, and at 0.078 two more are gone."""
    names = {}
    exec(code_cell(PAGE, "ARMS = ").partition("ends = ")[0], names | {"recorded": RUNS}, names)
    arms = names["arms"]
    assert set(names["FIRST"]) == {short for short, arm in names["ARMS"].items() if arm in METHODS}
    assert retention.lowest_common(arms["r=1"]) == 0.146
    gone = {loss: [name for name, runs in arms.items() if retention.lowest_common(runs) > loss]
            for loss in (0.146, 0.078)}  # fmt: skip
    assert gone == {0.146: ["r=8, rate ÷ 4"], 0.078: ["r=1", "r=8, rate ÷ 4"]}
    assert {0.5, *gone} <= set(retention.stops(arms))
    assert "At 0.146 all of these arms can be compared but rank 8 at a quarter" in PROSE
    paid = {kind: retention.paid_at(arms, 0.146, kind, "r=8") for kind in retention.KINDS[1:]}
    clear = {name: [kind for kind, found in paid.items() if found[name].less.clear]
             for name in arms if name not in gone[0.146]}  # fmt: skip
    every = list(retention.KINDS[1:])
    assert {name: kinds for name, kinds in clear.items() if kinds} == {
        "r=1": every, "r=32": every[1:], "r=64, rate ÷ 2": every[:1], "r=128": every, "full": every,
        "full, rate × 2": every[:1],
    }  # fmt: skip
    rows = len(clear) - 1 + 2  # less rank 8, and two more less rank 8 on the other base
    assert 3 * rows == 36 and "the first table makes thirty-six comparisons" in PROSE


def test_replay_trains_on_the_kinds_that_are_measured_and_three_rises_are_falls():
    """Twelve examples of its 128: six paragraphs, every other one of the text, and six questions."""
    replay = retention.questions("replay")
    places = range(1, 32 * 4 // REPLAY + 1)
    asked = [replay[place // 2]["prompt"] for place in places if place % 2 == 0]  # between them paragraphs
    assert (len(places), len(asked)) == (12, 6) and "What is the capital of Canada?" in asked
    assert "What is the capital of France?" in [row["prompt"] for row in retention.fixed_texts(2, 24)["questions"]]
    assert "the capital of Canada is replayed, that of France is measured" in PROSE
    falls = {(arm, kind) for arm in ("LoRA r=8", *CURES) for kind in retention.KINDS[1:]
             if retention.risen(RUNS[arm], kind).high < 0}  # fmt: skip
    assert falls == {("replay", "prose"), ("replay", "questions"), ("KL", "questions")}
    quarter = retention.rises(RUNS["LoRA r=8"], lambda run: run.strengths[0.25].losses)
    assert quarter["questions"].high < 0 and not any(sum(run.strengths[0.25].right) for run in RUNS["LoRA r=8"])


def test_at_the_rate_that_teaches_it_more_rank_1_has_no_clear_lead():
    runs, target, kinds = RUNS["LoRA r=1, twice the rate"], common_loss(), retention.KINDS[1:]
    share = Recipe(steps=32, learning_rate=2e-3).learning_rate_at(14) / 2e-3
    assert len(runs) == 3 and all(14 < moment(run, target) < 15 for run in runs)
    assert share == pytest.approx(2 / 3, abs=0.03)
    found = at_common_loss("LoRA r=8", "LoRA r=1, twice the rate")
    assert not any(found[kind].clear for kind in kinds)
    told = "its mean is below rank 8's by {:.2f}, {:.2f} and {:.2f} nats, not clearly on any kind of text"
    assert told.format(*(-found[kind].mean for kind in kinds)) in PROSE


RATES = {"LoRA r=1": "LoRA r=1, twice the rate", "LoRA r=8": "a quarter of the rate",
         "LoRA r=64": "LoRA r=64, half the rate", "LoRA r=128": "LoRA r=128, half the rate",
         "full": "full, twice the rate"}  # fmt: skip


def test_by_the_skill_rank_1_was_at_the_worse_of_its_rates_and_three_arms_have_no_clear_better_one():
    found = {arm: retention.apart(RUNS[arm], RUNS[other], lambda run: run.after.losses)["skill"]
             for arm, other in RATES.items()}  # fmt: skip
    assert found["LoRA r=1"].high < 0 < found["LoRA r=8"].low
    assert [arm for arm, one in found.items() if not one.clear] == ["LoRA r=64", "LoRA r=128", "full"]
    assert "For ranks 64 and 128 and for full fine-tuning the two rates are not clearly apart" in PROSE
    assert all(run.learning_rate == {"LoRA r=1": 4e-3, "LoRA r=8": 5e-4, "full": 2e-4}.get(arm, 1e-3)
               for arm, other in RATES.items() for run in RUNS[other])  # fmt: skip
    rises = {arm: at_common_loss(arm, other) for arm, other in RATES.items() if arm != "LoRA r=8"}
    above = {arm: [kind for kind in retention.KINDS[1:] if one[kind].low > 0] for arm, one in rises.items()}
    assert above["full"] == ["prose", "questions", "style"] and above["LoRA r=1"] == ["style"]
    assert not any(rises["LoRA r=64"][kind].clear for kind in retention.KINDS[1:])


def test_at_other_rates_the_order_by_rank_is_gone():
    own = ("LoRA r=32", "LoRA r=64, half the rate", "LoRA r=128, half the rate")
    found = {arm: at_common_loss("LoRA r=8", arm) for arm in own}
    clear = {arm: {kind for kind in retention.KINDS[1:] if one[kind].low > 0} for arm, one in found.items()}
    assert clear == {"LoRA r=32": {"questions", "style"}, "LoRA r=64, half the rate": {"prose"},
                     "LoRA r=128, half the rate": set()}  # fmt: skip
    arms = (*own, "LoRA r=1, twice the rate", "LoRA r=8")
    lowest = max(run.after.mean("skill") for arm in arms for run in RUNS[arm])
    lowest = math.ceil(1000 * lowest) / 1000
    told = f"at {lowest:.3f}, the lowest loss that rank 1 at twice its rate reaches with all seeds, rank 64 at half is"
    assert f"{told} above rank 8 on prose and style, and rank 32, at its only rate, on none" in PROSE
    later = {arm: retention.apart(RUNS["LoRA r=8"], RUNS[arm], lambda run: retention.at_skill(run, lowest))
             for arm in arms[:-1]}  # fmt: skip
    assert {(arm, kind) for arm, one in later.items() for kind in retention.KINDS[1:] if one[kind].clear} == {
        ("LoRA r=64, half the rate", "prose"), ("LoRA r=64, half the rate", "style")}  # fmt: skip


def test_half_strength_answers_fewer_messages_letter_by_letter():
    half, whole = (100 * fmean(run.strengths[one].exact for run in RUNS["LoRA r=8"]) for one in (0.5, 1.0))
    assert f"{half:.0f} % of the messages are answered letter by letter at half strength, and {whole:.0f} %" in PROSE
    eight = RUNS["LoRA r=8"]
    paid, lost = {}, {}
    for strength in (0.5, 0.75):
        other = [run.strengths[strength] for run in eight]
        paid[strength] = retention.change(*([one.losses["questions"] for one in some]
                                            for some in (other, (run.after for run in eight))))  # fmt: skip
        lost[strength] = compare(*([list(map(float, one.right)) for one in some]
                                   for some in (other, (run.after for run in eight))))  # fmt: skip
    assert paid[0.5].clear and not paid[0.75].clear and not any(found.clear for found in lost.values())
    half, most = paid.values()
    assert f"half costs the questions {half.mean:.2f} nats less ({half.low:.2f} to {half.high:.2f}), which is" in PROSE
    assert f"0.75 costs {most.mean:.2f} less (−{-most.low:.2f} to {most.high:.2f}), which is not" in PROSE
    points = [[round(100 * one) for one in (found.mean, -found.low, found.high)] for found in lost.values()]
    assert "{} points at half (−{} to {}), {} at 0.75 (−{} to {})".format(*points[0], *points[1]) in PROSE


def test_who_owns_up_to_not_knowing():
    arms = facts.by_name(facts.load_answers())
    base, trained = arms["nothing"][0], arms["adapter"][0]
    assert base.verdicts("test").count("unknown") == 4 and base.verdicts("unstated").count("right") == 0
    assert trained.verdicts("test").count("unknown") == 0 and trained.verdicts("test").count("wrong") == 37
    assert "the bare base said so four times" in PROSE and "got 37 of them wrong, never did" in PROSE


def test_what_the_table_of_places_says_of_the_search_is_so():
    [read], searched = facts.by_name(facts.load_answers())["1 note"], facts.load_retrieved()
    right = [one == "right" for one in read.verdicts("test")]
    missed = [row[0] != place for place, row in enumerate(searched["test"]["places"])]
    floor = facts.with_floor(read.outputs["test"], searched["test"]["similarity"], facts.best_floor(searched))
    with_it = sum(one == "right" for one in read.verdicts("test", floor))
    assert f"{sum(right)} of {len(right)} right without the floor, {with_it} with it" in PROSE
    assert not any(a and b for a, b in zip(right, missed, strict=True)) and len(right) - sum(right) == 13
    assert f"The search missed {sum(missed)} of the 13 others, the reading {13 - sum(missed)}" in PROSE


def test_at_the_common_loss_most_messages_are_not_yet_answered_letter_by_letter():
    """At no checkpoint where the skill's loss is as high or higher."""
    early = [texts.exact for arm in METHODS for run in RUNS[arm] for texts in run.at.values()
             if texts.mean("skill") >= common_loss()]  # fmt: skip
    assert max(early) < 0.5 and "at which most messages are not yet answered letter by letter" in PROSE
