"""The sections one after the other, each within its time, in a process that is replaced when it dies or hangs."""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..files import explain
from .report import FAILED, SKIPPED, Report, Row, row_of
from .sections import Section
from .worker import serve

LEAST_SECONDS = 8.0  # with less left no section is begun
START_SECONDS = 120.0  # for a process to start and import its packages, counted with its first section


class Worker:
    """A process that runs sections when asked; `ask` starts it, and starts another one where it has ended."""

    def __init__(self, pretended: str, scratch: Path, log: Path):
        self.arguments = (pretended, str(scratch), str(log))
        self.process = self.connection = None

    def ask(self, name: str, seconds: float) -> dict | None:
        """What the process says of a section; None where it is not done within `seconds`, and ended then.

        Raises
        ------
        EOFError
            The process died.
        """
        if self.process is None:
            self._start()
        self.connection.send(name)
        if not self.connection.poll(seconds):
            self.end()
            return None
        try:
            found = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join(10)
            code = self.process.exitcode
            self.end()
            raise EOFError(f"its process ended with {code}") from error
        if found["broken"]:
            self.end(politely=True)
        return found

    def _start(self) -> None:
        """Start the process; a fresh interpreter, because a card cannot be used after a fork."""
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, *self.arguments), daemon=True)
        self.process.start()
        other.close()

    def end(self, politely: bool = False) -> None:
        """End the process, if there is one; politely, where it waits to be asked."""
        if self.process is not None:
            if politely:
                with suppress(OSError):
                    self.connection.send(None)
                self.process.join(10)
            self.process.kill()
            self.process.join(10)
            self.connection.close()
        self.process = self.connection = None


def supervise(
    sections: Iterable[Section], report: Report, worker, budget_seconds: float, say: Callable[[str], object] = print,
    clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Run sections and add a row for each to the report as it ends.

    Parameters
    ----------
    sections : in this order
    report : Report
    worker : Worker, or anything with its `ask` and `end`
    budget_seconds : float, for all of them together
    say : function of the line of each row
    clock : function without arguments, seconds
    """
    end, barred = clock() + budget_seconds, ""
    try:
        for section in sections:
            row = _try(section, report.pretended, worker, end - clock(), barred, clock)
            if section.gate and row.status == FAILED:
                barred = f"not tried, because {section.name} failed"
            say(row.line())
            _written(report.add, row, say=say)
    finally:
        worker.end(politely=True)
    _written(report.finish, say=say)


def _written(act: Callable, *arguments, say: Callable[[str], object]) -> None:
    """Let a report be written; where the disk refuses, that is said, and the lines on the screen go on."""
    try:
        act(*arguments)
    except OSError as error:
        say(f"The report was not written: {explain(error)}")


def _try(section: Section, pretended: str, worker, left: float, barred: str, clock) -> Row:
    """One section's row."""
    missing = [name for name in section.needs if find_spec(name) is None]
    reason = barred or (f"{', '.join(missing)} missing: pip install {' '.join(missing)}" if missing else "")
    if not reason and left < LEAST_SECONDS:
        reason = f"the time was up; run it alone: --only {section.name}"
    if reason:
        return row_of(section, SKIPPED, reason, pretended=pretended)
    first = START_SECONDS if getattr(worker, "process", None) is None else 0.0
    allowed = section.allowed_seconds(pretended) + first
    limit, began = min(allowed, left), clock()
    try:
        found = worker.ask(section.name, limit)
    except EOFError as error:
        text = f"{error}; the log says more"
        return row_of(section, FAILED, text, clock() - began, pretended)
    if found is None:
        if limit < allowed:
            return row_of(section, SKIPPED, f"the time was up in it; run it alone: --only {section.name}",
                          clock() - began, pretended)  # fmt: skip
        return row_of(section, FAILED, f"not done after {limit:.0f} s", clock() - began, pretended)
    return row_of(section, found["status"], found["text"], found["seconds"], pretended, values=found["values"],
                  details=found["details"])  # fmt: skip
