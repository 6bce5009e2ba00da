"""Data that are in memory: lists of dicts, dicts of columns, pandas tables, datasets."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import LabError, shown
from .reading import Source
from .text_files import Rows

SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def of_memory(source: object, prefix: str) -> Source:
    where, what = prefix + "row {}", prefix.rstrip(", ")
    names = _label_names(source)
    if hasattr(source, "iterrows"):
        _refuse_twice([str(name) for name in source.columns])
        return Source(lambda: _table(source), where, "a pandas table", {})
    if hasattr(source, "features") and hasattr(source, "__iter__"):
        return Source(listed_rows(source, what), where, f"a datasets.{type(source).__name__}", names)
    if isinstance(source, Mapping):
        if not are_columns(source):
            raise LabError(
                f"The data are a dict with the keys {', '.join(map(str, source)) or '(none)'}: these are neither "
                "splits (train, validation, test) nor columns, lists of one length. Pass a list of dicts."
            )
        return Source(column_rows(source), where, "a dict of columns", {})
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Iterable):
        raise LabError(
            f"The data are {shown(source)}, of type {type(source).__name__}. Pass the path of a file, a list of dicts, "
            "a pandas table, or a Dataset."
        )
    rows = source if hasattr(source, "__len__") else list(source)  # a generator can be read once only
    return Source(listed_rows(rows, what), where, "a list of dicts", {})


def _refuse_twice(columns: list[str]) -> None:
    """Raise a LabError for a name that a pandas table has twice: a row would keep one of the two values."""
    if twice := [name for place, name in enumerate(columns) if name in columns[:place]]:
        raise LabError(f"The pandas table has two columns called {twice[0]!r}. Rename one, or drop it.")


def _label_names(source: object) -> dict[str, list[str]]:
    features = getattr(source, "features", None) or {}
    return {name: list(one.names) for name, one in features.items() if hasattr(one, "names")}


def are_splits(source: Mapping) -> bool:
    """Is every key the name of a split? Columns of those names would be strange.

    Raises
    ------
    LabError
        Only some are: it is not guessed what the others are.
    """
    other = [name for name in source if str(name).lower() not in SPLIT_NAMES]
    if other and (hasattr(source[other[0]], "features") or (len(other) < len(source) and not are_columns(source))):
        raise LabError(
            f"The split {other[0]!r} is none of train, validation and test. Pass those that you want: "
            "{'train': data['train'], 'test': data['test']}."
        )
    return bool(source) and not other


def listed_rows(rows: Iterable, what: str) -> Callable[[], Rows]:
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


def are_columns(found: Mapping) -> bool:
    """Lists of one length, whose elements are not the turns of a conversation?"""
    columns = list(found.values())
    if not columns or not all(_is_list(one) for one in columns) or len({len(one) for one in columns}) != 1:
        return False
    return not any(len(one) and isinstance(one[0], Mapping) for one in columns)


def _is_list(values: object) -> bool:
    is_sized = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    return is_sized and not isinstance(values, (str, bytes, Mapping))


def column_rows(found: Mapping) -> Callable[[], Rows]:
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
