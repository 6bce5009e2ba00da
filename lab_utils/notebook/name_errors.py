"""After a NameError in a notebook one paragraph says which cell makes the missing name.

Cells run out of order, or after the kernel was restarted, fail with a bare `NameError: name 'photo' is not defined`.
`install` adds a paragraph below IPython's own traceback: the cell to run, the heading it is under, and the quick way.
It does the same for a missing package and for an interrupted cell.

It is there in three ways. `import lab_utils`, which every page's first cell does, installs it in the notebook
it runs in; outside IPython it does nothing. For cells run before any import, a fresh kernel loads it as an
extension of IPython: `python -m lab_utils.notebook.name_errors` writes that into this Python's environment, and `make
lab` calls it. By hand: `%load_ext lab_utils.notebook.name_errors`.
"""

import os
import re
import sys
import traceback
from pathlib import Path

from ..errors import LabError, command_line
from ..files import append_text, read_json, read_text, user_path, write_text
from ..folders import NOTEBOOKS, ROOT
from ..outputs import explained, print_anything
from ..printing import folded
from .cells import bound_names, maker
from .extras import extra_of, missing, needs, skipped
from .hosts import host

OLD_EXTENSION = 'c.InteractiveShellApp.extensions.append("lab_utils.stranded")'  # still in existing environments
EXTENSION = 'c.InteractiveShellApp.extensions.append("lab_utils.notebook.name_errors")'


def install(shell=None) -> bool:
    """Explain NameErrors, missing packages and interrupts in this IPython session from now on.

    Parameters
    ----------
    shell : InteractiveShell, optional
        Default: the one this code runs in.

    Returns
    -------
    bool, False without IPython, or if it has another handler of exceptions already: that one stays
    """
    if shell is None:
        ipython = sys.modules.get("IPython")  # if it runs this code it has been imported
        shell = getattr(ipython, "get_ipython", lambda: None)()
    if shell is None or (shell.custom_exceptions and not _ours(shell)):
        return False
    shell.set_custom_exc((NameError, ImportError, KeyboardInterrupt), _show)
    shell.explains_name_errors = _show
    return True


def load_ipython_extension(shell) -> None:
    """What `%load_ext lab_utils.notebook.name_errors` and IPython's configuration call."""
    install(shell)


def unload_ipython_extension(shell) -> None:
    """What `%unload_ext lab_utils.notebook.name_errors` calls."""
    if _ours(shell):
        shell.set_custom_exc((), None)


def at_every_start(folder: str | Path | None = None) -> Path:
    """Make every new kernel of this Python load the extension.

    Parameters
    ----------
    folder : path, optional
        Where IPython looks for `ipython_config.py`. Default: `etc/ipython` of this Python's environment.

    Returns
    -------
    Path of the configuration file; what was in it before is kept

    Raises
    ------
    LabError
        The file cannot be read or written, or is not UTF-8; it is unchanged.

    Source: https://ipython.readthedocs.io/en/stable/config/intro.html
    """
    from importlib.metadata import PackageNotFoundError, distribution

    path = user_path(folder or Path(sys.prefix) / "etc" / "ipython") / "ipython_config.py"
    before = read_text(path) if os.path.lexists(path) else ""
    if EXTENSION in before:
        return path
    if OLD_EXTENSION in before:
        with explained(path):
            write_text(path, before.replace(OLD_EXTENSION, EXTENSION))
        return path
    lines = [EXTENSION] if before.strip() else ["c = get_config()", EXTENSION]
    try:
        distribution("lora-lab")
    except PackageNotFoundError:  # a clone that is not installed as a package
        lines.insert(-1, f"__import__('sys').path.append({str(ROOT)!a})")
    with explained(path):
        append_text(path, "\n".join(lines) + "\n")
    return path


def _ours(shell) -> bool:
    return getattr(shell, "explains_name_errors", None) is not None and KeyboardInterrupt in shell.custom_exceptions


def _show(shell, kind, error, trace, tb_offset=None) -> None:
    """IPython's own traceback, and below it the advice. Advice that fails is left out.

    IPython cannot draw a frame that was interrupted where Python keeps no line number: then Python's own is shown.
    """
    try:
        lines = shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset=tb_offset)
    except Exception:
        lines = [line.rstrip("\n") for line in traceback.format_exception(kind, error, trace)]
    try:
        advice = _advice(shell, error, trace)
    except Exception:  # whatever is wrong with the session: the traceback is what matters
        advice = None
    shell._showtraceback(kind, error, [*lines, "", folded(advice)] if advice else lines)


def _advice(shell, error: BaseException, trace) -> str | None:
    """One paragraph on what to do; None where there is nothing to add."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted: this cell has not done its work. Run it again before you go on to the next ones."
    if isinstance(error, ImportError):
        return _package_advice(error)
    while trace.tb_next:
        trace = trace.tb_next
    name = getattr(error, "name", None)
    in_page = trace.tb_frame.f_globals is shell.user_global_ns
    if type(error) is not NameError or name is None or not in_page:
        return None  # a fault inside a library, or a local variable: no cell would fix it
    ran = [text.strip() for text in shell.history_manager.input_hist_raw[1:]]
    return _name_advice(name, ran[-1] if ran else "", ran[:-1])


def _package_advice(error: ImportError) -> str | None:
    """What to do about a missing package."""
    name = (error.name or "").partition(".")[0]
    if name == "lab_utils":
        return (
            "This page and the course's own package lab_utils do not belong together: one of them is older. Update "
            "the whole course, then restart the kernel (Kernel ▸ Restart Kernel…)."
        )
    if not name or not isinstance(error, ModuleNotFoundError):
        return None
    if extra := extra_of(name):
        return f"{missing(extra)}. Then run this cell again."
    if here := host():
        fix = f"Run the page's first code cell: it installs what {here.name} lacks of the course's packages."
    else:
        fix = "Stop JupyterLab and start it with `make lab` in the course's folder: it installs the course's packages."
    fix += f" If {name} is not part of the course: `%pip install {name}`, then restart the kernel."
    return f"The package {name} is not installed in this kernel's Python ({sys.executable}). {fix}"


def _name_advice(name: str, failed: str, ran: list[str]) -> str:
    """Which cell makes `name`, for the cell of source `failed`; `ran` are the sources run before it."""
    here = host()
    above = here.above if here else "Run ▸ Run All Above Selected Cell"
    quick = f", or run all cells above it at once: {above}"
    page = _find_page(failed, ran)
    if page is None:
        return f"`{name}` is made by a cell that has not run since the kernel was started. Run that one first{quick}."
    path, cells = page
    sources = [source.strip() for source, _ in cells]
    here = sources.index(failed) if failed in sources else None
    index = maker(sources, name, len(sources) if here is None else here)
    if index is None and name in bound_names(failed):
        return f"This very cell makes `{name}`, but only after it is used."
    where = "above"
    if index is None:
        index, where, quick = maker(sources, name, len(sources)), "further down", ""
    if index is None:
        return (
            f"No cell of {path.name} makes `{name}`: is it spelled right? If it is from your own cell, run that "
            f"one first{quick}."
        )
    source, heading = cells[index]
    first = source.strip().splitlines()[1 if needs(source) else 0]
    under = f', under "{heading}"' if heading else ""
    if source.strip() in ran and (why := skipped(source)):
        return f"`{name}` is made {where}, by code cell {index + 1} of {path.name}{under}. It was skipped: {why}."
    state = "has not run since the kernel was started" if source.strip() not in ran else "did not get that far"
    return (
        f"`{name}` is made {where}, by code cell {index + 1} of {path.name}{under}. It begins with `{first}` and "
        f"{state}. Run it first and then this cell again{quick}."
    )


def _find_page(failed: str, ran: list[str]) -> tuple[Path, list[tuple[str, str]]] | None:
    """The notebook that holds the failed cell, with its code cells; else the kernel's own, else the one in use."""
    own = Path(os.environ.get("JPY_SESSION_NAME", "") or "no notebook is known")
    best, best_rank = None, (False, False, 0)
    for path in [own, *sorted(Path.cwd().glob("*.ipynb")), *sorted(NOTEBOOKS.glob("*.ipynb"))]:
        try:
            cells = _code_cells(path)
        except (LabError, LookupError, TypeError, AttributeError):
            continue  # not a notebook, or one that is being written
        sources = {source.strip() for source, _ in cells}
        rank = (failed in sources, path == own, len(sources.intersection(ran)))
        if rank > best_rank:
            best, best_rank = (path, cells), rank
    return best


def _code_cells(path: Path) -> list[tuple[str, str]]:
    """(source, the heading it is under) of each code cell of a notebook file."""
    found, heading = [], ""
    for cell in read_json(path)["cells"]:
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        if cell["cell_type"] == "code":
            found.append((source, heading))
        elif cell["cell_type"] == "markdown":
            titles = re.findall(r"^#+ (.+)", re.sub(r"^```.*?^```", "", source, flags=re.M | re.S), flags=re.M)
            heading = titles[-1].strip() if titles else heading
    return found


@command_line
def main() -> int:
    """The command line; returns the exit code."""
    print_anything()
    print(f"New kernels explain NameErrors: {at_every_start()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
