"""What a page says and does, for tests that hold its sentences against what is computed or recorded."""

from functools import cache

import nbformat

from lab_utils.folders import NOTEBOOKS


@cache
def sources(notebook: str, kind: str) -> tuple[str, ...]:
    """The cells of a page, named by its file, that are of one kind: "markdown" or "code"."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    return tuple(cell.source for cell in cells if cell.cell_type == kind)


def prose(notebook: str) -> str:
    """All Markdown of a page in one line."""
    return " ".join(" ".join(source.split()) for source in sources(notebook, "markdown"))


def code(notebook: str) -> str:
    """All code of a page."""
    return "\n".join(sources(notebook, "code"))


def code_cell(notebook: str, text: str) -> str:
    """The only code cell of a page that has `text`."""
    (found,) = [source for source in sources(notebook, "code") if text in source]
    return found
