"""The recorded runs of page 15: read by arm and seed, damage refused; equal skill lies on a straight line."""

import json
from itertools import pairwise

import pytest

from lab_utils.errors import LabError
from lab_utils.recorded.forgetting import FORGETTING, at_skill, by_epoch, epoch_ends, load_epochs, load_forgetting
from lab_utils.retention import Change, apart, change, panels, paths, risen, rises, table

TOKENS = {"skill": [4, 5], "prose": [90, 80], "questions": [7, 7], "style": [9, 9]}


def reading(skill: float, prose: float, **more) -> dict:
    losses = {"skill": [skill, skill], "prose": [prose, prose + 1], "questions": [1.0, 1.5], "style": [2.0, 2.5]}
    return {"losses": losses, "tokens": TOKENS, "right": "10"} | more


def line(arm: str = "LoRA r=8", seed: int = 0, **changes) -> str:
    points = [reading(3.0, 3.0, step=0), reading(1.0, 3.2, step=4), reading(0.5, 3.6, step=8)]
    row = {"arm": arm, "seed": seed, "checkpoints": points, "training_losses": [float(step) for step in range(8)]}
    row |= {"recipe": {"rank": 8, "steps": 8, "learning_rate": 0.002, "train_examples": None}}
    row |= {"strengths": [reading(1.5, 3.1, strength=0.5)], "random": reading(3.1, 3.0)}
    row |= {"matrices": {"q": {"cosines": [1.0, 0.2], "relative_update": 0.01}}, "cpu": "a", "threads": 1}
    return json.dumps(row | {"date": "2026-01-01", "versions": {}, "cpu_seconds": 1} | changes) + "\n"


def test_runs_by_arm_and_seed(tmp_path):
    with pytest.raises(LabError, match=r"record_forgetting\.py"):
        load_forgetting(tmp_path)
    (tmp_path / "runs.jsonl").write_text(line(seed=1) + line("full", random=None, strengths=[]) + line(seed=0))
    runs = load_forgetting(tmp_path)
    assert {arm: [run.seed for run in some] for arm, some in runs.items()} == {"full": [0], "LoRA r=8": [0, 1]}
    run = runs["LoRA r=8"][0]
    assert list(run.strengths) == [0.0, 0.5, 1.0] and run.strengths[1.0] == run.after and run.after.exact == 0.5
    assert run.before.mean("prose") == 3.5 and run.cosines == {"q": (1.0, 0.2)}
    assert runs["full"][0].strengths == {} and runs["full"][0].random is None
    assert risen(runs["LoRA r=8"], "prose").mean == pytest.approx(0.6) and risen(runs["full"], "prose").runs == 1


def test_equal_skill_is_on_the_line_between_two_checkpoints(tmp_path):
    """Skill 3 → 1 → 0.5 and prose 3 → 3.2 → 3.6: at 2 it is halfway to 3.2, at 0.6 four fifths of the way to 3.6."""
    (tmp_path / "runs.jsonl").write_text(line())
    run = load_forgetting(tmp_path)["LoRA r=8"][0]
    assert at_skill(run, 2.0)["prose"] == pytest.approx((3.1, 4.1)) and at_skill(run, 2.0)["skill"] == (2.0, 2.0)
    assert at_skill(run, 0.6)["prose"] == pytest.approx((3.52, 4.52))
    assert at_skill(run, 3.0)["prose"] == (3.0, 4.0) and at_skill(run, 0.5)["prose"] == pytest.approx((3.6, 4.6))
    assert at_skill(run, 0.4) is None and at_skill(run, 3.1) is None
    assert change(run.before.losses["prose"], at_skill(run, 2.0)["prose"]).mean == pytest.approx(0.1)


def arm(tmp_path, name: str, before: float, after: dict[int, float]):
    """Runs whose prose costs `before` at first and `after[seed]` in the end."""
    lines = [line(name, seed, checkpoints=[reading(3, before, step=0), reading(1, last, step=8)])
             for seed, last in after.items()]  # fmt: skip
    (tmp_path / "runs.jsonl").write_text("".join(lines))
    return load_forgetting(tmp_path)[name]


def at_end(run):
    return run.after.losses


def test_two_arms_are_compared_by_how_far_each_rose_on_the_seeds_that_both_have(tmp_path):
    """Prose rose from 3 to 3.2 and 3.4, and from 2 to 2.5 and 2.9: with the same seeds 0.3 and 0.5 more."""
    first = arm(tmp_path, "one", 3.0, {0: 3.2, 1: 3.4, 2: 9.0})
    second = arm(tmp_path, "two", 2.0, {1: 2.9, 0: 2.5})
    found = apart(first, second, at_end)
    assert found["prose"].mean == pytest.approx(0.4) and (found["prose"].runs, found["prose"].texts) == (2, 2)
    assert found["prose"].low < 0.4 < found["prose"].high and set(found) == {"skill", "prose", "questions", "style"}
    assert rises(second, at_end) == {kind: risen(second, kind) for kind in found}
    assert apart(first, first, lambda run: run.before.losses, at_end)["prose"] == risen(first, "prose")
    with pytest.raises(LabError, match="no seed in common"):
        apart(first[:1], second[1:], at_end)


def test_a_table_says_mean_half_width_and_whether_that_is_clear():
    rows = {"plain": {"prose": Change(0.3, 0.1, 0.5, 3, 16)}}
    rows |= {"longer name": {"prose": Change(-0.25, -0.75, 0.25, 2, 16)}}
    assert table(rows, ["prose"]).splitlines() == [
        "             seeds  prose",
        "plain            3  +0.30 ± 0.20 ●",
        "longer name      2  -0.25 ± 0.50 ○",
    ]
    assert panels(rows, ["prose"]) == {"prose": {"plain": (0.3, 0.1, 0.5), "longer name": (-0.25, -0.75, 0.25)}}


def test_a_path_goes_through_what_was_measured_along_the_lines_of_equal_skill(tmp_path):
    """Skill 3 → 1 → 0.5 and prose 3 → 3.2 → 3.6; with another seed prose rises to 4.0 and skill falls to 0.25."""
    other = [reading(3.0, 3.0, step=0), reading(1.0, 3.4, step=4), reading(0.25, 4.0, step=8)]
    (tmp_path / "runs.jsonl").write_text(line() + line(seed=1, checkpoints=other))
    runs = load_forgetting(tmp_path)["LoRA r=8"]
    found = paths(runs, "prose", 5)
    assert [x for x, _ in found["measured"]] == [[3.0, 1.0, 0.5], [3.0, 1.0, 0.25]]
    assert [y for _, y in found["measured"]] == [pytest.approx([0, 0.2, 0.6]), pytest.approx([0, 0.4, 1.0])]
    for run, (x, y) in zip(runs, found["each"], strict=True):
        assert (x[0], x[-1]) == (3.0, run.after.mean("skill")) and len(x) == 5
        assert [b / a for a, b in pairwise(x)] == pytest.approx([(x[-1] / 3) ** 0.25] * 4)
        for loss, rise in zip(x, y, strict=True):
            assert rises([run], lambda run, loss=loss: at_skill(run, loss))["prose"].mean == pytest.approx(rise)
    [(x, y)] = found["mean"]
    assert (x[0], x[-1]) == (3.0, 0.5) and y[-1] == pytest.approx((0.6 + 0.4 + 0.6 * 0.5 / 0.75) / 2)
    middle = rises(runs, lambda run: at_skill(run, x[2]))["prose"].mean
    assert middle == pytest.approx(y[2]) and set(found) == {"measured", "each", "mean"}
    with pytest.raises(LabError, match="kind"):
        paths(runs, "verse")


@pytest.mark.parametrize("wrong", [
    "{", line().replace("3.2", "NaN", 1), line().replace('"10"', '"12"', 1), line(checkpoints=[reading(3, 3, step=0)]),
    line() + line(seed=1).replace("[4, 5]", "[4, 6]"), line().replace('"style"', '"verse"'), '{"arm": 1}\n',
])  # fmt: skip
def test_damage_is_refused(tmp_path, wrong):
    (tmp_path / "runs.jsonl").write_text(wrong)
    with pytest.raises(LabError, match=r"recorded runs in .* cannot be read"):
        load_forgetting(tmp_path)


def test_an_epoch_ends_where_its_messages_do(tmp_path):
    """Ten messages, four a step: two steps are the first epoch but for two messages, and three the second."""
    assert epoch_ends(10, 3, 4) == [2, 5, 7]
    recipe = {"rank": 8, "steps": 5, "learning_rate": 0.002, "train_examples": 10}
    points = [reading(3, 3, step=0), reading(2, 3, step=2), reading(1, 3, step=5)]
    row = line("few", recipe=recipe, checkpoints=points, training_losses=[0, 1, 2, 3, 4])
    (tmp_path / "epochs.jsonl").write_text(row)
    [run] = load_epochs(tmp_path)["few"]
    assert by_epoch(run) == [
        {"epoch": 1, "step": 2, "training": 0.5, "validation": 2.0, "exact": 0.5},
        {"epoch": 2, "step": 5, "training": 3.0, "validation": 1.0, "exact": 0.5},
    ]
    (tmp_path / "epochs.jsonl").write_text(row.replace("[0, 1", "[NaN, 1"))
    with pytest.raises(LabError, match=r"record_overfitting\.py"):
        load_epochs(tmp_path)


def test_what_is_recorded_can_be_read():
    for runs in load_forgetting(FORGETTING).values():
        assert len({run.seed for run in runs}) == len(runs) and len({run.learning_rate for run in runs}) == 1
