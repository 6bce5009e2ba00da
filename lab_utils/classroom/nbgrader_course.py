"""A course folder for nbgrader: settings, the instructor's edition of each page, and what grading runs of it."""

import re
from pathlib import Path

from ..errors import LabError
from ..files import user_path
from ..notebook.cells import needed
from ..notebook.notebook_files import read_notebook
from ..outputs import output_folder, save
from .editions import LESSON, edition_files, instructor_edition

CONFIG = '''"""nbgrader's settings for LoRA Lab, read by every `nbgrader` command in this folder. Yours to change."""

import os
import sys

c = get_config()  # noqa: F821

os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # nbgrader calls `alembic`
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python, not one of the home folder

c.CourseDirectory.course_id = "lora-lab"

# Releasing: a solution gives way to the stub of the page, and notes and hints stay here.
c.ClearSolutions.code_stub = {"python": "..."}
c.GenerateAssignment.preprocessors.prepend(["nbconvert.preprocessors.TagRemovePreprocessor"])
c.TagRemovePreprocessor.enabled = True
c.TagRemovePreprocessor.remove_cell_tags = {"notes", "hint"}

# Grading: of the lesson only what the exercises need is run, in fast mode (`lab_utils.environment.fast_mode`).
# A cell that overruns is interrupted and earns nothing.
c.Autograde.autograde_preprocessors.prepend(["lab_utils.classroom.nbgrader_course.skip_lesson"])
c.Execute.timeout = 120  # seconds per cell
c.Execute.interrupt_on_timeout = True
c.Execute.iopub_timeout = 30
'''


def write_course(paths: list[Path], folder: Path) -> list[Path]:
    """Create a course folder, or add pages to it: `nbgrader_config.py` and `source/NN_topic/NN_topic.ipynb`.

    A page is an assignment of one notebook. Existing files are not changed, since an instructor may have
    changed it: to have a notebook written again, delete it.

    Parameters
    ----------
    paths : committed notebooks
    folder : the course; `~` is expanded

    Returns
    -------
    list of Path, the notebooks that were written

    Raises
    ------
    LabError
        nbgrader could not work in this folder, it cannot be written, or a page cannot be read.
    """
    folder = user_path(folder)
    refuse_patterns(folder)
    wanted = [path for path in paths if not (folder / "source" / path.stem / path.name).exists()]
    editions = [relink(instructor_edition(read_notebook(path))) for path in wanted]
    folder = output_folder(folder)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        save(config, CONFIG)
    written = []
    for path, edition in zip(wanted, editions, strict=True):
        home = folder / "source" / path.stem
        *pictures, notebook = edition_files(edition, path).items()
        for name, content in (*pictures, notebook):  # the notebook last: it says that the page is complete
            if not (home / name).exists():
                save(home / name, content)
        written.append(home / path.name)
    return written


def refuse_patterns(folder: Path) -> None:
    """Raise a LabError if the path of a course contains a character that nbgrader cannot handle.

    nbgrader looks for files with the whole path as a pattern (`glob`), in which *, ? and [ have a meaning. The path is
    also part of its gradebook's address: there ? ends it, and %41 is an A.
    """
    where = str(folder.absolute())
    if found := re.search(r"[*?[]|%[0-9A-Fa-f]{2}", where):
        raise LabError(
            f"The path of the course, {where}, contains {found[0]!r}. nbgrader reads *, ? and [ in a path as a "
            "pattern, and % before two digits as a code, and would look elsewhere. Choose a path without them; spaces "
            "and other characters are fine."
        )


def relink(notebook):
    """Let links from page to page fit folders of one page each; changes and returns the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(([\w-]+)\.ipynb", r"](../\1/\1.ipynb", cell.source)
    return notebook


def skip_lesson(notebook, resources: dict) -> tuple:
    """nbgrader's step before it runs a submission: mark the cells of the lesson that no graded cell needs.

    Cells of the student's own are always run, and so is every cell whose names a cell that is run uses.

    Parameters
    ----------
    notebook : NotebookNode; its cells are marked with the tag that nbclient skips. A second call changes nothing.
    resources : dict, returned unchanged

    Returns
    -------
    (notebook, resources)
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in code]
    own = {index for index, cell in enumerate(code) if LESSON not in cell.metadata.get("tags", [])}
    wanted = own.union(*(needed(sources, index) for index in own))
    for index, cell in enumerate(code):
        if index not in wanted:
            cell.metadata["tags"] = [LESSON, "skip-execution"]
    return notebook, resources
