"""The rows that a run is trained on, in whichever form they come, each one checked before anything is loaded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from itertools import islice

from ..errors import LabError
from ..printing import say
from ..tasks import OwnTask
from ..tasks.conversations import check_conversation, is_silent
from ..tasks.data_lines import check_row

COLUMNS = ("prompt", "answer")
NO_SPLIT = "Give rows of it, as {'train': rows, 'validation': other_rows}, or leave validate_every at 0."


def training_rows(dataset, limit: int | None = None, split: str = "train") -> Sequence[dict]:
    """A data set's rows of one split, each one checked.

    Parameters
    ----------
    dataset : of columns "prompt" and "answer", both str, or of conversations in the column "messages" (see
        `tasks.own`); other columns are left out. An OwnTask; a datasets.DatasetDict or a dict with the split;
        a datasets.Dataset; a pandas table; a dict of two lists, arrays or pandas columns; any iterable of dicts.
    limit : int >= 1 or None, take the first so many rows (None: all)
    split : str, "train" or "validation"

    Returns
    -------
    sequence of {"prompt": str, "answer": str} or {"messages": list, "tools": list or None}
        Of a datasets.Dataset, each row is read from it when it is asked for. Of anything else, a list.

    Raises
    ------
    LabError
        There is no such split or no row in it; or a column is missing or a value not text: both are named.
    """
    rows = _iterable(dataset, split)
    found = Rows(rows, limit) if _is_on_disk(rows) else [_clean(*one) for one in enumerate(_read(rows, limit), 1)]
    if not len(found):
        name = {"train": "training"}.get(split, split)
        raise LabError(f"The {name} split is empty: give dataset at least one row with a prompt and an answer.")
    if not isinstance(dataset, OwnTask):  # which has said so itself
        _say_silent(found)
    return found


def _say_silent(rows: Sequence[dict]) -> None:
    """Print in how many conversations the assistant has a turn that says nothing, and which is the first."""
    numbers = rows.silent if isinstance(rows, Rows) else [one for one, row in enumerate(rows, 1) if _is_silent(row)]
    if numbers:
        where = "1 conversation" if len(numbers) == 1 else f"{len(numbers):,} conversations"
        say(
            f"In {where} a turn of the assistant says nothing, and is not learned (the first: training example "
            f"{numbers[0]})."
        )


def _is_silent(row: Mapping) -> bool:
    return any(map(is_silent, row.get("messages", ())))


class Rows(Sequence):
    """The rows of a datasets.Dataset, read and checked one by one; equal to a list of the same rows.

    Parameters
    ----------
    data : datasets.Dataset
    limit : int or None, the first so many rows
    """

    def __init__(self, data, limit: int | None = None):
        self._data = data.select(range(min(limit, len(data)))) if limit is not None else data
        self.silent = []  # numbers of conversations with a turn of the assistant that says nothing
        for number, row in enumerate(_read(self._data, None), 1):
            if _is_silent(_clean(number, row)):
                self.silent.append(number)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict:
        return _clean(index + 1, self._data[index])

    def __iter__(self) -> Iterator[dict]:
        return (_clean(number, row) for number, row in enumerate(self._data, 1))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None


def _is_on_disk(rows) -> bool:
    """Is it a datasets.Dataset: rows in a file that any of them can be read from?"""
    return hasattr(rows, "with_transform") and hasattr(rows, "select") and hasattr(rows, "__len__")


def _clean(number: int, row: object) -> dict:
    """A row with the columns that are trained on, or a LabError that names it."""
    place = f"training example {number}"
    if isinstance(row, Mapping) and "messages" in row:
        return {"messages": check_conversation(row["messages"], place), "tools": row.get("tools")}
    check_row(row, place)
    return {name: str(row[name]) for name in COLUMNS}


def _iterable(dataset, split: str) -> Iterable:
    """What gives the rows of a data set one by one."""
    if isinstance(dataset, OwnTask):
        dataset = dict(dataset.data)
    if isinstance(dataset, Mapping):
        return _of_mapping(dataset, split)
    if split != "train":
        raise LabError(f"dataset has no split {split!r}. {NO_SPLIT}")
    if hasattr(dataset, "iterrows"):  # pandas
        return dataset.to_dict("records")
    if isinstance(dataset, (str, bytes)) or hasattr(dataset, "__fspath__"):
        raise LabError(
            f"dataset={dataset!r} is a text, and rows are expected. "
            "Read a file first: datasets.load_dataset('json', data_files=...)."
        )
    if not isinstance(dataset, Iterable) and not hasattr(dataset, "__getitem__"):
        raise LabError(f"dataset is of type {type(dataset).__name__}: rows with 'prompt' and 'answer' are expected.")
    return dataset


def _of_mapping(dataset: Mapping, split: str) -> Iterable:
    """The rows of a dict of splits, or of a dict of columns."""
    if split in dataset:
        if isinstance(dataset[split], Mapping) and split in dataset[split]:
            raise LabError(f"dataset[{split!r}] has splits too: pass dataset[{split!r}] alone.")
        return _iterable(dataset[split], "train")
    if split != "train":
        raise LabError(f"dataset has no split {split!r}. {NO_SPLIT}")
    if not all(_is_column(dataset.get(name)) for name in COLUMNS):
        names = ", ".join(str(name) for name in islice(dataset, 10)) or "nothing"
        raise LabError(
            f"dataset has no split 'train'; it has {names}. Pass {{'train': rows}}, or the rows alone: a list of "
            "{'prompt': text, 'answer': text}."
        )
    prompts, answers = (dataset[name] for name in COLUMNS)
    if len(prompts) != len(answers):
        raise LabError(f"dataset has {len(prompts)} prompts and {len(answers)} answers, which must be as many.")
    return [dict(zip(COLUMNS, pair, strict=True)) for pair in zip(prompts, answers, strict=True)]


def _is_column(values) -> bool:
    """Is it a list, or what passes for one: a tuple, an array of one dimension, a column of a pandas table?"""
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable):
        return False
    return isinstance(values, Sized) and len(getattr(values, "shape", (0,))) == 1


def _read(rows: Iterable, limit: int | None) -> Iterator:
    """The first rows; what a data set raises while it is read is said in the lab's words."""
    count = 0
    try:
        for row in islice(rows, limit):
            count += 1
            yield row
    except LabError:
        raise
    except Exception as error:  # arrow, a file that is gone, the reader's own generator
        raise LabError(
            f"dataset: training example {count + 1} cannot be read ({type(error).__name__}: {error})."
        ) from error
