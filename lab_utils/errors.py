"""The one kind of error that the lab raises on purpose, the checks of arguments that raise it, and what a command does.

Each check returns the value as plain Python, so that numpy's integers neither overflow nor break a JSON file, or raises
a LabError that names the value and what is allowed.
"""

import ast
import math
import operator
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial, wraps
from itertools import islice
from numbers import Real

from .printing import folded

MOST = 2**53  # larger whole numbers are not exact in the browser
NAMES = 10_000  # more than any model has modules


class LabError(Exception):
    """Something went wrong that the reader can fix: the text says what happened and what to do next."""

    def __str__(self) -> str:
        """The text, always printable: half a character, as of a damaged file name, is written as an escape."""
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the message, folded, without forty frames of library code."""
        return folded(f"LabError: {self}").split("\n")


def shown(value: object) -> str:
    """A value for a message: its repr, shortened; numbers of thousands of digits have none."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"(a number of {value.bit_length():,} bits)"
    try:
        text = repr(value)
    except Exception:  # whatever a foreign object raises must not hide our message
        return f"(a {type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}…"


def choose(kind: str, value: object, allowed: Iterable) -> object:
    """The one of the values allowed that `value` equals. Those are texts, numbers or None.

    Raises
    ------
    LabError
        It equals none of them; it is named, and they are.
    """
    allowed = list(allowed)
    for one in allowed:
        if _equal(value, one):
            return one
    raise LabError(f"Unknown {kind} {shown(value)}. Choose one of: {', '.join(map(str, allowed))}.")


def _equal(value: object, one: object) -> bool:
    """Is a value the allowed one? An array, which compares element by element, is not; nor is True the number 1."""
    if value is None or one is None or isinstance(value, bool) or isinstance(one, bool):
        return value is one
    comparable = any(isinstance(value, kind) and isinstance(one, kind) for kind in (str, Real))
    return comparable and bool(value == one)


def whole(name: str, value: object, least: int = 1, most: int = MOST, what: str = "") -> int:
    """The value as an int.

    Parameters
    ----------
    name : str, of the argument
    value : an int, or an integer of numpy
    least, most : int, the range
    what : str, what `most` is, for the message

    Raises
    ------
    LabError
        `value` is not a whole number (True and 8.0 are not), or out of range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        if what:
            limit = f"from {least:,} to {most:,}, {what}"
        else:
            limit = f"of {least} or more" if number is None or number < least else f"up to {most:,}"
        raise LabError(f"{name}={shown(value)} is out of range: a whole number {limit}.")
    return number


def at_least(least: int, **values: object) -> None:
    """Raise a LabError that names the first of `values` that is not a whole number of `least` or more."""
    for name, value in values.items():
        whole(name, value, least)


def real(name: str, value: object, what: str = "a number above 0", zero: bool = False) -> float:
    """The value as an int or float, if it is a finite number above 0; or 0 too, with `zero`.

    Raises
    ------
    LabError
        `value` is not a number (True is not), not finite, or too small.
    """
    good = isinstance(value, Real) and not isinstance(value, bool)
    try:
        good = good and math.isfinite(float(value)) and (value > 0 or (zero and value == 0))
    except OverflowError:
        good = False
    if not good:
        raise LabError(f"{name}={shown(value)} is out of range: {what}.")
    return value if isinstance(value, int) else float(value)


def flag(name: str, value: object) -> bool:
    """The value as a bool, if it is True or False, numpy's included; "False" and 0 are neither.

    Raises
    ------
    LabError
        It is something else.
    """
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise LabError(f"{name}={shown(value)} is out of range: True or False.")
    return bool(value)


def listed(values: object) -> tuple | None:
    """What a person listed, as a tuple that can be read twice; a text alone is a list of one.

    Returns
    -------
    tuple, or None if `values` lists nothing, or never ends
    """
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, Iterable) or isinstance(values, (bytes, bytearray)):
        return None
    found = tuple(islice(values, NAMES + 1))
    return found if 0 < len(found) <= NAMES else None


def in_command_words(text: str, flags: Mapping[str, str]) -> str:
    """A message about a function's arguments in the words of the command that called it.

    Parameters
    ----------
    text : str
    flags : dict argument -> flag; what is not a name, such as "resume=False", is replaced wherever it occurs

    A name without an underscore is also a word of English: it is taken for an argument only where "=" follows.

    >>> in_command_words("rank=0 is out of range. Raise max_length.", {"rank": "--rank", "max_length": "--max-length"})
    '--rank 0 is out of range. Raise --max-length.'
    """
    for argument, flag in flags.items():
        if not argument.isidentifier():
            text = text.replace(argument, flag)
    names = [re.escape(name) for name in sorted(flags, key=len, reverse=True) if name.isidentifier()]
    alone = [name for name in names if "_" in name]
    if names:
        text = re.sub(rf"{BEFORE}({'|'.join(names)})=({VALUE})?", lambda found: _as_flag(found, flags), text)
    if alone:
        text = re.sub(rf"{BEFORE}({'|'.join(alone)})(?![\w/=('\"])", lambda found: flags[found[1]], text)
    return text


BEFORE = r"(?<![\w./'\"-])"  # not inside of a path, a longer name, or a text in quotes
VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\([^()]*\)|['"(][^…]*…|[^\s,;:()'"]*[^\s,;:()'".]"""  # as repr writes


def _as_flag(found: re.Match, flags: Mapping[str, str]) -> str:
    """An argument and its value, `name=value`, as a command line has them."""
    flag, value = flags[found[1]], found[2]
    if value is None:
        return flag
    with suppress(ValueError, SyntaxError):  # else it is cut short, or no literal
        literal = ast.literal_eval(value)
        value = ",".join(map(str, literal)) if isinstance(literal, tuple) else str(literal)
        value = shlex.quote(value) if isinstance(literal, (str, tuple)) else value
    return f"{flag} {value}"


def command_line(main: Callable[..., int] | None = None, *, flags: Mapping[str, str] | None = None) -> Callable:
    """A command's `main` that answers a LabError with its text and exit code 2, and Ctrl-C with 130.

    Parameters
    ----------
    main : function of the command line's words
    flags : dict argument -> flag, for `in_command_words`: a message then names what was typed
    """
    if main is None:
        return partial(command_line, flags=flags)

    @wraps(main)
    def run(*arguments, **options) -> int:
        try:
            return main(*arguments, **options)
        except LabError as error:
            print(in_command_words(str(error), flags or {}), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return 130

    return run
