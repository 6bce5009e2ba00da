"""IPython sessions without a kernel, and pages made for them."""

import re

import nbformat
from unfolded import unfolded

from lab_utils.notebook import name_errors


def write(path, texts):
    """A notebook of these cells; those that start with # are prose."""
    new = nbformat.v4
    cells = [new.new_markdown_cell(text) if text.startswith("#") else new.new_code_cell(text) for text in texts]
    nbformat.write(new.new_notebook(cells=cells), path)


def new_session(folder, monkeypatch):
    """An IPython session in a folder that is all of the course it knows."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.chdir(folder)
    monkeypatch.setattr(name_errors, "NOTEBOOKS", folder / "course")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}), colors="nocolor")


def listener(shell, capsys):
    """A function that runs cells and returns what the last one showed."""

    def run(*sources):
        for source in sources:
            capsys.readouterr()
            shell.run_cell(source, store_history=True)
        return unfolded(capsys.readouterr().out)

    return run


def bare(shown):
    """What was shown, less the number of its cell."""
    return re.sub(r"^(Cell In|File <).*\n", "", shown, flags=re.MULTILINE)
