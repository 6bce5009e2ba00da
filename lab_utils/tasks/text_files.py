"""Text files of data, read row by row: CSV, TSV, JSON Lines and JSON. What is wrong in one is named by line and column.

Each function yields (line number, row), the first line being 1. A file is never held in memory as a whole, but for JSON
that is one array.
"""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import LabError
from ..files import explain
from .data_lines import BOM, STRICT, UTF_16, json_flaw, object_in
from .file_heads import HEAD, check_head

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
WIDE = {"utf-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-16": UTF_16}  # what such files begin with
LONGEST_FIELD = 2**31 - 1  # characters; csv's own limit is 131,072, less than one long conversation

Rows = Iterator[tuple[int, dict]]


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """A file's lines with their ends, without a BOM.

    Raises
    ------
    LabError
        The file cannot be read, or has another encoding: line, column and byte are named.
    """
    try:
        with open(path, "rb") as file:
            check_head(path, file.read(HEAD), encoding)
            file.seek(0)
            if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
                yield from io.StringIO(_decoded(path, file.read(), encoding, 1), newline="")  # U+2028 ends no line
                return
            number = 0
            for chunk in file:
                for line in chunk.splitlines(keepends=True):  # of bytes: \r ends a line too, U+2028 does not
                    number += 1
                    yield _decoded(path, line, encoding, number)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {explain(error)}") from error


def actual_encoding(path: Path, encoding: str) -> tuple[str, str]:
    """The encoding to read a file with, and what is said of it: a UTF-16 or UTF-32 mark at its beginning decides.

    Parameters
    ----------
    path : of a text file
    encoding : str, what the person named; anything but UTF-8 is taken as it is
    """
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "utf-8-sig"):
        return encoding, ""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {explain(error)}") from error
    for name, marks in WIDE.items():
        if head.startswith(marks):
            return name, f", in {name.upper()}"
    return encoding, ""


def _decoded(path: Path, line: bytes, encoding: str, number: int) -> str:
    try:
        return line.decode(encoding).removeprefix(BOM)
    except UnicodeDecodeError as error:
        before = line[: error.start].decode(encoding, "replace").removeprefix(BOM)  # lines too, of a wide encoding
        number, column = number + before.count("\n"), len(before.rpartition("\n")[2]) + 1
        raise LabError(
            f"{path}, line {number}, column {column}: byte 0x{line[error.start]:02x} is not {encoding.upper()}. Save "
            "the file as UTF-8, or name its encoding: encoding='cp1252' is what Excel writes in Western Europe."
        ) from error
    except LookupError as error:
        raise LabError(f"Unknown encoding {encoding!r}. Common ones: utf-8, cp1252, latin-1, utf-16.") from error


# Comma-separated values.


@contextmanager
def long_fields() -> Iterator[None]:
    """Inside, csv reads long texts too; outside, others' limit is as it was: there is one for the whole process."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def separator(path: Path, encoding: str) -> str:
    """What separates the columns: the character that cuts the first line into most fields, or that Excel's line "sep=;"
    names. A .tsv has tabs, and so has a .txt with one in its first line."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    first = next((line for line in text_lines(path, encoding) if line.strip()), "")
    if path.suffix.lower() == ".txt" and "\t" in first:
        return "\t"
    if (said := first.strip('" \r\n').lower()).startswith("sep=") and said[4:] in SEPARATORS:
        return said[4:]
    with long_fields():
        counts = {one: len(next(csv.reader([first], delimiter=one), [])) for one in SEPARATORS}
    return max(counts, key=lambda one: counts[one])  # the first of equals: a comma


def read_csv(path: Path, encoding: str = "utf-8") -> Rows:
    """The rows of a CSV or TSV file whose first line names the columns.

    Raises
    ------
    LabError
        A line has more or fewer fields than the first, a quote is not closed, or a column occurs twice.
    """
    between = separator(path, encoding)
    reader = csv.reader(text_lines(path, encoding), delimiter=between, strict=True)
    names, begins = None, 1
    while True:
        begins = reader.line_num + 1
        try:
            with long_fields():
                fields = next(reader, None)
        except csv.Error as error:
            raise LabError(_quoting(path, begins, reader.line_num, str(error))) from error
        if fields is None:
            return
        if not fields or (len(fields) == 1 and not fields[0].strip()):
            continue
        if names is None:
            if fields[0].lower() not in ("sep=", f"sep={between}") or any(fields[1:]):  # not the line for Excel
                names = _header(path, begins, fields)
            continue
        if len(fields) != len(names):
            raise LabError(_uneven(path, begins, fields, names))
        yield begins, dict(zip(names, fields, strict=True))


def _header(path: Path, line: int, fields: list[str]) -> list[str]:
    """The columns' names; a nameless one, as pandas writes for its index, is called by its number."""
    names = [name.strip() or f"column {number}" for number, name in enumerate(fields, 1)]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            raise LabError(
                f"{path}, line {line}, column {number}: the name {name!r} occurs twice in the header. Rename one."
            )
    return names


def _uneven(path: Path, line: int, fields: list[str], names: list[str]) -> str:
    said = f"{len(fields)} field{'s' if len(fields) != 1 else ''} where the header has {len(names)}"
    if len(fields) < len(names):
        return (
            f"{path}, line {line}, column {len(fields) + 1}: {said}: nothing for {names[len(fields)]!r}. Add what is "
            "missing, or delete that line."
        )
    return (
        f"{path}, line {line}, column {len(names) + 1}: {said}: {fields[len(names)][:40]!r} is one too many. A text "
        'that holds the separator needs quotes around it: "a, b".'
    )


def _quoting(path: Path, begins: int, ends: int, error: str) -> str:
    """What a csv.Error means: almost always a quote that was not closed, or not doubled."""
    if "unexpected end of data" in error:
        what = "a quote is opened and never closed"
    elif "expected after" in error:
        what = f"a quote inside a text (seen in line {ends})" if ends > begins else "a quote inside a text"
    else:
        what = error
    return (
        f"{path}, line {begins}, in the row that begins there: {what}. Inside quotes, write a quote twice: "
        '"she said ""no"" twice".'
    )


# JSON.


def read_object_lines(path: Path, encoding: str = "utf-8") -> Rows:
    """The objects of a JSON Lines file; blank lines are left out, and count."""
    for number, line in enumerate(text_lines(path, encoding), 1):
        if line.removeprefix(BOM).strip():
            yield number, object_in(line.encode("utf-8", "surrogatepass"), f"{path}, line {number}")


def read_array(path: Path, text: str, start: int = 0) -> Rows:
    """The objects of a JSON array that begins at `start`, one by one.

    Raises
    ------
    LabError
        It is not JSON, or an element is not an object: line and column are named.
    """
    decoder = json.JSONDecoder(**STRICT)
    place, line, counted = _after_blanks(text, start + 1), 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        value, end = decode_at(decoder, path, text, place)
        if not isinstance(value, dict):
            raise LabError(f"{where(path, text, place)}: expected an object {{...}}, found {type(value).__name__}.")
        yield line, value
        place = _after_blanks(text, end)
        if text[place : place + 1] not in (",", "]"):
            what = "the array is not closed: the file was cut off" if place >= len(text) else "a comma is missing"
            raise LabError(f"{where(path, text, place)}: not JSON ({what}). Correct that place.")
        if text[place] == ",":
            place = _after_blanks(text, place + 1)
    if rest := text[place + 1 :].strip():
        raise LabError(f"{where(path, text, text.index(rest, place + 1))}: not JSON (text after the array). Delete it.")


def decode_at(decoder: json.JSONDecoder, path: Path, text: str, place: int) -> tuple[object, int]:
    """The JSON value that begins at `place`, and where it ends; a LabError names the line and column of a flaw."""
    try:
        value, end = decoder.raw_decode(text, place)
        flaw = json_flaw(value)
    except json.JSONDecodeError as error:
        raise LabError(f"{where(path, text, error.pos)}: not JSON ({error.msg}). Correct that place.") from error
    except RecursionError as error:
        raise LabError(f"{where(path, text, place)}: not JSON (it is nested too deeply).") from error
    except ValueError as error:
        raise LabError(f"{where(path, text, place)}: not JSON ({error}). Correct that place.") from error
    if flaw:
        raise LabError(f"{where(path, text, place)}: not JSON ({flaw}). Correct that place.")
    return value, end


def where(path: Path, text: str, place: int) -> str:
    """A place in a text, as "file, line 3, column 7"."""
    place = min(place, len(text))
    begins = text.rfind("\n", 0, place) + 1
    return f"{path}, line {text.count(chr(10), 0, place) + 1}, column {place - begins + 1}"


def _after_blanks(text: str, place: int) -> int:
    while text[place : place + 1].isspace():
        place += 1
    return place
