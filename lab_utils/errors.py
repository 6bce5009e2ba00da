"""The one kind of error that the lab raises on purpose, and what a command makes of it."""

import sys
from collections.abc import Callable
from functools import wraps


class LabError(Exception):
    """Something went wrong that the reader can mend: the text says what happened and what to do next."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the message, without forty frames of library code."""
        return [f"LabError: {self}"]


def choose(kind: str, value: object, allowed) -> None:
    """Raise a LabError that names `value` and what is allowed, unless it is allowed."""
    if value not in list(allowed):  # a list: `value` may be unhashable
        names = ", ".join(str(name) for name in allowed)
        raise LabError(f"Unknown {kind} {value!r}. Choose one of: {names}.")


def at_least(least: int, **values: object) -> None:
    """Raise a LabError that names the first of `values` that is no whole number of `least` or more."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise LabError(f"{name}={value!r} is out of range: a whole number of {least} or more.")


def command_line(main: Callable[..., int]) -> Callable[..., int]:
    """A command's `main` that answers a LabError with its text and exit code 2, and Ctrl-C with 130."""

    @wraps(main)
    def run(*arguments, **options) -> int:
        try:
            return main(*arguments, **options)
        except LabError as error:
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return 130

    return run
