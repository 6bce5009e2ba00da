"""What page 16 says in prose and does not compute: of the recorded adapter, and of the small policy."""

import json
import re

from lab_utils.folders import DATA, NOTEBOOKS
from lab_utils.notebook.notebook_files import read_notebook
from lab_utils.preferences import group_advantages, small_run

PAGE = read_notebook(NOTEBOOKS / "16_preferences_and_rewards.ipynb")
PROSE = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")


def test_the_recorded_adapter_is_the_one_that_the_page_starts_from():
    record = json.loads((DATA / "adapters" / "bookings" / "record.json").read_text())
    recipe, scores = record["recipe"], record["scores"]["test"]
    assert f"rank {recipe['rank']}, {recipe['steps']} steps, {recipe['steps'] * recipe['batch_size']} of the" in PROSE
    assert f"{round(scores['exact'] * scores['examples'])} of the {scores['examples']} test messages" in PROSE


def test_what_is_said_of_the_small_policy_is_so():
    small = small_run("right", group_size=4)
    assert all(abs(step.loss) < 1e-12 for step in small)  # "the loss is 0"
    silent = sum(not step.advantages.any() for step in small)
    assert 10 <= silent <= 20  # the explorer's question: in about half
    samples = {answer.text for answer in small_run("valid and short", group_size=8)[-1].answers}
    assert all("Fri}" in text and "Weber" not in text for text in samples)  # the surname and half of the weekday


def test_the_sixteen_answers_of_a_step_and_the_worked_groups():
    (source,) = [cell.source for cell in PAGE.cells if cell.source.startswith("by_reward = ")]
    sizes = [int(number) for number in re.findall(r"FAST else (\d+)", source)]
    assert sizes[1] * sizes[2] == 16 and "each step writes sixteen" in PROSE
    import torch

    assert group_advantages(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1]), 4)[4:].tolist() == [0] * 4
