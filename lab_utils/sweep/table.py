"""The table of a sweep: a CSV file, one row for each trial, added to as results come."""

import csv
import io
import os
from pathlib import Path

from ..errors import LabError
from ..files import append_text, explain, read_text, user_path
from .trial import SETTINGS

RESULTS = (
    "trainable_parameters", "validation_loss", "validation_exact", "test_loss", "test_exact", "training_loss",
    "training_seconds", "training_cpu_seconds", "cpu_seconds", "tokens",
)  # fmt: skip
PROVENANCE = ("problem", "cpu", "threads", "date", "versions")
COLUMNS = ("method", "shots", *SETTINGS, "evaluated", *RESULTS, *PROVENANCE)
OLD_COLUMNS = tuple(name for name in COLUMNS if name != "evaluated")  # of tables from before: all of `EVALUATED`
EVALUATED = 80  # messages of each split


def read_rows(table: str | Path) -> list[dict[str, str]]:
    """The table's rows as text, in the order they came; none if the file does not exist.

    Raises
    ------
    LabError
        The file cannot be read, has other columns, or a row that is not whole: its line is named.
    """
    table = user_path(table)
    if not os.path.lexists(table):
        return []
    reader = csv.reader(io.StringIO(read_text(table), newline=""))
    rows, columns = [], ()
    try:
        for fields in reader:
            if not rows:
                columns = tuple(fields)
                if columns not in (COLUMNS, OLD_COLUMNS):
                    break
            if fields and len(fields) != len(columns):
                raise LabError(
                    f"{table}, line {reader.line_num}: this row has {len(fields)} fields and not {len(columns)}. "
                    "Delete it: its trial is then run again."
                )
            if fields:
                row = {"evaluated": str(EVALUATED)} | dict(zip(columns, fields, strict=True))
                rows.append({name: row[name] for name in COLUMNS})
    except csv.Error as error:
        raise LabError(f"{table}, line {reader.line_num}: not CSV ({error}). Move it away, or repair it.") from error
    if not rows:
        raise LabError(f"{table} is not a sweep's table: its columns differ. Move it away, or give another name.")
    return rows[1:]


def add_row(table: str | Path, row: dict) -> None:
    """Append one row, and make sure that it is on the disk; a new table gets its heading.

    Raises
    ------
    LabError
        The table cannot be written; it is as before then.
    """
    table = user_path(table)
    text = io.StringIO()
    try:
        columns = _heading(table)
        if columns == OLD_COLUMNS:
            row = {name: value for name, value in row.items() if name != "evaluated"}
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if not table.exists():
            writer.writeheader()
        writer.writerow(row)
        append_text(table, text.getvalue())
    except OSError as error:
        raise LabError(f"No row could be added to {table}: {explain(error)}") from error


def _heading(table: Path) -> tuple[str, ...]:
    """The columns of a table: its own if it is there."""
    if not table.is_file():
        return COLUMNS
    first = read_text(table).partition("\n")[0].rstrip("\r")
    return OLD_COLUMNS if first == ",".join(OLD_COLUMNS) else COLUMNS


def check_evaluated(table: str | Path, evaluated: int) -> None:
    """Raise a LabError if a row of the table was measured on another number of messages than `evaluated`."""
    for number, row in enumerate(read_rows(table), 1):
        if row["evaluated"] not in ("", str(evaluated)):
            raise LabError(
                f"{table}, row {number} was measured on {row['evaluated']} messages of each split, and "
                f"evaluated={evaluated} is asked for: they cannot be compared. Give another table, or "
                f"evaluated={row['evaluated']}."
            )
