"""Commands for instructors: the site, editions of the pages, a course for nbgrader, live demonstrations, slides.

    python -m lab_utils.classroom site --output site
    python -m lab_utils.classroom editions student --output editions/student
    python -m lab_utils.classroom grading --output ~/lora-class
    python -m lab_utils.classroom present --ready
    python -m lab_utils.classroom slides 01

Each says more with --help.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import LabError, command_line
from ..files import user_path
from ..folders import NOTEBOOKS
from ..notebook.extras import how_to_install
from ..outputs import home_for_jupyter, print_anything
from . import course, present, slides
from .course import select
from .editions import write_edition
from .nbgrader_course import write_course


@command_line
def editions(arguments: list[str] | None = None) -> int:
    """Write the notebooks for students or for instructors; returns the exit code."""
    parser = _parser("editions", "the notebooks for students or for instructors, in nbgrader's format")
    parser.add_argument("kind", choices=["student", "instructor"])
    options = _options(parser, arguments)
    return _write(options, options.kind, partial(write_edition, options.kind))


@command_line
def grading(arguments: list[str] | None = None) -> int:
    """Write a folder for nbgrader; returns the exit code."""
    options = _options(_parser("grading", "a course folder for nbgrader, ready to release"), arguments)
    return _write(options, "course", write_course)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser for the options that the two commands writing notebooks share."""
    parser = argparse.ArgumentParser(prog=f"python -m lab_utils.classroom {command}", description=description)
    parser.add_argument("--output", type=user_path, required=True, help="folder to write to")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers or names of notebooks, as 01 08")
    parser.add_argument("--notebooks", type=user_path, default=NOTEBOOKS, help=argparse.SUPPRESS)
    return parser


def _options(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    print_anything()
    return parser.parse_args(arguments)


def _write(options: argparse.Namespace, kind: str, write: Callable[[list[Path], Path], list[Path]]) -> int:
    """Write the chosen notebooks, and say how many; returns the exit code."""
    try:
        paths = select(options.notebooks, options.only)
        with home_for_jupyter():
            written = write(paths, options.output)
    except ModuleNotFoundError as error:
        raise LabError(f"{error.name} is not installed: {how_to_install('instructors')}.") from error
    kept = len(paths) - len(written)
    there = f"; there already and left as they are: {kept} (delete one to have it written again)" if kept else ""
    print(f"{options.output}: {kind}, pages written: {len(written)}{there}")
    return 0


COMMANDS = {
    "site": course.main, "editions": editions, "grading": grading, "present": present.main, "slides": slides.main,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the line begins with, on the rest of the line; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    print(__doc__)
    return 0 if arguments and arguments[0] in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
