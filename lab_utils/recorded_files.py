"""Recorded data that cannot be read: one sentence on what is wrong with it, and one on how to restore it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import LabError


@contextmanager
def reading(what: str, way_out: str) -> Iterator[None]:
    """Turn any error that damaged data cause in this block into a LabError.

    Parameters
    ----------
    what : what is read, and from where, as the beginning of a sentence
    way_out : a sentence on how to restore it

    Raises
    ------
    LabError
        Anything was raised in the block.
    """
    try:
        yield
    except Exception as error:  # KeyError of a field, but also zlib.error, EOFError, SafetensorError and PIL's own
        reason = str(error).rstrip(". ") if isinstance(error, LabError) else repr(error)
        raise LabError(f"{what} cannot be read ({reason}). {way_out}") from error


def restore(folder: str, script: str) -> str:
    """The sentence for data that is in the repository and recorded by a script in data/."""
    return f"Restore it with `git checkout -- {folder}`, or record it again with `python data/{script}`."


def number(value: object, least: float = -math.inf) -> float:
    """The value itself, if it is a finite number of `least` or more; else a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" of {least:g} or more"
        raise ValueError(f"{value!r} where a number{bound} is expected")
    return value
