"""Rows that can be read again and again, wherever they are."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .text_files import Rows

PEEKED = 50  # rows that are looked at to recognise a form


@dataclass(frozen=True)
class Source:
    """Rows that can be read again and again.

    Attributes
    ----------
    rows : function that begins to read; it gives (number, row)
    where : str, with {} for that number: "tickets.csv, line {}"
    form : str, what was recognised: "CSV, separated by commas"
    label_names : column -> names of its classes, of a datasets.ClassLabel
    """

    rows: Callable[[], Rows]
    where: str
    form: str
    label_names: Mapping[str, list[str]]

    def place(self, number: int) -> str:
        """Where a row is, for a message."""
        return self.where.format(number)

    def peek(self) -> list[dict]:
        """The first rows."""
        return [row for _, row in itertools.islice(self.rows(), PEEKED)]
