"""A graded class, end to end through nbgrader's own commands: release, submissions of all sorts, points, feedback."""

import copy
import html
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from lab_utils import checks
from lab_utils.checks.grading import WIDTH, NotSolved
from lab_utils.classroom.course import NOTEBOOKS
from lab_utils.classroom.nbgrader_course import write_course
from lab_utils.counts import SIZES

PAGE = "02_counting_parameters"
EXERCISES = {name: exercise for name, exercise in checks.EXERCISES.items() if exercise.page == 2}
FIRST, SECOND, THIRD = EXERCISES
MISTAKES = 2  # of each exercise; every one is named in tests/pages/test_checks_mistakes.py
STEPS = "generate_assignment", "autograde", "generate_feedback"
# `sizes` is from the lesson.
OWN_CELL = "from lab_utils import environment\nprint('fast:', environment.fast_mode(), len(sizes))"
TIMEOUT_SECONDS = 30  # of a cell: an endless loop costs the test so much


def mistake(name: str, number: int) -> str:
    """A cell whose function makes a common mistake."""
    return f"def {name}(*inputs):\n    return checks.EXERCISES[{name!r}].mistakes[{number}].wrong[0](*inputs)"


def endless(name: str) -> str:
    """It sleeps, so that ten seconds cost nothing; a loop that computes is in tests/pages/test_checks_robust.py."""
    return f"import time\ndef {name}(*inputs):\n    while True:\n        time.sleep(0.1)"


def endless_at_the_top(name: str) -> str:
    return f"import time\nwhile True:\n    time.sleep(0.1)\ndef {name}(*inputs):\n    return 1"


def raises(name: str) -> str:
    return f"def {name}(*inputs):\n    raise ValueError('no shapes today')"


def syntax_error(name: str) -> str:
    return f"def {name}(*inputs)\n    return 1"


# student -> exercise -> the cell handed in; None is the right solution, "" the stub as released
SUBMISSIONS = {
    "right": dict.fromkeys(EXERCISES),
    "stubs": dict.fromkeys(EXERCISES, ""),
    **{f"mistake-{n}": {name: mistake(name, n) for name in EXERCISES} for n in range(MISTAKES)},
    "faults": {FIRST: raises(FIRST), SECOND: endless(SECOND), THIRD: syntax_error(THIRD)},
    "top": {FIRST: endless_at_the_top(FIRST), SECOND: None, THIRD: None},
}


def nbgrader(folder: Path, *arguments: str) -> str:
    """Run one of nbgrader's commands in a course; the shell's PATH does not know this environment."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course in which every submission has been graded."""
    folder = tmp_path_factory.mktemp("course")
    (source,) = write_course([NOTEBOOKS / f"{PAGE}.ipynb"], folder)
    with open(folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write(f"c.Execute.timeout = {TIMEOUT_SECONDS}\n")
    nbgrader(folder, "generate_assignment", PAGE)
    solutions = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in nbformat.read(source, as_version=4).cells if cell.metadata.get("nbgrader", {}).get("solution")
    }  # fmt: skip
    released = nbformat.read(folder / "release" / PAGE / f"{PAGE}.ipynb", as_version=4)
    for student, answers in SUBMISSIONS.items():
        notebook = copy.deepcopy(released)
        for cell in notebook.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name in answers and answers[name] != "":
                cell.source = answers[name] or solutions[name]
        if student == "right":
            notebook.cells.append(new_code_cell(OWN_CELL))
        target = folder / "submitted" / student / PAGE / f"{PAGE}.ipynb"
        target.parent.mkdir(parents=True)
        nbformat.write(notebook, target)
    nbgrader(folder, "autograde", PAGE)
    nbgrader(folder, "generate_feedback", PAGE)
    return folder


@pytest.fixture(scope="module")
def points(course) -> dict[str, dict[str, float]]:
    """student -> exercise -> points in the gradebook."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        return {
            student: {
                name: gradebook.find_grade(f"{name}-check", PAGE, PAGE, student).score for name in EXERCISES
            } for student in SUBMISSIONS
        }  # fmt: skip


def feedback(course: Path, student: str) -> str:
    """The text of a student's feedback, less its markup."""
    page = (course / "feedback" / student / PAGE / f"{PAGE}.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())


@pytest.mark.parametrize("student", SUBMISSIONS)
def test_the_gradebook_has_the_points_of_the_right_functions_and_no_others(student, points):
    answers = SUBMISSIONS[student]
    assert points[student] == {name: 1.0 if answers[name] is None else 0.0 for name in EXERCISES}


@pytest.mark.parametrize("number", range(MISTAKES))
def test_the_feedback_names_each_mistake_and_its_fix(number, course):
    text = feedback(course, f"mistake-{number}")
    for exercise in EXERCISES.values():
        made = exercise.mistakes[number]
        assert f"This looks like a common mistake: {made.name}. {made.fix}" in text


def test_the_feedback_says_what_else_went_wrong(course):
    assert "It raises ValueError: no shapes today" in feedback(course, "faults")
    assert "SyntaxError" in feedback(course, "faults")
    assert "did not come to an end within 10 seconds" in feedback(course, "faults")
    assert "No reply from kernel before timeout" in feedback(course, "top")
    assert feedback(course, "stubs").count("Not solved yet") == len(EXERCISES)
    assert feedback(course, "right").count("All points.") == len(EXERCISES)


def test_the_exported_table_holds_the_sums(course, points):
    nbgrader(course, "export")
    header, *rows = ((course / "grades.csv").read_text(encoding="utf-8").splitlines())
    columns = header.split(",")
    table = {row["student_id"]: row for row in (dict(zip(columns, line.split(","), strict=True)) for line in rows)}
    assert table.keys() == points.keys()
    for student, row in table.items():
        assert float(row["score"]) == sum(points[student].values())
        assert float(row["max_score"]) == len(EXERCISES)


def lesson_cells_run(course: Path, student: str) -> list[str]:
    """The source of the lesson's cells that grading ran."""
    graded = nbformat.read(course / "autograded" / student / PAGE / f"{PAGE}.ipynb", as_version=4)
    lesson = [cell for cell in graded.cells if "lesson" in cell.metadata.get("tags", [])]
    assert len(lesson) > 10
    return [cell.source for cell in lesson if cell.execution_count]


def test_of_the_lesson_only_what_is_used_was_run_and_in_fast_mode(course):
    (imports,) = lesson_cells_run(course, "stubs")
    assert "import" in imports
    first, *_, sizes = lesson_cells_run(course, "right")
    assert first == imports and "sizes = " in sizes and len(lesson_cells_run(course, "right")) < 4
    assert f"fast: True {len(SIZES)}" in feedback(course, "right")


def test_a_right_function_earns_its_points_whatever_it_prints(capsys):
    """nbgrader gives nothing for a cell that writes to stderr."""

    def adapter_parameters(out_features, in_features, rank):
        warnings.warn("careful", stacklevel=1)
        logging.getLogger("student").warning("about to multiply")
        print("debugging", file=sys.stderr)
        return rank * (out_features + in_features)

    checks.check(FIRST, adapter_parameters)
    checks.grade(FIRST, adapter_parameters)
    assert capsys.readouterr() == (f"✓ Solved: {EXERCISES[FIRST].title}\nAll points.\n", "")


@pytest.mark.parametrize("name", EXERCISES)
def test_what_earns_nothing_says_why_and_no_solution(name):
    exercise = EXERCISES[name]
    with pytest.raises(NotSolved) as caught:
        checks.grade(name, exercise.mistakes[0].wrong[0])
    shown = "\n".join(caught.value._render_traceback_())
    assert shown == str(caught.value) and "✗ Not solved so far" in shown and "smallest example" in shown
    assert max(map(len, shown.splitlines())) <= WIDTH
    told = f"This looks like a common mistake: {exercise.mistakes[0].name}. {exercise.mistakes[0].fix}"
    assert told in " ".join(shown.split())
    assert not any(hint in shown for hint in exercise.hints) and "checks.solution" not in shown


@pytest.mark.parametrize(("name", "function"), [(FIRST, 7), (FIRST, None), ("unheard_of", len)])
def test_no_function_and_no_exercise_earn_nothing(name, function):
    with pytest.raises(NotSolved, match=r"not a function|no exercise"):
        checks.grade(name, function)
