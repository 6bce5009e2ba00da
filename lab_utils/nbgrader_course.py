"""A course folder for nbgrader: settings, the instructor's edition of each page, and what grading runs of it."""

import re
from pathlib import Path

from .cells import needed
from .editions import LESSON, instructor_edition, write_notebook

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

# Grading: of the lesson only what the exercises need is run, and in fast mode (`lab_utils.device.fast_mode` knows).
# A cell that overruns is interrupted and earns nothing.
c.Autograde.autograde_preprocessors.prepend(["lab_utils.nbgrader_course.skip_lesson"])
c.Execute.timeout = 120  # seconds a cell
c.Execute.interrupt_on_timeout = True
c.Execute.iopub_timeout = 30
'''


def write_course(paths: list[Path], folder: Path) -> list[Path]:
    """Make a course folder, or add pages to it: `nbgrader_config.py` and `source/NN_topic/NN_topic.ipynb`.

    A page is an assignment of one notebook. Whatever is there already stays as it is, since whoever teaches may have
    changed it: delete a notebook to have it made anew.

    Parameters
    ----------
    paths : committed notebooks
    folder : the course

    Returns
    -------
    list of Path, the notebooks that were written
    """
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    written = []
    for path in paths:
        target = folder / "source" / path.stem / path.name
        if not target.exists():
            edition = relink(instructor_edition(nbformat.read(path, as_version=4)))
            written.append(write_notebook(edition, target, path.parent))
    return written


def relink(notebook):
    """Let links from page to page fit folders of one page each; changes and returns the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(([\w-]+)\.ipynb", r"](../\1/\1.ipynb", cell.source)
    return notebook


def skip_lesson(notebook, resources: dict) -> tuple:
    """nbgrader's step before it runs a submission: mark the cells of the lesson that nothing graded needs.

    Cells of the student's own are always run, and so is every cell whose names a cell that is run uses.

    Parameters
    ----------
    notebook : NotebookNode; marked with the tag that nbclient passes over. A second call changes nothing.
    resources : dict, handed through

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
