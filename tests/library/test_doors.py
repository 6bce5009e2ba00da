"""The two tables of doors, in the README and in `lab_utils.__doc__`: each names the pages that import the door."""

import ast
import re

import pytest
from page_prose import code

import lab_utils
from lab_utils.folders import NOTEBOOKS, ROOT

PAGES = [path.name for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
ROW = {
    "README": (r"^\| `(\w+)` \| (.+?) \| .+\? \| `from ", (ROOT / "README.md").read_text(encoding="utf-8")),
    "docstring": (r"^    (\w+) +((?:\d\d|A)(?:[–,] ?(?:\d\d|A))*) ", lab_utils.__doc__),
}


def imported(notebook: str) -> set[str]:
    """The rooms of lab_utils that a page imports from."""
    lines = [line for line in code(notebook).splitlines() if not line.lstrip().startswith(("%", "!"))]
    found = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lab_utils":
            room = node.module.split(".")[1:2]
            found.update(room or (alias.name for alias in node.names))
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lab_utils."))
    return found


def in_words(pages: list[str]) -> str:
    """Pages with three or more in a row as a span: "01, 05–07, A"."""
    runs = []
    for page in pages:
        if runs and page.isdigit() and int(page) == int(runs[-1][-1]) + 1:
            runs[-1].append(page)
        else:
            runs.append([page])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def test_pages_in_words():
    assert in_words(["00", "01", "03", "04", "05", "A"]) == "00, 01, 03–05, A"


@pytest.mark.parametrize("where", ROW)
def test_a_table_of_doors_names_the_pages_that_import_each(where):
    users = {}
    for notebook in PAGES:
        for room in imported(notebook):
            users.setdefault(room, []).append(notebook.partition("_")[0])
    table = dict(re.findall(*ROW[where], flags=re.MULTILINE))
    assert len(table) > 20
    assert table == {room: in_words(users[room]) for room in table}
