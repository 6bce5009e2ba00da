"""A page of the course on the card: every cell, in fast mode, in a shell of IPython."""

import contextlib
import os
import time

from ..folders import NOTEBOOKS
from ..notebook.notebook_files import read_notebook
from .sections import Finding, Setting
from .stand_in import tokenizer_folder

MOST_SHOWN = 5  # cells that failed


def page(setting: Setting, stem: str) -> Finding:
    """Run a page's cells, those after a failing one too, with the embedded model."""
    tokenizer_folder()
    cells = [cell["source"] for cell in read_notebook(NOTEBOOKS / f"{stem}.ipynb").cells if cell["cell_type"] == "code"]
    began = time.perf_counter()
    with _in_folder(NOTEBOOKS):
        failed = _run(cells)
    values = {"cells": len(cells), "failed": len(failed), "seconds": time.perf_counter() - began}
    values |= {f"cell {number}": error for number, error in failed[:MOST_SHOWN]}
    first = f"cell {failed[0][0]} of {len(cells)}: {failed[0][1]}" if failed else f"{len(cells)} cells"
    return Finding(not failed, first, values)


def _run(cells: list[str]) -> list[tuple[int, str]]:
    """(number among the code cells, from 1, and the error) of each cell that raises."""
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        """Shows figures to nobody."""

        def enable_gui(self, gui=None):
            """No window is opened."""

    shell, failed = Shell.instance(), []
    try:
        shell.run_line_magic("load_ext", "lab_utils.notebook.extras")  # a kernel of `make lab` has it
        for number, source in enumerate(cells, 1):
            done = shell.run_cell(source)
            error = done.error_before_exec or done.error_in_exec
            if error is not None:
                failed.append((number, f"{type(error).__name__}: {error}".splitlines()[0][:200]))
    finally:
        shell.reset(new_session=False)  # lets go of the page's models
        Shell.clear_instance()
    return failed


@contextlib.contextmanager
def _in_folder(folder):
    """A context in which this is the working folder, as it is a kernel's."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
