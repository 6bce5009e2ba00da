"""Two editions of the notebooks from one source: for students and for instructors.

`python -m lab_utils.classroom editions student|instructor --output DIR [--only NN ...]`. Both editions are in
nbgrader's format: the instructor's is its source (solutions, hidden tests, points, hints, notes, slides), and the
student's is what nbgrader releases of that. `grading` creates a folder in which nbgrader's own commands work.
"""

import ast
import copy
import hashlib
import re
from functools import partial
from pathlib import Path

from ..checks import EXERCISES
from ..checks.exercise import Exercise
from ..checks.report import source
from ..errors import LabError
from ..files import user_path
from ..notebook.cells import bound_names, used_names
from ..notebook.extras import needs
from ..notebook.notebook_files import digest, notebook_bytes, read_notebook
from ..outputs import explained, write_over_own

POINTS = 1  # of each exercise
CAPSTONE_POINTS = 20  # given by hand, by the rubric in its cell
STUB = "..."  # the body of a function that the student writes
FOR_TEACHING = ("notes", "hint")  # tags of cells that students do not get
CAPSTONE = "capstone"  # tag of the cell of prose that sets a task, which an instructor grades
LESSON = "lesson"  # tag of a code cell that is not an exercise: grading skips it unless an exercise needs it
WRITTEN = "lora_lab"  # in an edition's metadata: file -> digest of what was written
_NEW_SLIDE = r"## |\*\*Predict(?! first)"  # the exercises say "Predict first" within their text
_CHECK = re.compile(r'\s*^checks\.check\("(\w+)", \1\)\s*\Z', flags=re.MULTILINE)


def exercise_of(cell) -> str | None:
    """The exercise in a cell of a committed notebook: a stub, with its check as the last line."""
    found = _CHECK.search(cell.source) if cell.cell_type == "code" else None
    return found[1] if found else None


def instructor_edition(notebook):
    """nbgrader's source form of a committed notebook.

    Parameters
    ----------
    notebook : NotebookNode; it is not changed.

    Returns
    -------
    NotebookNode
        Each exercise is three cells: the stub with its solution, the check that awards POINTS, the hints (tag `hint`).
        A cell tagged `capstone` is a task that is graded by hand. Notes (tag `notes`) are unfolded, prose is
        split where a slide begins, and every cell has a slide type.

    Raises
    ------
    LabError
        An exercise is unknown, its cell has no stub, or its solution uses what the page does not have.
    """
    edition, cells = copy.deepcopy(notebook), []
    imported = _imported(edition.cells)
    for cell in edition.cells:
        name, tags = exercise_of(cell), cell.metadata.get("tags", [])
        if name:
            cells += _exercise_cells(cell, name, imported)
        elif cell.cell_type == "code":
            cell.metadata["tags"] = [*tags, LESSON]
            cells.append(cell)
        elif "notes" in tags:
            cell.source = _unfolded(cell.source)
            cells.append(cell)
        elif CAPSTONE in tags:
            cell.metadata["nbgrader"] = _nbgrader(CAPSTONE, task=True, locked=True, points=CAPSTONE_POINTS)
            cells.append(cell)
        else:
            cells += _cut(cell)
    seen = None
    for cell in cells:
        kind = _slide_type(cell, seen)
        cell.metadata["slideshow"] = {"slide_type": kind}
        seen = seen if kind in ("notes", "skip") else cell
    edition.cells = cells
    edition.metadata["rise"] = {"scroll": True}  # for jupyterlab-rise: a long slide can be scrolled
    return edition


def student_edition(notebook):
    """What nbgrader releases of a committed notebook: made by nbgrader's own steps from the instructor's edition.

    Parameters
    ----------
    notebook : NotebookNode; it is not changed.

    Returns
    -------
    NotebookNode
        No solutions, hidden tests, hints or notes; the cells that check cannot be edited.
    """
    from nbgrader import preprocessors as steps

    edition, resources = instructor_edition(notebook), {}
    edition.cells = [cell for cell in edition.cells if not set(FOR_TEACHING) & set(cell.metadata.get("tags", []))]
    for step in (
        steps.LockCells(), steps.ClearSolutions(code_stub={"python": STUB}), steps.ClearOutput(),
        steps.CheckCellMetadata(), steps.ClearHiddenTests(), steps.ComputeChecksums(), steps.CheckCellMetadata(),
    ):  # fmt: skip
        edition, resources = step.preprocess(edition, resources)
    return edition


def _imported(cells: list) -> set[str]:
    """Names that the page's first cell of imports binds."""
    own = [cell for cell in cells if cell.cell_type == "code" and "colab" not in cell.metadata.get("tags", [])]
    return bound_names(own[0].source) if own else set()


def _exercise_cells(cell, name: str, imported: set[str]) -> list:
    """Stub with solution, check with points, hints."""
    from nbformat.v4 import new_code_cell, new_markdown_cell

    exercise = EXERCISES.get(name)
    if exercise is None:
        raise LabError(f"There is no exercise {name!r} in lab_utils.checks: correct the name in its check.")
    if needs(cell.source):  # a skipped cell raises nothing: nbgrader would award all points
        raise LabError(f"Exercise {name!r} must run everywhere to be graded: take the %%needs line out of its cell.")
    stub = _CHECK.sub("", cell.source)
    head, _, placeholder = stub.rpartition("\n")
    if placeholder.strip() != STUB:
        raise LabError(f"The stub of {name!r} must end with a line {STUB!r}, not with {placeholder!r}.")
    indent = placeholder[: len(placeholder) - len(STUB)]
    region = ["### BEGIN SOLUTION", *_solution_body(exercise, imported), "### END SOLUTION"]
    cell.source = "\n".join([head, *(f"{indent}{line}".rstrip() for line in region)])
    cell.metadata["nbgrader"] = _nbgrader(name, solution=True)
    test = (
        f'checks.check("{name}", {name})\n### BEGIN HIDDEN TESTS\n'
        f'checks.grade("{name}", {name})\n### END HIDDEN TESTS'
    )
    check = new_code_cell(test, id=f"{cell.id}-check")
    check.metadata["nbgrader"] = _nbgrader(f"{name}-check", grade=True, locked=True, points=POINTS)
    hints = new_markdown_cell(_hints(exercise), id=f"{cell.id}-hints", metadata={"tags": ["hint"]})
    return [cell, check, hints]


def _nbgrader(grade_id: str, **what) -> dict:
    """A cell's metadata for nbgrader."""
    kind = {"grade": False, "locked": False, "solution": False, "task": False}
    return {**kind, **what, "grade_id": grade_id, "schema_version": 3}


def _solution_body(exercise: Exercise, imported: set[str]) -> list[str]:
    """The lines of a solution, after the imports that the page lacks."""
    text, home = source(exercise.solution), exercise.solution.__globals__
    body = text.splitlines()[ast.parse(text).body[0].body[0].lineno - 1 :]
    imports = []
    for name in sorted(used_names(text) - imported):
        module = getattr(home.get(name), "__name__", None)
        if not isinstance(home.get(name), type(re)):
            raise LabError(f"The solution of {exercise.name!r} uses {name!r}: import that in the page's first cell.")
        imports.append(f"import {module}" if module == name else f"import {module} as {name}")
    return imports + [line.removeprefix("    ") for line in body]


def _hints(exercise: Exercise) -> str:
    """The hints and the common mistakes of an exercise, as Markdown."""
    hints = [f"{number}. {_markdown(hint)}" for number, hint in enumerate(exercise.hints, 1)]
    mistakes = [f"* *{_markdown(mistake.name)}*: {_markdown(mistake.fix)}" for mistake in exercise.mistakes]
    common = "**Common mistakes**, named by the check:"
    return "\n".join([f"**Hints: {exercise.title}**", "", *hints, "", common, "", *mistakes])


def _markdown(text: str) -> str:
    """Plain text as Markdown: text between backticks is code, everything else is literal."""
    parts = text.split("`")
    return "`".join(part if number % 2 else re.sub(r"([*<])", r"\\\1", part) for number, part in enumerate(parts))


def _unfolded(text: str) -> str:
    """Notes without their <details>; the summary becomes a line in bold."""
    text = re.sub(r"<summary>\s*(.*?)\s*</summary>", r"**\1**\n", text, flags=re.DOTALL)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"</?details[^>]*>", "", text)).strip()


def _cut(cell) -> list:
    """A cell of prose, cut before each heading and each prediction in it, and without its badges."""
    from nbformat.v4 import new_markdown_cell

    text = re.sub(r"^.*\bcolab\.research\.google\.com/.*\n*", "", cell.source, flags=re.MULTILINE)
    parts, fenced = [[]], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and re.match(_NEW_SLIDE, line) and any(map(str.strip, parts[-1])):
            parts.append([])
        parts[-1].append(line)
    texts = ["\n".join(part).strip() for part in parts]
    cell.source = texts[0]
    later = [new_markdown_cell(part, id=f"{cell.id}-{number}") for number, part in enumerate(texts[1:], 2)]
    for part in later:
        part.metadata.update(copy.deepcopy(cell.metadata))
    return [cell, *later]


def _slide_type(cell, before) -> str:
    """A section is a slide, a prediction a subslide; code and explanation appear one key press at a time."""
    tags = set(cell.metadata.get("tags", []))
    if tags & set(FOR_TEACHING):
        return "notes"
    if "colab" in tags:
        return "skip"
    if cell.cell_type == "markdown":
        if re.match(r"##? ", cell.source):
            return "slide"
        if cell.source.startswith(("### ", "**Predict")):
            return "subslide"
    revealed = before is not None and (before.cell_type == "code" or before.source.startswith("**Predict"))
    return "fragment" if revealed else "-"


def write_edition(kind: str, paths: list[Path], folder: Path) -> list[Path]:
    """Write the student's or the instructor's edition of notebooks, and the pictures they name; returns the files.

    Parameters
    ----------
    kind : "student" or "instructor"
    paths : committed notebooks
    folder : Path or str; `~` is expanded. Files that an earlier call wrote are replaced if they have not been changed.

    Raises
    ------
    LabError
        `folder` is that of the committed notebooks, contains a file of the same name that was changed after it was
        written there, or cannot be written; or a notebook cannot be read. Nothing is written then.
    """
    make = {"student": student_edition, "instructor": instructor_edition}[kind]
    folder = user_path(folder)
    files: dict[str, bytes] = {}
    for path in paths:
        if folder.resolve() == path.parent.resolve():
            raise LabError(f"{folder} holds the notebooks themselves: choose another --output.")
        files |= edition_files(make(read_notebook(path)), path)
    write_over_own(folder, files, partial(_is_own, folder))
    return [folder / path.name for path in paths]


def _is_own(folder: Path, name: str, content: bytes) -> bool:
    """Is a file in `folder` as an earlier call wrote it? A notebook records digests of itself and its pictures."""
    try:
        if name.endswith(".ipynb"):
            notebook = read_notebook(folder / name)
            return notebook.metadata[WRITTEN]["notebook"] == digest(notebook)
        return any(
            read_notebook(path).metadata.get(WRITTEN, {}).get(name) == hashlib.sha256(content).hexdigest()
            for path in folder.glob("*.ipynb")
        )
    except (LabError, KeyError, TypeError, AttributeError):
        return False


def edition_files(edition, path: Path) -> dict[str, bytes]:
    """An edition of the notebook at `path` and the pictures that its prose names: name -> content, the notebook last.

    The notebook's metadata hold the digests of all of them.

    Raises
    ------
    LabError
        A picture cannot be read.
    """
    prose = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    files = {}
    for name in re.findall(r"!\[[^]]*\]\(([\w./-]+)\)", prose):
        with explained(path.parent / name, "read"):
            files[name] = (path.parent / name).read_bytes()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    edition.metadata[WRITTEN] = {"notebook": digest(edition), **digests}
    return files | {path.name: notebook_bytes(edition)}
