"""Notebook files: read as UTF-8 with or without a BOM; a file that is not a notebook is named."""

import hashlib
import json
from pathlib import Path

from ..errors import LabError
from ..files import read_text


def read_notebook(path: str | Path):
    """A notebook of format 4.

    Parameters
    ----------
    path : an .ipynb file

    Returns
    -------
    NotebookNode

    Raises
    ------
    LabError
        The file cannot be read, is not UTF-8, or is not a notebook.
    """
    import nbformat

    text = read_text(path)
    try:
        written = json.loads(text)
        if not isinstance(written, dict) or type(written.get("nbformat")) is not int:
            raise ValueError("it does not say which nbformat it is")  # nbformat takes it for 1, without any cells
        return nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat's own errors have no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise LabError(
            f"{path} is not a notebook ({reason}). If it is one of the course: `git checkout -- notebooks`."
        ) from error


def notebook_bytes(notebook) -> bytes:
    """The bytes of a notebook's file."""
    import nbformat

    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    return text.encode("utf-8", "backslashreplace")  # half a character becomes JSON's own escape


def digest(notebook) -> str:
    """What identifies a notebook's content: its cells with their outputs, not how it was saved."""
    parts = ("cell_type", "source", "outputs", "attachments")
    cells = [[cell.get(part) or None for part in parts] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode("ascii")).hexdigest()
