"""The rows that a run is trained on, in whichever form they come, each one checked before anything is loaded."""

from collections.abc import Iterable, Mapping, Set, Sized
from itertools import islice

from ..errors import LabError
from ..tasks.data_lines import check_rows

COLUMNS = ("prompt", "answer")


def training_rows(dataset, limit: int | None = None) -> list[dict[str, str]]:
    """A data set's training rows as plain text.

    Parameters
    ----------
    dataset : of columns "prompt" and "answer", both str; other columns are left out. A datasets.DatasetDict or a dict
        with the split "train"; a datasets.Dataset; a pandas table; a dict of two lists, arrays or pandas columns;
        any iterable of dicts.
    limit : int >= 1 or None, take the first so many rows (None: all)

    Returns
    -------
    list of {"prompt": str, "answer": str}

    Raises
    ------
    LabError
        There is no split "train" or no row in it; or a column is missing or a value not text: both are named.
    """
    rows = check_rows(_read(_iterable(dataset), limit), "training example")
    if not rows:
        raise LabError("The training split is empty: give dataset at least one row with a prompt and an answer.")
    return [{name: str(row[name]) for name in COLUMNS} for row in rows]


def _iterable(dataset) -> Iterable:
    """What gives the rows of a data set one by one."""
    if isinstance(dataset, Mapping):
        return _of_mapping(dataset)
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


def _of_mapping(dataset: Mapping) -> Iterable:
    """The rows of a dict of splits, or of a dict of columns."""
    if "train" in dataset:
        if isinstance(dataset["train"], Mapping) and "train" in dataset["train"]:
            raise LabError("dataset['train'] has splits too: pass dataset['train'] alone.")
        return _iterable(dataset["train"])
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


def _read(rows: Iterable, limit: int | None) -> list:
    """The first rows; what a data set raises while it is read is said in the lab's words."""
    found = []
    try:
        for row in islice(rows, limit):
            found.append(row)
    except LabError:
        raise
    except Exception as error:  # arrow, a file that is gone, the reader's own generator
        raise LabError(
            f"dataset: training example {len(found) + 1} cannot be read ({type(error).__name__}: {error})."
        ) from error
    return found
