"""Where a person's data come from: files of five kinds, folders of them, and what is in memory already."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError, shown
from ..files import explain, user_path
from .data_lines import once_each
from .text_files import SEPARATORS, Rows, decode_at, read_array, read_csv, read_json_lines, separator, text_lines, where

SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip
KINDS = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet")
WAYS_OUT = {
    ".xlsx": "Save it as CSV (UTF-8) in your spreadsheet program.", ".xls": "Save it as CSV (UTF-8).",
    ".ods": "Save it as CSV (UTF-8).", ".gz": "Unpack it first.", ".zip": "Unpack it first.",
    ".arrow": "Pass datasets.Dataset.from_file(path).", ".pkl": "Pass the table itself; a pickle can run code.",
}  # fmt: skip
INSIDE = ("data", "rows", "examples", "items", "records")  # keys under which a JSON file keeps its rows
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


def open_source(source: object, encoding: str = "utf-8", prefix: str = "") -> dict[str, Source]:
    """A person's data, by split; what has no splits is under the name "".

    Parameters
    ----------
    source : path of a file (`KINDS`) or of a folder with files called train, validation, test; a list of dicts; a dict
        of columns; a pandas table; a datasets.Dataset or DatasetDict; or a dict of such sources by split
    encoding : str, of text files
    prefix : str, what the place of a row that is in memory begins with

    Raises
    ------
    LabError
        It is none of these, missing, empty, or broken: file, line and column are named.
    """
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return _of_path(user_path(source), encoding)
    splits = source if isinstance(source, Mapping) and _are_splits(source) else None
    if splits is None:
        return {"": _of_memory(source, prefix)}
    found = {}
    for name, one in splits.items():
        split = SPLIT_NAMES[str(name).lower()]
        if split in found:
            raise LabError(f"Two of the splits {', '.join(map(str, splits))} are both {split!r}. Rename or drop one.")
        parts = open_source(one, encoding, f"split {name!r}, ")
        if list(parts) != [""]:
            raise LabError(f"The split {name!r} has splits itself ({', '.join(parts)}). Give the rows of one.")
        found[split] = parts[""]
    return found


def _are_splits(source: Mapping) -> bool:
    """Is every key the name of a split? Columns of those names would be strange."""
    return bool(source) and all(str(name).lower() in SPLIT_NAMES for name in source)


# Files.


def _of_path(path: Path, encoding: str) -> dict[str, Source]:
    if path.is_dir():
        return _of_folder(path, encoding)
    kind = path.suffix.lower()
    if kind not in KINDS:
        way_out = WAYS_OUT.get(kind, f"These are: {', '.join(KINDS)}. Or pass a list of dicts.")
        raise LabError(f"{path} is not a kind of file that can be read as data. {way_out}")
    if not path.is_file():
        hub = "" if path.is_absolute() else f" (From the folder {Path.cwd()}.)"
        raise LabError(f"There is no file {path}.{hub} Check the name, or give the full path.")
    if kind == ".parquet":
        return {"": Source(lambda: _parquet(path), f"{path}, row {{}}", "Parquet", {})}
    if kind in (".csv", ".tsv", ".tab"):
        form = f"{kind[1:].upper()}, separated by {SEPARATORS[separator(path, encoding)]}"
        return {"": Source(lambda: read_csv(path, encoding), f"{path}, line {{}}", form, {})}
    return _of_json(path, encoding)


def _of_folder(folder: Path, encoding: str) -> dict[str, Source]:
    files = [one for one in sorted(folder.iterdir()) if one.suffix.lower() in KINDS]
    named = {one.stem: one for one in files if one.stem.lower() in SPLIT_NAMES}
    if not named:
        there = ", ".join(one.name for one in files[:5]) or "no data file"
        raise LabError(
            f"{folder} is a folder, and none of its files is called train, validation or test (it has: {there}). "
            "Name one file, or pass {'train': file, 'test': file}."
        )
    return open_source(named, encoding)


def _of_json(path: Path, encoding: str) -> dict[str, Source]:
    """A JSON or JSON Lines file, whichever it is inside, whatever it is called."""
    first = next((line.strip() for line in text_lines(path, encoding) if line.strip()), "")
    lines = {"": Source(lambda: read_json_lines(path, encoding), f"{path}, line {{}}", "JSON Lines", {})}
    if path.suffix.lower() != ".json" and not first.startswith("["):
        return lines
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
    return len(list(itertools.islice((line for line in text_lines(path, encoding) if line.strip()), 2))) > 1


def _of_object(path: Path, text: str) -> dict[str, Source]:
    """A JSON file that is one object: splits, rows under a key, columns, or a single example."""
    start = len(text) - len(text.lstrip())
    found, end = decode_at(json.JSONDecoder(object_pairs_hook=once_each), path, text, start)
    if not isinstance(found, dict):
        raise LabError(f"{where(path, text, start)}: expected rows, found {type(found).__name__}: {shown(found)}.")
    if rest := text[end:].strip():
        raise LabError(f"{where(path, text, text.index(rest, end))}: not JSON (text after the object). Delete it.")
    inside = next((key for key in INSIDE if isinstance(found.get(key), list)), None)
    if _are_splits(found) and all(isinstance(rows, list) for rows in found.values()):
        return {
            SPLIT_NAMES[name.lower()]: Source(_listed(rows, f"{path}, {name}"), f"{path}, {name}, row {{}}", "JSON", {})
            for name, rows in found.items()
        }
    if inside:
        return {"": Source(_listed(found[inside], str(path)), f"{path}, row {{}}", f"JSON, rows under {inside!r}", {})}
    if _are_columns(found):
        return {"": Source(_columns(found), f"{path}, row {{}}", "JSON, a list for each column", {})}
    return {"": Source(_listed([found], str(path)), f"{path}, row {{}}", "JSON, a single example", {})}


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


# What is in memory.


def _of_memory(source: object, prefix: str) -> Source:
    where, what = prefix + "row {}", prefix.rstrip(", ")
    names = _label_names(source)
    if hasattr(source, "iterrows"):
        return Source(lambda: _table(source), where, "a pandas table", {})
    if hasattr(source, "features") and hasattr(source, "__iter__"):
        return Source(_listed(source, what), where, f"a {type(source).__name__} of datasets", names)
    if isinstance(source, Mapping):
        if not _are_columns(source):
            raise LabError(
                f"The data are a dict with the keys {', '.join(map(str, source)) or '(none)'}: these are neither "
                "splits (train, validation, test) nor columns, lists of one length. Pass a list of dicts."
            )
        return Source(_columns(source), where, "a dict of columns", {})
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Iterable):
        raise LabError(
            f"The data are {shown(source)}, of type {type(source).__name__}. Pass the path of a file, a list of dicts, "
            "a pandas table, or a Dataset."
        )
    rows = source if hasattr(source, "__len__") else list(source)  # a generator can be read once only
    return Source(_listed(rows, what), where, "a list of dicts", {})


def _label_names(source: object) -> dict[str, list[str]]:
    features = getattr(source, "features", None) or {}
    return {name: list(one.names) for name, one in features.items() if hasattr(one, "names")}


def _listed(rows: Iterable, what: str) -> Callable[[], Rows]:
    def read() -> Rows:
        place = f"{what}, row" if what else "row"
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                if not isinstance(row, Mapping):
                    raise LabError(f"{place} {number}: expected a dict {{column: value}}, found {shown(row)}.")
                yield number, row
        except LabError:
            raise
        except Exception as error:  # whatever a lazy data set raises while it is read
            raise LabError(f"{place} {number + 1} cannot be read ({type(error).__name__}: {error}).") from error

    return read


def _are_columns(found: Mapping) -> bool:
    """Lists of one length, whose elements are not the turns of a conversation?"""
    columns = list(found.values())
    if not columns or not all(_is_list(one) for one in columns) or len({len(one) for one in columns}) != 1:
        return False
    return not any(len(one) and isinstance(one[0], Mapping) for one in columns)


def _is_list(values: object) -> bool:
    is_sized = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    return is_sized and not isinstance(values, (str, bytes, Mapping))


def _columns(found: Mapping) -> Callable[[], Rows]:
    def read() -> Rows:
        names = list(found)
        for number, values in enumerate(zip(*found.values(), strict=True), 1):
            yield number, dict(zip(names, values, strict=True))

    return read


def _table(table) -> Iterator[tuple[int, dict]]:
    """A pandas table in pieces: a whole one as dicts would take many times its memory."""
    names = [str(name) for name in table.columns]
    for start in range(0, len(table), 1000):
        for number, row in enumerate(table.iloc[start : start + 1000].itertuples(index=False, name=None), start + 1):
            yield number, dict(zip(names, row, strict=True))
