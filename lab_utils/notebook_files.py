"""Notebooks on the disk: read as UTF-8 with or without a BOM, and what is no notebook is named."""

from pathlib import Path

from .errors import LabError
from .files import read_text


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
        The file cannot be read, is not UTF-8, or is no notebook.
    """
    import nbformat

    try:
        return nbformat.reads(read_text(path), as_version=4)
    except LabError:
        raise
    except Exception as error:  # nbformat's own errors have no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise LabError(
            f"{path} is not a notebook ({reason}). If it is one of the course: `git checkout -- notebooks`."
        ) from error


def notebook_bytes(notebook) -> bytes:
    """A notebook as it lies on the disk."""
    import nbformat

    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode("utf-8")
