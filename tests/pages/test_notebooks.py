"""Every notebook: clean as committed, and running from top to bottom in fast mode, half of them twice in one kernel.

Whether a page can be run again lies in its code, not in the model's weights: the pages in AGAIN are run a second time
with a small model, on a pretended card (test_pretended_pages.py). The museum's assertions hold for the real one alone.
"""

from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from pretended_pages import AGAIN, NEVER_ASK

from lab_utils.classroom.course import FAST_CELL_SECONDS, NOTEBOOKS, execute

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MOST_LINES = 25
IN_A_ROW = {"02", "03", "04"}  # whose cells are run twice in a row, too; page 01 is in test_people.py
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells_of(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def test_there_are_notebooks():
    assert PATHS


@each_notebook
def test_valid_and_of_this_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_no_outputs_are_committed(path):
    code = [cell for cell in cells_of(path) if cell.cell_type == "code"]
    full = [cell.source.splitlines()[0] for cell in code if cell.outputs or cell.execution_count is not None]
    assert not full, f"strip them with: nbstripout --keep-id {path.name}"
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


@each_notebook
def test_code_cells_are_short(path):
    long = {
        number: len(cell.source.splitlines())
        for number, cell in enumerate(cells_of(path))
        if cell.cell_type == "code" and len(cell.source.splitlines()) > MOST_LINES
    }
    assert not long, f"cells (index: lines) of more than {MOST_LINES} lines"


@each_notebook
def test_most_code_follows_prose(path):
    kinds = [cell.cell_type for cell in cells_of(path)]
    before_code = [first for first, second in pairwise(kinds) if second == "code"]
    assert kinds[0] == "markdown"
    assert before_code.count("markdown") >= 0.8 * len(before_code)


@pytest.mark.notebook
@each_notebook
def test_runs_in_fast_mode(path, tmp_path):
    """Real 4-bit training on the real model, shortened. `execute` fails a cell on its wall time too.

    Of a page in IN_A_ROW the second time runs each cell twice before the next one.
    """
    number = path.stem.partition("_")[0]
    passes, repeats = 1 + (number not in AGAIN), 1 + (number in IN_A_ROW)
    environment = {"LORA_LAB_FAST": "1", "LORA_LAB_RUNS": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    if number in NEVER_ASK:
        environment["LORA_LAB_DEVICE"] = "nobody asks"  # a page that does is refused
    page = execute(path, timeout_seconds=FAST_CELL_SECONDS, environment=environment, passes=passes, repeats=repeats)
    slowest, cells = max(page.cell_seconds), sum(cell.cell_type == "code" for cell in page.notebook.cells)
    print(f"{path.name}: {len(page.cell_seconds)} cells in {page.seconds:.0f} s, the slowest {slowest:.0f} s")
    assert page.failure is None, f"{path.name} failed in {page.failure}"
    assert len(page.cell_seconds) == (passes - 1 + repeats) * cells
    assert slowest < FAST_CELL_SECONDS
