"""What opens a page elsewhere: its badges for Colab and Kaggle, and its first cell, which fetches the lab there.

The address of the repository is in pyproject.toml only; `python -m lab_utils.notebook.colab --write` puts badges and
cells made from it into every notebook and into the README.
"""

import re
from pathlib import Path

from ..errors import LabError
from ..files import read_text
from ..folders import NOTEBOOKS, ROOT
from .extras import project
from .hosts import COLAB, KAGGLE
from .notebook_files import notebook_bytes, read_notebook

TAG = "colab"  # of the first cell
BRANCH = "main"
START = "00_start_here.ipynb"
OLD_BADGE = re.compile(r"^.*//colab\.research\.google\.com/.*$")
CELL = '''\
# @title On Colab or Kaggle: fetch the lab and what is missing there, once. Anywhere else this cell does nothing.
import os
import sys

on_kaggle = "KAGGLE_KERNEL_RUN_TYPE" in os.environ
if on_kaggle or "google.colab" in sys.modules:
    import subprocess

    lab, address = "{kaggle}" if on_kaggle else "{colab}", "{repository}"
    if not os.path.exists(lab):
        command = ["git", "clone", "--quiet", "--depth", "1", address, lab]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            hint = "switch Internet on in the notebook's settings, and run" if on_kaggle else "run"
            raise RuntimeError(f"The lab was not fetched: {{hint}} this cell again. git says: {{done.stderr.strip()}}")
    if lab not in sys.path:
        sys.path.insert(0, lab)
    from lab_utils.notebook import colab

    colab.setup()'''


def repository() -> str:
    """The address of the repository, as pyproject.toml has it."""
    return project()["urls"]["Repository"].removesuffix("/")


def badges(notebook: str, images: str = "images") -> list[str]:
    """A line of Markdown for each service that opens a notebook by its address: Colab, then Kaggle.

    Parameters
    ----------
    notebook : str, file name, as "01_rank_one.ipynb"
    images : str, path of the pictures, which are there without a network

    Raises
    ------
    LabError
        The repository is not on GitHub: these services open no other by its address.
    """
    name = _on_github()
    page = f"github.com/{name}/blob/{BRANCH}/notebooks/{notebook}"
    colab = f"https://colab.research.google.com/{page.replace('.com', '', 1)}"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://{page}"
    return [
        f"[![Open in Colab]({images}/open_in_colab.svg)]({colab})",
        f"[![Open in Kaggle]({images}/open_in_kaggle.svg)]({kaggle})",
    ]


def readme_badges() -> str:
    """The README's line of badges: page 00 on each service, and the whole lab in a GitHub codespace."""
    images = "notebooks/images"
    codespace = f"https://codespaces.new/{_on_github()}?quickstart=1"
    return " ".join([*badges(START, images), f"[![Open in Codespaces]({images}/open_in_codespaces.svg)]({codespace})"])


def _on_github() -> str:
    """OWNER/NAME of the repository."""
    found = re.fullmatch(r"https://github\.com/([^/\s]+/[^/\s]+)", repository())
    if not found:
        raise LabError(
            f"Colab and Kaggle open notebooks from https://github.com/OWNER/NAME, not from {repository()!r}: "
            "set [project.urls] Repository in pyproject.toml."
        )
    return found[1]


def first_cell() -> str:
    """The source of a page's first code cell."""
    return CELL.format(colab=COLAB.clone, kaggle=KAGGLE.clone, repository=repository())


def updated(notebook, name: str):
    """The same notebook (an nbformat NotebookNode) with today's badges below its title and today's first cell.

    Raises
    ------
    LabError
        Its first cell is not a title in Markdown.
    """
    import copy

    from nbformat.v4 import new_code_cell

    new = copy.deepcopy(notebook)
    if not new.cells or new.cells[0].cell_type != "markdown" or not new.cells[0].source.strip():
        raise LabError(f"{name} does not begin with a cell of Markdown: write its title there, as `# 01 · Title`.")
    title = new.cells[0]
    heading, *lines = [line for line in title.source.splitlines() if not OLD_BADGE.match(line)]
    title.source = "\n".join([heading, "", " ".join(badges(name)), "", *"\n".join(lines).strip("\n").splitlines()])
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}  # on Colab its title only, in JupyterLab a bar
    setup_cell = new_code_cell(first_cell(), id=TAG, metadata={**folded, "tags": [TAG]})
    new.cells = [title, setup_cell, *(one for one in new.cells[1:] if TAG not in one.metadata.get("tags", []))]
    return new


def stale(notebooks: Path = NOTEBOOKS, readme: Path = ROOT / "README.md") -> dict[Path, str]:
    """The files whose badges or first cell are not those of today: path -> the text that should be there.

    Parameters
    ----------
    notebooks : Path of a folder
    readme : Path; one without a line of badges, or that is not there, is left alone

    Raises
    ------
    LabError
        A notebook cannot be read, or has no title.
    """
    found = {}
    for path in sorted(path for path in notebooks.glob("*.ipynb") if path.is_file()):
        new = notebook_bytes(updated(read_notebook(path), path.name))
        if new != path.read_bytes():
            found[path] = new.decode("utf-8")
    text = read_text(readme) if readme.is_file() else ""
    new = "\n".join(readme_badges() if OLD_BADGE.match(line) else line for line in text.split("\n"))
    return found if new == text else {**found, readme: new}
