"""Files of five kinds as sources of rows; what a JSON file holds is seen by looking inside."""

import difflib
import itertools
import json
from dataclasses import replace
from pathlib import Path

from ..errors import LabError, shown
from ..files import explain
from .data_lines import STRICT
from .file_heads import TABLES
from .memory_sources import SPLIT_NAMES, are_columns, are_splits, column_rows, listed_rows
from .reading import Source
from .text_files import (
    SEPARATORS,
    Rows,
    actual_encoding,
    decode_at,
    read_array,
    read_csv,
    read_object_lines,
    separator,
    text_lines,
    where,
)

KINDS = (*TABLES, ".json", ".jsonl", ".ndjson", ".parquet")
WAYS_OUT = {
    ".xlsx": "Save it as CSV (UTF-8) in your spreadsheet program.", ".xls": "Save it as CSV (UTF-8).",
    ".ods": "Save it as CSV (UTF-8).", ".gz": "Unpack it first.", ".zip": "Unpack it first.",
    ".arrow": "In Python, pass datasets.Dataset.from_file(path).",
    ".pkl": "In Python, pass the table itself; a pickle can run code.",
}  # fmt: skip
NO_TABLE = (
    "{}, line 1: a .txt file is read as a table whose columns are separated by tabs, as spreadsheet programs save it, "
    "and there is no tab in its first line. If something else separates the columns, rename it to .csv. A text without "
    "columns has nothing that is asked and answered: make a table of it first."
)
INSIDE = ("data", "rows", "examples", "items", "records")  # keys under which a JSON file keeps its rows


def of_file(path: Path, encoding: str) -> dict[str, Source]:
    kind = path.suffix.lower()
    if not path.is_file():
        raise LabError(_missing(path))
    if kind not in KINDS:
        way_out = WAYS_OUT.get(kind, f"These are: {', '.join(KINDS)}. In Python, a list of dicts is read too.")
        raise LabError(f"{path} is not a kind of file that can be read as data. {way_out}")
    if not path.stat().st_size:
        raise LabError(f"{path} holds no row: the file is empty, 0 bytes. Give at least one example.")
    if kind == ".parquet":
        return {"": Source(lambda: _parquet(path), f"{path}, row {{}}", "Parquet", {})}
    encoding, said = actual_encoding(path, encoding)
    if kind in TABLES:
        between = separator(path, encoding)
        if kind == ".txt" and between != "\t":
            raise LabError(NO_TABLE.format(path))
        form = f"{kind[1:].upper()}, separated by {SEPARATORS[between]}{said}"
        return {"": Source(lambda: read_csv(path, encoding), f"{path}, line {{}}", form, {})}
    found = _of_json(path, encoding)
    return {name: replace(one, form=one.form + said) for name, one in found.items()}


def _missing(path: Path) -> str:
    """Why a path is not a file, and what was meant, perhaps."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link that leads to no file. Name the file itself."
    if path.exists():
        return f"{path} is a pipe or a device, which can be read once only. Save the data to a file first."
    said = f"There is no file {path}"
    if not path.is_absolute():
        said += f" in {Path.cwd()}"
    there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    if near := difflib.get_close_matches(path.name, there, 1):
        return f"{said}. Did you mean {near[0]}?"
    if not path.suffix:
        return f"{said}. For a data set of the Hugging Face hub, in Python, pass datasets.load_dataset({str(path)!r})."
    return f"{said}. Check the name, or give the full path."


def _of_json(path: Path, encoding: str) -> dict[str, Source]:
    """A JSON or JSON Lines file, whichever it is inside, whatever it is called."""
    first = next((line.strip() for line in text_lines(path, encoding) if line.strip()), "")
    lines = {"": Source(lambda: read_object_lines(path, encoding), f"{path}, line {{}}", "JSON Lines", {})}
    if path.suffix.lower() != ".json" and not first.startswith("["):
        return lines
    both = _first_two(path, encoding)
    if len(both) > 1 and all(line.strip().startswith("[") and _is_whole(line) for line in both):
        return lines  # a list in each line, which is refused with the way out
    if first.startswith("[") or not first:
        return {"": _array(path, encoding)}
    if first.startswith("{") and _is_whole(first) and path.suffix.lower() == ".json" and _has_more(path, encoding):
        return lines
    return _of_object(path, "".join(text_lines(path, encoding)))


def _array(path: Path, encoding: str) -> Source:
    """A file that is one array. Where all of it is in one line, its rows are counted in place of its lines."""
    by_line = _has_more(path, encoding)

    def rows() -> Rows:
        text = "".join(text_lines(path, encoding))
        found = read_array(path, text, len(text) - len(text.lstrip())) if text.strip() else iter(())
        return found if by_line else ((number, row) for number, (_, row) in enumerate(found, 1))

    return Source(rows, f"{path}, {'line' if by_line else 'row'} {{}}", "a JSON array", {})


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _has_more(path: Path, encoding: str) -> bool:
    """Is there a second line with something in it?"""
    return len(_first_two(path, encoding)) > 1


def _first_two(path: Path, encoding: str) -> list[str]:
    """The first two lines with something in them."""
    return list(itertools.islice((line for line in text_lines(path, encoding) if line.strip()), 2))


def _of_object(path: Path, text: str) -> dict[str, Source]:
    """A JSON file that is one object: splits, rows under a key, columns, or a single example."""
    start = len(text) - len(text.lstrip())
    found, end = decode_at(json.JSONDecoder(**STRICT), path, text, start)
    if not isinstance(found, dict):
        raise LabError(f"{where(path, text, start)}: expected rows, found {type(found).__name__}: {shown(found)}.")
    if rest := text[end:].strip():
        raise LabError(f"{where(path, text, text.index(rest, end))}: not JSON (text after the object). Delete it.")
    inside = next((key for key in INSIDE if isinstance(found.get(key), list)), None)
    if are_splits(found) and all(isinstance(rows, list) for rows in found.values()):
        return {SPLIT_NAMES[name.lower()]: _rows(rows, f"{path}, {name}", "JSON") for name, rows in found.items()}
    if inside:
        return {"": _rows(found[inside], str(path), f"JSON, rows under {inside!r}")}
    if rows := _of_pandas(found):
        return {"": _rows(rows, str(path), "JSON, as pandas' to_json writes a table")}
    if are_columns(found):
        return {"": Source(column_rows(found), f"{path}, row {{}}", "JSON, a list for each column", {})}
    return {"": _rows([found], str(path), "JSON, a single example")}


def _of_pandas(found: dict) -> list[dict] | None:
    """The rows of a table that `to_json` wrote with its index: {column: {"0": value}} or {"0": {column: value}}."""
    inner = list(found.values())
    if not inner or not all(isinstance(one, dict) and one for one in inner):
        return None
    if all(map(str.isdecimal, found)):
        return inner
    if not all(map(str.isdecimal, inner[0])) or any(one.keys() != inner[0].keys() for one in inner):
        return None
    return [{column: values[number] for column, values in found.items()} for number in inner[0]]


def _rows(rows: list, place: str, form: str) -> Source:
    return Source(listed_rows(rows, place), f"{place}, row {{}}", form, {})


def _parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=500):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read as Parquet: {explain(error)} Is it whole? Download it again.") from error
