"""Run the whole course with no screen: execute every notebook, and leave an HTML site to read.

`python -m lab_utils.classroom site --help`. Each notebook runs in a fresh kernel of this Python. A notebook that fails
stops at the failing cell; the others still run, the failures are listed at the end, and the exit code is 1.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LabError, command_line
from ..files import user_path
from ..folders import NOTEBOOKS
from ..notebook.notebook_files import read_notebook
from ..outputs import home_for_jupyter, output_folder, print_anything, refuse_others, temporary_folder
from .contents import clock, write_index
from .pages import describe, is_of_site, write_page

CELL_SECONDS, FAST_CELL_SECONDS = 1800, 300
LOG_EVERY_SECONDS = 15  # between two lines of progress, if the output is not a terminal


@dataclass(frozen=True)
class Failure:
    """The cell that ended a page: its number among the code cells (from 1), its source, and what happened."""

    cell: int
    source: str
    error: str

    def __str__(self) -> str:
        source = "\n".join(f"    | {line}" for line in self.source.splitlines())
        error = "\n".join(f"    {line}" for line in self.error.strip().splitlines())
        return f"code cell {self.cell}:\n{source}\n{error}"


@dataclass
class Page:
    """An executed notebook: `notebook` with its outputs, `cell_seconds` of wall time, and a `failure` or None."""

    path: Path
    notebook: object
    cell_seconds: list[float] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all cells together."""
        return sum(self.cell_seconds)


def execute(
    path: Path,
    *,
    timeout_seconds: float = CELL_SECONDS,
    passes: int = 1,
    repeats: int = 1,
    environment: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Page:
    """Execute a notebook top to bottom in a fresh kernel, in the notebook's own folder.

    Parameters
    ----------
    path : Path of an .ipynb file; it is only read.
    timeout_seconds : float
        Longest wall time of one cell. It is checked against the clock too: nbclient can lose a reply and
        return from a timeout as if the cell had passed.
    passes : int
        How many times the page is run in one kernel; 2 shows that running it again does no harm.
    repeats : int
        How many times each cell is run before the next one; of several passes, in the last.
    environment : dict or None
        Variables added to this process's environment for the kernel.
    progress : callable or None
        Called as `progress(cell, cells)` before each code cell, counting from 1 over all runs.

    Returns
    -------
    Page, with the outputs of the last pass. A cell that raises an error, takes too long or kills its kernel ends the
    page: it is in `.failure`, and nothing is raised.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    page = Page(Path(path), read_notebook(path))
    client = client_for(page.notebook, page.path, timeout_seconds)
    indices = [index for index, cell in enumerate(page.notebook.cells) if cell.cell_type == "code"]
    variables = {**os.environ, **(environment or {})}
    with tempfile.TemporaryFile() as log, client.setup_kernel(cleanup_kc=True, env=variables, stdout=log, stderr=log):
        once = list(enumerate(indices, 1))
        order = once * (passes - 1) + [cell for cell in once for _ in range(repeats)]
        for run, (number, index) in enumerate(order):
            cell, start = page.notebook.cells[index], time.monotonic()
            if progress:
                progress(run + 1, len(order))
            error, overran = None, False
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as raised:
                error = _plain(raised.traceback).split("------------------\n", 2)[-1].strip()  # less the cell itself
            except DeadKernelError:
                error = f"The kernel died; most often the memory ran out. Its last words:\n{_last_lines(log)}"
            except CellTimeoutError as raised:
                error, overran = str(raised).splitlines()[0], True
            page.cell_seconds.append(time.monotonic() - start)
            if page.cell_seconds[-1] >= timeout_seconds and (error is None or overran):
                error = f"It took {page.cell_seconds[-1]:.1f} s or more; a cell may take {timeout_seconds:.1f} s."
            if error is not None:
                again = f" (run number {run + 1} of {len(order)})" if passes * repeats > 1 else ""
                page.failure = Failure(number, cell.source, error + again)
                break
        client.set_widgets_metadata()  # of a failed page too: what it has drawn is shown
    return page


def client_for(notebook, path: Path, timeout_seconds: float):
    """An nbclient that runs cells in a kernel of this Python, in the folder of `path`, and loses no output."""
    from nbclient import NotebookClient

    return NotebookClient(
        notebook,
        km=_kernel_manager(),
        timeout=max(1, round(timeout_seconds)),
        iopub_timeout=60,  # on a busy machine what a cell writes may lag behind its reply
        raise_on_iopub_timeout=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )


def _kernel_manager():
    """A kernel manager that starts this Python, whatever kernels are registered on the machine."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(resource_dir="", **get_kernel_dict())

    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython())


def _last_lines(log, count: int = 12) -> str:
    """The last lines that a kernel wrote to its terminal: shown only if it dies."""
    log.seek(0)
    lines = _plain(log.read().decode(errors="replace")).splitlines()
    return "\n".join([line for line in lines if "without encryption" not in line][-count:]) or "(none)"


def _plain(text: str) -> str:
    """Text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class _Line:
    """Progress of one notebook: a line that is redrawn in a terminal; elsewhere a new line every 15 seconds."""

    def __init__(self, name: str):
        self.name, self.start, self.last = name, time.monotonic(), time.monotonic()
        self.terminal = sys.stdout.isatty()
        print(f"{name} ...", end="" if self.terminal else "\n", flush=True)

    def __call__(self, cell: int, cells: int) -> None:
        now = time.monotonic()
        if self.terminal:
            print(f"\r\x1b[2K{self.name}  cell {cell} of {cells}  {clock(now - self.start)}", end="", flush=True)
        elif now - self.last > LOG_EVERY_SECONDS:
            self.last = now
            print(f"  cell {cell} of {cells}, {clock(now - self.start)}", flush=True)

    def end(self, page: Page) -> None:
        print("\r\x1b[2K" if self.terminal else "", end="")
        state = f"FAILED in {page.failure}" if page.failure else f"done, {len(page.cell_seconds)} cells"
        print(f"{self.name}  {clock(page.seconds)}  {state}", flush=True)


def select(folder: Path, only: list[str]) -> list[Path]:
    """The notebooks of `folder`, by number and then appendices by letter; or those of them in `only`.

    A page is named by its number, its letter, or the name of its file; a LabError says which there are.
    """
    found = sorted(path for path in folder.glob("*.ipynb") if path.is_file())
    if not found:
        raise LabError(f"There are no notebooks in {folder.resolve()}.")
    chosen = []
    for wanted in only:
        number = f"{int(wanted):02}" if wanted.isdecimal() else wanted.upper()
        matches = [path for path in found if path.stem == wanted or path.stem.partition("_")[0] == number]
        if not matches:
            raise LabError(f"No notebook {wanted!r}. There are: {', '.join(path.stem for path in found)}.")
        chosen += matches
    return sorted(set(chosen)) or found


def run_course(paths: list[Path], output: Path, environment: dict[str, str], timeout_seconds: float) -> list[Page]:
    """Execute notebooks one after the other and write their HTML and the index; returns all pages.

    Raises
    ------
    LabError
        A notebook cannot be read, or `output` cannot be written or contains a file of the same name that is not a page
        of a site. Nothing has run then.
    """
    output = output_folder(output)
    refuse_others([output / f"{stem}.html" for stem in (*(path.stem for path in paths), "index")], is_of_site)
    titles = {path.stem: describe(read_notebook(path))[0] for path in paths}
    pages = []
    for path in paths:
        line = _Line(path.stem)
        pages.append(execute(path, timeout_seconds=timeout_seconds, environment=environment, progress=line))
        line.end(pages[-1])
        write_page(pages[-1], output, titles)
        write_index(pages, output, shortened="LORA_LAB_FAST" in environment)
    return pages


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 all pages ran, 1 a page failed, 2 nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m lab_utils.classroom site", description=__doc__.split("\n")[0])
    parser.add_argument("--fast", action="store_true", help="shorter runs of the same pages (LORA_LAB_FAST=1)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers, letters or names, as 00 08 A")
    parser.add_argument("--output", type=user_path, default=Path("site"), help="folder for the HTML (default: site)")
    parser.add_argument("--notebooks", type=user_path, default=NOTEBOOKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    print_anything()
    try:
        paths = select(options.notebooks, options.only)
        with home_for_jupyter(), temporary_folder("lora-lab-runs-") as runs:
            environment = {"LORA_LAB_RUNS": os.environ.get("LORA_LAB_RUNS", str(runs))}  # from scratch each time
            if options.fast:
                environment["LORA_LAB_FAST"] = "1"
            limit = FAST_CELL_SECONDS if options.fast else CELL_SECONDS
            pages = run_course(paths, options.output, environment, limit)
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: run `make course`, or `pip install -e .[dev]`.", file=sys.stderr)
        return 2
    failed = [page for page in pages if page.failure]
    index = options.output / "index.html"
    print(f"\n{len(pages) - len(failed)} of {len(pages)} notebooks ran. Read {index}", flush=True)
    for page in failed:
        last_line = page.failure.error.strip().splitlines()[-1]
        print(f"{page.path.name} failed in code cell {page.failure.cell}: {last_line}", file=sys.stderr)
    return 1 if failed else 0
