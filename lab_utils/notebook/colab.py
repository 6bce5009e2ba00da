"""Google Colab: a page's badge and first cell, the packages that Colab lacks, and checkpoints on Google Drive.

    python -m lab_utils.notebook.colab            which notebooks have an old badge or first cell
    python -m lab_utils.notebook.colab --write    put both into every notebook

The address of the repository is in pyproject.toml, and what the lab installs there in `colab_packages`.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

from ..errors import LabError, command_line
from ..files import explain
from ..folders import NOTEBOOKS, ROOT
from ..outputs import print_anything, save
from .colab_packages import WITHOUT_DEPENDENCIES, in_the_way, install, missing, refuse_stale, uninstall
from .extras import project
from .notebook_files import notebook_bytes, read_notebook

TAG = "colab"  # of the first cell
BRANCH = "main"
CLONE = "/content/lora-lab"  # where the first cell puts the lab
DRIVE = Path("/content/drive")
CELL = '''# @title On Google Colab: fetch the lab and what Colab lacks, once. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    lab, address = "{clone}", "{repository}"
    if not os.path.exists(lab):
        command = ["git", "clone", "--quiet", "--depth", "1", address, lab]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"The lab could not be fetched. Run this cell again. git says: {{done.stderr.strip()}}")
    if lab not in sys.path:
        sys.path.insert(0, lab)
    from lab_utils.notebook import colab

    colab.setup()'''


def on_colab() -> bool:
    """Is this a kernel of Google Colab? Colab imports its own package before the first cell."""
    return "google.colab" in sys.modules


def repository() -> str:
    """The address of the repository, as pyproject.toml has it."""
    return project()["urls"]["Repository"].removesuffix("/")


def badge(notebook: str) -> str:
    """The line of Markdown that opens a notebook, say "01_rank_one.ipynb", in Colab.

    Raises
    ------
    LabError
        The repository is not on GitHub: Colab opens no other by its address.
    """
    found = re.fullmatch(r"https://github\.com/([^/\s]+/[^/\s]+)", repository())
    if not found:
        raise LabError(
            f"Colab opens notebooks from https://github.com/OWNER/NAME, not from {repository()!r}: "
            "set [project.urls] Repository in pyproject.toml."
        )
    page = f"https://colab.research.google.com/github/{found[1]}/blob/{BRANCH}/notebooks/{notebook}"
    return f"[![Open in Colab](images/open_in_colab.svg)]({page})"  # a picture that is there without a network


def updated(notebook, name: str):
    """The same notebook (an nbformat NotebookNode) with today's badge below its title and today's first cell.

    Raises
    ------
    LabError
        Its first cell is no title in Markdown.
    """
    import copy

    from nbformat.v4 import new_code_cell

    new = copy.deepcopy(notebook)
    if not new.cells or new.cells[0].cell_type != "markdown" or not new.cells[0].source.strip():
        raise LabError(f"{name} does not begin with a cell of Markdown: write its title there, as `# 01 · Title`.")
    title = new.cells[0]
    lines = [line for line in title.source.splitlines() if "//colab.research.google.com/" not in line]
    title.source = "\n".join([lines[0], "", badge(name), "", *"\n".join(lines[1:]).strip("\n").splitlines()])
    source = CELL.format(clone=CLONE, repository=repository())
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}  # on Colab its title only, in JupyterLab a bar
    setup_cell = new_code_cell(source, id=TAG, metadata={**folded, "tags": [TAG]})
    new.cells = [title, setup_cell, *(one for one in new.cells[1:] if TAG not in one.metadata.get("tags", []))]
    return new


def stale(folder: Path = NOTEBOOKS) -> dict[Path, str]:
    """The notebooks in `folder` that are not as `updated` has them: path -> the text that should be there.

    Raises
    ------
    LabError
        A notebook cannot be read, or has no title.
    """
    found = {}
    for path in sorted(path for path in folder.glob("*.ipynb") if path.is_file()):
        new = notebook_bytes(updated(read_notebook(path), path.name))
        if new != path.read_bytes():
            found[path] = new.decode("utf-8")
    return found


def setup() -> bool:
    """Make a Colab runtime ready for the lab; elsewhere do nothing and return False. Safe to call again and again.

    Installs what the lab lacks, puts the lab on the path of this kernel and of the programs it starts, and goes to the
    notebooks' folder.

    Raises
    ------
    LabError
        pip failed, the runtime is an old one, or an old version of a package was imported before.
    """
    if not on_colab():
        return False
    began, specs = time.monotonic(), missing()
    if specs:
        print(f"Installing {', '.join(specs)}: up to 70 MB, once for each runtime ...", flush=True)
        alone = [spec for spec in specs if spec.split("==")[0] in WITHOUT_DEPENDENCIES]
        install([spec for spec in specs if spec not in alone])
        install(alone, "--no-deps")
    uninstall(in_the_way())
    refuse_stale()
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, paths)]))
    os.chdir(NOTEBOOKS)
    print(f"The lab is ready ({time.monotonic() - began:.0f} s). Run on.")
    return True


def use_drive(folder: str = "lora-lab") -> Path:
    """Keep checkpoints and adapters on Google Drive, so that they outlive the runtime. Call it before training.

    Parameters
    ----------
    folder : str, in "My Drive"; made if need be

    Returns
    -------
    Path of the runs, also set as LORA_LAB_RUNS for this kernel and the programs it starts.

    Raises
    ------
    LabError
        This is not Colab, Drive was not mounted, or the folder cannot be written.
    """
    if not on_colab():
        raise LabError("Google Drive can be mounted on Colab only. Here, set LORA_LAB_RUNS to a folder that is kept.")
    from google.colab import drive

    try:
        drive.mount(str(DRIVE))
    except Exception as error:  # ValueError, or a MessageError of Colab's own when the reader says no
        raise LabError(
            f"Google Drive was not mounted ({type(error).__name__}: {error}). Run this cell again and allow the "
            "access. Or train without it: checkpoints then last as long as this runtime."
        ) from error
    mine = DRIVE / "MyDrive"
    runs = mine / folder / "runs"
    if not runs.is_relative_to(mine) or ".." in runs.parts:
        raise LabError(f"{folder!r} is not in My Drive. Name a folder that is to be there: colab.use_drive('name').")
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        way_out = "Choose another folder: colab.use_drive('name')."
        raise LabError(f"{runs} cannot be made: {explain(error)} {way_out}") from error
    os.environ["LORA_LAB_RUNS"] = str(runs)
    print(f"Checkpoints and adapters go to {runs}.")
    return runs


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 all notebooks are as they should be, 1 some are not."""
    parser = argparse.ArgumentParser(prog="python -m lab_utils.notebook.colab", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put badge and first cell into every notebook")
    options = parser.parse_args(arguments)
    print_anything()
    old = stale()
    for path, text in old.items():
        if options.write:
            save(path, text)
        print(f"{path.name}: {'written' if options.write else 'not as it should be; --write fixes it'}")
    return 1 if old and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
