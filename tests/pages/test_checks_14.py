"""Solutions of page 14 against the library's masks and splits, a normal sample, and numbers worked by hand."""

import math
import re

import pytest
import torch
from page_prose import prose, sources

from lab_utils import checks
from lab_utils.checks.engine import examples
from lab_utils.classroom.editions import CAPSTONE, CAPSTONE_POINTS, instructor_edition, student_edition
from lab_utils.folders import NOTEBOOKS
from lab_utils.notebook.notebook_files import read_notebook

PAGE = "14_your_own_data.ipynb"
EXERCISES = {name: exercise for name, exercise in checks.EXERCISES.items() if exercise.page == 14}


def solved(name, *inputs):
    return EXERCISES[name].solution(*inputs)


def test_labels_of_the_first_conversation_by_hand():
    labels = solved("turn_labels", *EXERCISES["turn_labels"].demo).tolist()
    assert labels == [-100] * 7 + [51, 2] + [-100] * 6 + [52, 53, 2]


def test_a_leak_is_symmetric_and_a_text_leaks_into_itself():
    for train, test, threshold in examples(EXERCISES["leaked"]):
        assert solved("leaked", test, test, threshold).all()
        there = [bool(solved("leaked", [one], [other], threshold)) for one in train for other in test]
        back = [bool(solved("leaked", [other], [one], threshold)) for one in train for other in test]
        assert there == back
    assert solved("leaked", *EXERCISES["leaked"].demo).tolist() == [True, True, False]


def test_no_group_is_in_two_sets_and_one_group_less_would_be_too_few():
    for groups, wanted in examples(EXERCISES["test_rows"]):
        taken = solved("test_rows", groups, wanted)
        assert not set(groups[taken].tolist()) & set(groups[~taken].tolist())
        last = max(groups[taken].tolist(), key=groups.tolist().index)
        assert int((taken & (groups != last)).sum()) < wanted <= int(taken.sum())


def test_the_interval_of_a_lead_holds_the_truth_in_about_95_of_100_samples():
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        right, answers = torch.rand(100, generator=generator) < 0.7, torch.randint(0, 2, (100,), generator=generator)
        _, low, high = solved("lead_over_majority", right, answers, torch.tensor([0, 0, 1]))
        held += low <= 0.7 - 0.5 <= high
    assert 0.92 <= held / 400 <= 0.98
    lead, low, high = solved("lead_over_majority", *EXERCISES["lead_over_majority"].demo)
    assert lead == pytest.approx(1 / 6) and low < 0 < high  # the reward says so
    assert high - lead == pytest.approx(1.96 * math.sqrt((3 - 6 / 36) / 5 / 6))


def test_the_answer_to_the_fourth_prediction_is_computed():
    right, answers, train = EXERCISES["lead_over_majority"].demo
    ends = solved("lead_over_majority", right.repeat(10), answers.repeat(10), train)
    lead, low, high = (round(100 * end) for end in ends)
    assert prose(PAGE).count(f"4. Just: {lead} points ({low} to {high:+})") == 1


def test_stopping_by_hand():
    assert solved("keep_and_stop", *EXERCISES["keep_and_stop"].demo) == (3, 5)
    assert solved("keep_and_stop", torch.tensor([0.3, 0.2, 0.1]), 1) == (2, 2)
    assert solved("keep_and_stop", torch.tensor([0.3, 0.3]), 1) == (0, 1)


def test_a_true_power_law_is_found_again():
    sizes = torch.tensor([8, 32, 128, 512])
    errors = 2 * sizes.double() ** -0.5
    assert solved("examples_needed", sizes, errors, 0.02) == pytest.approx(10_000, rel=1e-6)


def test_the_capstone_is_graded_by_hand_and_its_rubric_adds_up():
    page = read_notebook(NOTEBOOKS / PAGE)
    for edition in (instructor_edition(page), student_edition(page)):
        graded = [cell for cell in edition.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == CAPSTONE]
        (cell,) = graded
        about = cell.metadata["nbgrader"]
        assert cell.cell_type == "markdown" and about["task"] and not about["grade"] and not about["solution"]
        assert about["points"] == CAPSTONE_POINTS and "| part | points | full | half |" in cell.source
    (rubric,) = [source for source in sources(PAGE, "markdown") if "| part | points | full | half |" in source]
    points = [int(number) for number in re.findall(r"^\| \w+ \| (\d+) \|", rubric, flags=re.M)]
    assert len(points) == 6 and sum(points) == CAPSTONE_POINTS
