"""Locks on files: one job for one process, and long recordings that wait while the tests run.

    python -m lab_utils.locks COMMAND ...     # run a command as `make test` does: recordings pause meanwhile

A lock is the operating system's: it ends with its process, however that ends. Where there is none (Windows), every lock
is granted.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError, command_line


@contextmanager
def locked(path: str | Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the `with` block lasts.

    Parameters
    ----------
    path : of a file that is the lock; it is made, and stays
    shared : bool, other holders may share it; it excludes those that do not share
    wait : bool, wait for the lock; False gives up at once

    Yields
    ------
    bool, is the lock held; False only with wait=False
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        way = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(file, way)
        except BlockingIOError:
            yield False
            return
        yield True  # closing the file gives the lock back


def lock_of_tests() -> Path:
    """The file whose lock `make test` holds: one for all checkouts of a user, or what `LORA_LAB_TESTS_LOCK` names."""
    user = os.getuid() if hasattr(os, "getuid") else "all"
    return Path(os.environ.get("LORA_LAB_TESTS_LOCK") or Path(tempfile.gettempdir()) / f"lora-lab-tests-{user}.lock")


def running_tests() -> bool:
    """Does `make test` run on this machine?"""
    with locked(lock_of_tests(), wait=False) as free:
        return not free


def wait_for_tests(seconds: float = 2.0, sleep: Callable[[float], object] = time.sleep) -> int:
    """Return when no tests run.

    Parameters
    ----------
    seconds : float > 0, between two looks
    sleep : function of seconds

    Returns
    -------
    int, how many times it had to sleep
    """
    times = 0
    while running_tests():
        sleep(seconds)
        times += 1
    return times


@command_line
def main(arguments: list[str] | None = None) -> int:
    """Run a command while the tests' lock is held; returns its exit status."""
    command = sys.argv[1:] if arguments is None else arguments
    if not command:
        raise LabError("python -m lab_utils.locks COMMAND ...: name the command to run.")
    with locked(lock_of_tests(), shared=True):
        try:
            return subprocess.run(command, check=False).returncode
        except OSError as error:
            raise LabError(f"{command[0]} cannot be run: {error.strerror}.") from error


if __name__ == "__main__":
    sys.exit(main())
