"""The two editions: nbgrader releases the student's of the instructor's, and every solution earns its points."""

import ast
import os
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from unfolded import unfolded

from lab_utils import checks
from lab_utils.checks import engine
from lab_utils.checks.grading import NotSolved
from lab_utils.classroom.__main__ import main
from lab_utils.classroom.course import NOTEBOOKS
from lab_utils.classroom.editions import exercise_of, instructor_edition, student_edition, write_edition
from lab_utils.classroom.nbgrader_course import relink, skip_lesson, write_course
from lab_utils.errors import LabError
from lab_utils.lowrank import relative_error

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
EXERCISES = checks.EXERCISES
each_page = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def graded(notebook, kind: str) -> dict:
    """nbgrader's cells of one kind, "solution" or "grade", by the exercise's name."""
    cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get(kind)]
    return {cell.metadata.nbgrader.grade_id.removesuffix("-check"): cell for cell in cells}


def stubs_of(path: Path) -> dict[str, str]:
    """The exercises of a committed page, as they are there."""
    return {exercise_of(cell): cell.source for cell in read(path).cells if exercise_of(cell)}


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> dict:
    """Page -> what `nbgrader generate_assignment` makes of it in a course, by nbgrader's own classes."""
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config.loader import PyFileConfigLoader

    folder = tmp_path_factory.mktemp("course")
    write_course(PATHS, folder)
    before = dict(os.environ)
    try:
        config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
        config.CourseDirectory.root = str(folder)
        api = NbGraderAPI(CourseDirectory(config=config), config=config)
        for path in PATHS:
            result = api.generate_assignment(path.stem)
            assert result["success"], result
    finally:
        os.environ.clear()
        os.environ.update(before)
    return {path.stem: read(folder / "release" / path.stem / path.name) for path in PATHS}


@each_page
def test_nbgrader_releases_the_student_edition_cell_for_cell(path, released):
    expected = relink(student_edition(read(path)))
    assert released[path.stem].cells == expected.cells
    assert len(graded(expected, "grade")) == len(stubs_of(path))


@each_page
def test_students_get_the_page_as_it_is_and_nothing_to_copy_from(path):
    page, edition = read(path), student_edition(read(path))
    nbformat.validate(edition)
    text = "\n".join(cell.source for cell in edition.cells)
    assert not re.search("BEGIN|END (SOLUTION|HIDDEN)|checks.grade|Common mistakes", text)
    assert not any({"notes", "hint"} & set(tags(cell)) for cell in edition.cells)
    stubs, tests = graded(edition, "solution"), graded(edition, "grade")
    for name, source in stubs_of(path).items():
        assert [stubs[name].source, tests[name].source] == re.split(r"\n\n\n(?=checks\.check)", source)
    lesson = [cell.source for cell in page.cells if cell.cell_type == "code" and not exercise_of(cell)]
    assert lesson == [cell.source for cell in edition.cells if "lesson" in tags(cell)]
    prose = [cell.source for cell in page.cells if cell.cell_type == "markdown" and "notes" not in tags(cell)]
    lines = [line for line in "\n".join(prose).splitlines() if "colab.research.google.com" not in line]
    kept = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    assert kept.split() == "\n".join(lines).split()


@each_page
def test_the_instructor_finds_solutions_points_hints_and_open_notes(path):
    page, edition = read(path), instructor_edition(read(path))
    nbformat.validate(edition)
    tests = graded(edition, "grade")
    assert list(tests) == list(stubs_of(path))
    assert sum(cell.metadata.nbgrader.points for cell in tests.values()) == len(stubs_of(path))
    hints = [cell.source for cell in edition.cells if "hint" in tags(cell)]
    for name, hint in zip(tests, hints, strict=True):
        plain = hint.replace("\\", "")
        assert all(text in plain for text in EXERCISES[name].hints)
        assert all(mistake.fix in plain for mistake in EXERCISES[name].mistakes)
    notes = [cell for cell in page.cells if "notes" in tags(cell)]
    opened = [cell for cell in edition.cells if "notes" in tags(cell)]
    for folded, cell in zip(notes, opened, strict=True):
        assert not re.search("</?(details|summary)", cell.source)
        words = re.sub(r"</?(details|summary)[^>]*>", " ", folded.source).split()
        assert words == cell.source.replace("**", "", 2).split() or words == cell.source.split()


@each_page
def test_every_section_begins_a_slide_and_what_comes_out_is_not_seen_before_it_was_predicted(path):
    shown = []
    for cell in instructor_edition(read(path)).cells:
        lines, kind = cell.source.splitlines(), cell.metadata.slideshow.slide_type
        off = "notes" if {"notes", "hint"} & set(tags(cell)) else "skip" if "colab" in tags(cell) else None
        assert (kind in ("notes", "skip")) == bool(off) and kind == (off or kind)
        if off:
            continue
        if cell.cell_type == "markdown":
            assert (kind == "slide") == lines[0].startswith(("# ", "## "))
            assert not any(line.startswith(("## ", "**Predict.")) for line in lines[1:])
            assert kind == "subslide" or not lines[0].startswith("**Predict")
        if shown and shown[-1].source.startswith("**Predict."):
            assert kind == "fragment" or cell.cell_type == "markdown"
        shown.append(cell)


@each_page
def test_exercises_are_tagged_in_the_committed_pages(path):
    assert [("exercise" in tags(cell)) == bool(exercise_of(cell)) for cell in read(path).cells].count(False) == 0


def imports_of(page) -> dict:
    """The names that the imports of a page's first code cell bind (that for Colab aside)."""
    first = next(cell for cell in page.cells if cell.cell_type == "code" and "colab" not in tags(cell))
    code = "\n".join(line for line in first.source.splitlines() if not line.startswith("%"))
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict = {}
    exec(compile(tree, "imports", "exec"), names)
    return names


@each_page
def test_solutions_run_on_their_page_and_earn_all_points_and_stubs_earn_none(path, monkeypatch, capsys):
    """As the cells are in the editions: after the page's imports, each in its own names.

    On a few inputs: that the solution is right on all of them, test_checks.py shows.
    """
    monkeypatch.setattr("lab_utils.checks.attempt_report._picture", lambda *_: (b"", ""))
    monkeypatch.setattr(engine, "examples", lambda exercise, made=engine.examples: made(exercise)[:5])
    imports = imports_of(read(path)) if stubs_of(path) else {}
    solved, open_ = graded(instructor_edition(read(path)), "solution"), graded(student_edition(read(path)), "solution")
    for name in stubs_of(path):
        assert name not in imports  # else a cell that does not run would leave another function to be graded
        names = dict(imports)
        exec(solved[name].source, names)
        assert names[name].__doc__
        checks.grade(name, names[name])
        assert capsys.readouterr().out == f"✓ Solved: {EXERCISES[name].title}\nAll points.\n"
        names = dict(imports)
        exec(open_[name].source, names)
        with pytest.raises(NotSolved) as caught:
            checks.grade(name, names[name])
        assert unfolded(str(caught.value)).startswith(f"○ Not solved yet: {EXERCISES[name].title}")


def page_with(source: str, imports: str = "from lab_utils import checks"):
    return new_notebook(cells=[new_code_cell(imports), new_code_cell(source)])


def test_what_is_no_exercise_is_refused_by_name():
    stub = 'def {0}(out, n, r):\n    """Doc."""\n    {1}\n\n\nchecks.check("{0}", {0})'
    with pytest.raises(LabError, match="no exercise 'unheard_of'"):
        instructor_edition(page_with(stub.format("unheard_of", "...")))
    with pytest.raises(LabError, match=r"stub of 'adapter_parameters' must end with a line '...', not with '    pass'"):
        instructor_edition(page_with(stub.format("adapter_parameters", "pass")))


def uses_a_function(weight):
    return relative_error(weight, weight)


def test_a_solution_brings_the_modules_that_its_page_lacks_and_nothing_else(monkeypatch):
    stub = 'def smallest_good_rank(rows: list[dict]) -> int:\n    """Doc."""\n    ...\n\n\n'
    stub += 'checks.check("smallest_good_rank", smallest_good_rank)'
    without, having = page_with(stub), page_with(stub, "import statistics\nfrom lab_utils import checks")
    assert "    import statistics\n" in instructor_edition(without).cells[1].source
    assert "import statistics" not in instructor_edition(having).cells[1].source
    monkeypatch.setitem(EXERCISES, "energy", replace(EXERCISES["energy"], solution=uses_a_function))
    with pytest.raises(LabError, match="'energy' uses 'relative_error'"):
        instructor_edition(page_with('def energy(weight):\n    ...\n\n\nchecks.check("energy", energy)'))


def test_making_an_edition_leaves_the_page_alone():
    page = read(PATHS[1])
    student_edition(page)
    assert page == read(PATHS[1])


def test_notes_are_opened_badges_left_out_and_code_not_cut():
    badge = "[![Open in Colab](https://colab.research.google.com/a.svg)](https://colab.research.google.com/x)"
    page = new_notebook(cells=[
        new_markdown_cell(f"# A\n\n{badge}\n\nText\n```\n## no heading\n```\n## B\n\nWhy.\n\n**Predict.** What?"),
        new_markdown_cell("<details>\n<summary>Say</summary>\n\nLess.\n\n</details>", metadata={"tags": ["notes"]}),
    ])  # fmt: skip
    first, second, third, notes = instructor_edition(page).cells
    assert first.source == "# A\n\nText\n```\n## no heading\n```"
    assert (second.source, third.source) == ("## B\n\nWhy.", "**Predict.** What?")
    assert notes.source == "**Say**\n\nLess."
    assert [cell.metadata.slideshow.slide_type for cell in (first, second, third, notes)] == [
        "slide", "slide", "subslide", "notes",
    ]  # fmt: skip


def test_a_submission_runs_the_exercises_the_students_own_cells_and_what_they_use():
    def lesson(source):
        return new_code_cell(source, metadata={"tags": ["lesson"]})

    cells = [
        lesson("import torch"), lesson("sizes = torch.ones(3)"), lesson("train_for_minutes()"),
        lesson("import math"), new_code_cell("from math import *\nhelper = sizes.sum"), lesson("print(sizes)"),
        new_code_cell("def f():\n    return helper()", metadata={"nbgrader": {"solution": True}}),
        new_code_cell("def g(:", metadata={"nbgrader": {"solution": True}}),
    ]  # fmt: skip
    for _ in range(2):
        notebook, resources = skip_lesson(new_notebook(cells=cells), {"kept": 1})
        nbformat.validate(notebook)
        skipped = [number for number, cell in enumerate(notebook.cells) if "skip-execution" in tags(cell)]
        assert skipped == [2, 3, 5] and resources == {"kept": 1}


def test_a_course_grows_and_keeps_what_instructors_changed(tmp_path, capsys):
    assert len(write_course(PATHS[1:2], tmp_path)) == 1
    config, page = tmp_path / "nbgrader_config.py", tmp_path / "source" / PATHS[1].stem / PATHS[1].name
    for file in (config, page):
        file.write_text("mine")
    assert main(["grading", "--output", str(tmp_path), "--only", "01", "02"]) == 0
    assert "course, pages written: 1; there already and left as they are: 1" in capsys.readouterr().out
    assert config.read_text() == page.read_text() == "mine"
    page.unlink()
    assert write_course(PATHS[1:3], tmp_path) == [page]


def test_pictures_and_links_of_a_page_come_along(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"picture")
    page = new_notebook(cells=[new_markdown_cell("# A\n\n![alt](images/a.png) and [B](02_b.ipynb#part)")])
    nbformat.write(page, tmp_path / "01_a.ipynb")
    write_edition("instructor", [tmp_path / "01_a.ipynb"], tmp_path / "flat")
    assert (tmp_path / "flat" / "images" / "a.png").read_bytes() == b"picture"
    (written,) = write_course([tmp_path / "01_a.ipynb"], tmp_path / "course")
    assert (written.parent / "images" / "a.png").read_bytes() == b"picture"
    assert "](02_b.ipynb#part)" in (tmp_path / "flat" / "01_a.ipynb").read_text()
    assert "](../02_b/02_b.ipynb#part)" in written.read_text()


def test_the_command_line(tmp_path, capsys):
    assert main(["editions", "instructor", "--output", str(tmp_path / "all"), "--only", "02", "7"]) == 0
    assert [path.name[:2] for path in sorted((tmp_path / "all").iterdir())] == ["02", "07"]
    assert "instructor, pages written: 2" in capsys.readouterr().out
    assert main(["grading", "--output", str(tmp_path / "course"), "--only", "02"]) == 0
    assert (tmp_path / "course" / "nbgrader_config.py").exists()
    assert main(["editions", "student", "--output", str(tmp_path), "--only", "99"]) == 2
    assert "No notebook '99'" in capsys.readouterr().err
    assert main(["editions", "student", "--output", str(NOTEBOOKS), "--only", "02"]) == 2
    assert "choose another --output" in capsys.readouterr().err
