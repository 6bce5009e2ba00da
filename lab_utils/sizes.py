"""Checks of what a person passes to a function that counts: whole numbers, numbers, switches, words, lists of names.

Each returns the value as plain Python, so that numpy's integers neither overflow nor spoil a JSON file, or raises a
LabError that names the value and what is allowed.
"""

import math
import operator
from collections.abc import Iterable
from itertools import islice
from numbers import Real

from .errors import LabError, choose

MOST = 2**53  # larger whole numbers are not exact in the browser
NAMES = 10_000  # more than any model has modules


def shown(value: object) -> str:
    """A value for a message: its repr, shortened; numbers of thousands of digits have none."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"(a number of {value.bit_length():,} bits)"
    try:
        text = repr(value)
    except Exception:  # whatever a foreign object raises must not hide our message
        return f"(a {type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}…"


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
        `value` is no whole number (True and 8.0 are none), or out of range.
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


def positive(name: str, value: object, what: str = "a number above 0", zero: bool = False) -> float:
    """The value as it is, if it is a finite number above 0; or 0 too, with `zero`.

    Raises
    ------
    LabError
        `value` is no number (True is none), not finite, or too small.
    """
    good = isinstance(value, Real) and not isinstance(value, bool)
    try:
        good = good and math.isfinite(float(value)) and (value > 0 or (zero and value == 0))
    except OverflowError:
        good = False
    if not good:
        raise LabError(f"{name}={shown(value)} is out of range: {what}.")
    return value if isinstance(value, int) else float(value)


def switch(name: str, value: object) -> bool:
    """The value as a bool, if it is True or False, numpy's included; "False" and 0 are neither.

    Raises
    ------
    LabError
        It is something else.
    """
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise LabError(f"{name}={shown(value)} is out of range: True or False.")
    return bool(value)


def word(kind: str, value: object, allowed: Iterable[str]) -> str:
    """The value, if it is one of the words allowed.

    Raises
    ------
    LabError
        It is something else, possibly no text at all; what is allowed is named.
    """
    choose(kind, value if isinstance(value, str) else _Shown(shown(value)), allowed)
    return str(value)


class _Shown(str):
    """A text whose repr is itself."""

    def __repr__(self) -> str:
        return str(self)


def listed(values: object) -> tuple | None:
    """What a person listed, as a tuple that can be read twice; a text alone is a list of one.

    Returns
    -------
    tuple, or None if `values` lists nothing, or goes on for ever
    """
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, Iterable) or isinstance(values, (bytes, bytearray)):
        return None
    found = tuple(islice(values, NAMES + 1))
    return found if 0 < len(found) <= NAMES else None
