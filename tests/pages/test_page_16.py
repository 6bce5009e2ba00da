"""What page 16 says in prose and does not compute: of the recorded adapter, and of the small policy."""

import json
import re

from lab_utils.folders import DATA, NOTEBOOKS
from lab_utils.notebook.notebook_files import read_notebook
from lab_utils.preferences import group_advantages, share, small_policy, small_run, start_logits

PAGE = read_notebook(NOTEBOOKS / "16_preferences_and_rewards.ipynb")
PROSE = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")
CODE = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "code")


def ends(what="right", seeds=12, **settings):
    """The share of right (or well-formed) answers after the last step, with each of some seeds."""
    return [share(small_run(seed=seed, **settings)[-1].after, what) for seed in range(seeds)]


def mean(values):
    return sum(values) / len(values)


def test_the_recorded_adapter_is_the_one_that_the_page_starts_from():
    record = json.loads((DATA / "adapters" / "bookings" / "record.json").read_text())
    recipe, scores = record["recipe"], record["scores"]["test"]
    assert f"rank {recipe['rank']}, {recipe['steps']} steps, {recipe['steps'] * recipe['batch_size']} of the" in PROSE
    assert f"{round(scores['exact'] * scores['examples'])} of the {scores['examples']} test messages" in PROSE


def test_what_is_said_of_the_small_policy_is_so():
    small = small_run("right", group_size=4)
    assert all(abs(step.loss) < 1e-12 for step in small)  # "the loss is 0"
    silent = [sum(not step.advantages.any() for step in small_run("right", group_size=size)) for size in (4, 16)]
    assert f'"about {silent[1]}", "{silent[0]}, as before"' in CODE  # the explorer's answers
    assert f"{share(start_logits(), 'right'):.1%}".replace("%", " %") + " of the answers are right" in PROSE
    samples = {answer.text for answer in small_run("valid and short", group_size=8)[-1].answers}
    assert all("Fri}" in text and "Weber" not in text for text in samples)  # the surname and half of the weekday


def test_the_sixteen_answers_of_a_step_and_the_worked_groups():
    (source,) = [cell.source for cell in PAGE.cells if cell.source.startswith("by_reward = ")]
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
