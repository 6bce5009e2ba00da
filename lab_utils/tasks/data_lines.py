"""Lines of data, checked before anything is trained on them: encoding, JSON, and the types of their values."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import LabError
from ..files import explain, user_path

BOM = "\ufeff"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # also how UTF-32 begins
DEEPEST = 100  # levels of nesting: far more than any example has, and few enough for every function that walks them
LONGEST_NUMBER = 400  # digits: no float is larger
TOO_DEEP = f"it has more than {DEEPEST} levels of nesting"


def strict_json(text: str) -> object:
    """What a JSON text holds; nothing that another program might read in another way.

    Raises
    ------
    ValueError
        It is not JSON, or holds what JSON has no place for: NaN or an infinity, a number beyond a float's range, half a
        character, a key that occurs twice, a number of more than 400 digits, or more than 100 levels of nesting.
        A JSONDecodeError says where.
    """
    try:
        found = json.loads(text, **STRICT)
        flaw = json_flaw(found)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if flaw:
        raise ValueError(flaw)
    return found


def once_each(pairs: list[tuple[str, object]]) -> dict:
    """An object's members as a dict; a key may occur once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!a} occurs twice")
    return found


def whole_number(digits: str) -> int:
    """A whole number of JSON; Python's own reader takes 4,300 digits, and its message is about Python."""
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits, and more than {LONGEST_NUMBER} are not read")
    return int(digits)


STRICT = {"object_pairs_hook": once_each, "parse_int": whole_number}  # what Python's reader of JSON is told


def json_flaw(value: object) -> str:
    """What Python's reader lets through and JSON does not, in words; "" if there is nothing."""
    return _flaw(value, "")


def _flaw(value: object, path: str, level: int = 0) -> str:
    """What Python's reader lets through and JSON does not, with its place; "" if there is nothing."""
    if level > DEEPEST:
        return TOO_DEEP
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path or 'the value'} is {value}, and JSON has no such number"
    if isinstance(value, str) and (half := half_character(value)):
        return f"{path or 'the text'} holds {half}"
    if not isinstance(value, (dict, list)):
        return ""
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and (half := half_character(key)):
            return f"the key {key!a} holds {half}"
        if flaw := _flaw(member, f"{path}.{key}" if path else str(key), level + 1):
            return flaw
    return ""


def same_json(one: object, other: object) -> bool:
    """Are two values of `strict_json` the same, in type and value? 1 is not true, 1.0 or "1"; keys have no order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return one == other


def placed_lines(path: str | Path) -> list[tuple[str, dict]]:
    """The objects in a JSON Lines file, each with its place, such as "train.jsonl, line 3".

    The file is UTF-8 with or without a BOM, whatever ends its lines. Blank lines are left out, and count in the places.
    The characters U+2028 and U+0085 in a text end no line.

    Raises
    ------
    LabError
        The file is missing, empty, or not UTF-8, or a line is not a JSON object: file, line and column are named.
    """
    path = user_path(path)
    if not path.is_file():
        raise LabError(f"There is no data file {path}. Take the whole repository, `data/` included.")
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise LabError(f"{path} cannot be read: {explain(error)}") from error
    if whole.startswith(UTF_16) or b"\0" in whole[:4]:
        raise LabError(f"{path} is UTF-16, or another encoding of two or four bytes per character. Save it as UTF-8.")
    lines = ((f"{path}, line {number}", line) for number, line in enumerate(whole.splitlines(), 1))
    rows = [(place, object_in(line, place)) for place, line in lines if line.removeprefix(BOM.encode()).strip()]
    if not rows:
        raise LabError(f"{path} holds no example. Restore it (`git checkout -- data`) or choose another split.")
    return rows


def object_in(line: bytes, place: str) -> dict:
    """The object in a line of a data file."""
    text = ""
    try:
        text = line.decode("utf-8").removeprefix(BOM)
        found = strict_json(text)
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8").removeprefix(BOM)) + 1
        raise LabError(
            f"{place}: not JSON (column {column}: byte 0x{line[error.start]:02x} is not UTF-8). Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise LabError(f"{place}: not JSON (column {error.colno}: {error.msg}). {_way_out(text)}") from error
    except ValueError as error:
        raise LabError(f"{place}: not JSON ({error}). Correct or delete that line.") from error
    if not isinstance(found, dict):
        name = ' Give the list a name: {"messages": [...]}.' if isinstance(found, list) else ""
        raise LabError(f"{place}: expected an object {{...}}, found {type(found).__name__}.{name}")
    return found


def _way_out(line: str) -> str:
    """How to correct a line that is not JSON."""
    if line.rstrip().endswith("},"):
        return "A line ends with its row: delete the comma at the end of each line."
    if line.lstrip().startswith("{'"):
        return "That is how Python prints a dict; write each row by json.dumps(row), which uses double quotes."
    return "Correct or delete that line."


def check_line(row: Mapping, columns: Mapping, place: str) -> None:
    """Raise a LabError that names `place` and the column, unless a row has the columns it must have.

    Parameters
    ----------
    row : the values
    columns : column -> str (a text with something in it), int (a whole number), `str | None` (a text, perhaps empty
        or missing), or columns again, for an object that has these fields and no others
    place : str, such as "train.jsonl, line 3"
    """
    if wrong := _wrong(row, columns, ""):
        raise LabError(f"{place}: {wrong}. Correct or delete that line.")


def _wrong(row: Mapping, columns: Mapping, within: str) -> str:
    """What is wrong with a row or an object in it, or ""."""
    for column, kind in columns.items():
        name, value = within + column, row.get(column)
        optional = kind == str | None
        if column not in row and not optional:
            return f"the key {name!r} is missing"
        if isinstance(kind, Mapping):
            wrong = _wrong_object(name, value, kind)
        elif kind is int:
            wrong = "" if type(value) is int else f"{name} is {_shown(value)}, not a whole number"
        else:
            wrong = "" if optional and value in (None, "") else _wrong_text(name, value)
        if wrong:
            return wrong
    return ""


def _wrong_object(name: str, value: object, columns: Mapping) -> str:
    if not isinstance(value, Mapping):
        return f"{name} is {_shown(value)}, not an object {{...}}"
    unknown = [key for key in value if key not in columns]
    if unknown:
        return f"{name} has a key {unknown[0]!a} that the task does not know (it knows {', '.join(columns)})"
    return _wrong(value, columns, f"{name}.")


def _wrong_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        return f"{name} is {_shown(value)}, not a text"
    if half := half_character(value):
        return f"{name} holds {half}"
    return "" if value.strip() else f"{name} is empty"


def _shown(value: object) -> str:
    """A value as JSON writes it, cut short; as Python does where JSON cannot."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_rows(rows: Iterable, what: str = "example", blank: bool = False) -> list[Mapping]:
    """The rows as a list, each of them {"prompt": str, "answer": str}; columns beside these are left alone.

    Parameters
    ----------
    rows : a split of `load_task`, or any iterable of such rows
    what : str, what a message calls a row
    blank : bool, may a text be empty

    Raises
    ------
    LabError
        A row is something else, or its texts are none that can be encoded: its number is named.
    """
    try:
        rows = list(rows)
    except TypeError as error:
        raise LabError(f"Expected rows of {{'prompt': text, 'answer': text}}, found {_shown(rows)}.") from error
    for number, row in enumerate(rows, 1):
        check_row(row, f"{what} {number}", blank)
    return rows


def check_row(row: object, place: str, blank: bool = False) -> None:
    """Raise a LabError that names `place` unless a row is {"prompt": str, "answer": str}; `blank`: perhaps empty."""
    if not isinstance(row, Mapping):
        raise LabError(f"{place}: expected {{'prompt': text, 'answer': text}}, found {_shown(row)}.")
    for column in ("prompt", "answer"):
        if column not in row:
            raise LabError(
                f"{place} has no column {column!r}; it has {', '.join(map(str, row)) or 'none'}. "
                "Rename the columns to 'prompt' and 'answer'."
            )
        wrong = _wrong_text(column, row[column])
        if wrong and not (blank and wrong.endswith("is empty")):
            raise LabError(f"{place}: {wrong}. Correct it or leave that row out.")


def check_text(what: str, text: object) -> None:
    """Raise a LabError unless `text` is a str that UTF-8 can write."""
    if not isinstance(text, str):
        raise LabError(f"{what} is {_shown(text)}, of type {type(text).__name__}: give a text, a str.")
    if half := half_character(text):
        raise LabError(f"{what} holds {half}: {ascii(text)[:60]}. Correct or leave out that text.")


def half_character(text: str) -> str:
    r"""Half a UTF-16 pair in a text, as "half a character (\ud83d) at place 7"; "" if there is none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half a character (\\u{ord(text[error.start]):04x}) at place {error.start + 1}"
    return ""
