"""What a page says, for tests that hold its sentences against what is computed or recorded."""

from functools import cache

import nbformat

from lab_utils.folders import NOTEBOOKS


@cache
def prose(notebook: str) -> str:
    """All Markdown of a page, named by its file, in one line."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    return " ".join(" ".join(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
