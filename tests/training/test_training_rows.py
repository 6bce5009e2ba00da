"""Training rows: every form that means the same gives the same rows, anything else is refused by row and column."""

from collections import deque

import numpy
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from lab_utils.errors import LabError
from lab_utils.finetune.training_rows import training_rows

ROWS = [{"prompt": f"How many? {number}", "answer": f"{number} 😀"} for number in range(4)]
COLUMNS = {"prompt": [row["prompt"] for row in ROWS], "answer": [row["answer"] for row in ROWS]}


def table():
    import pandas

    return pandas.DataFrame(ROWS)


def columns(make):
    return {name: make(values) for name, values in COLUMNS.items()}


def series(values):
    import pandas

    return pandas.Series(values, index=range(7, 7 + len(values)))


@pytest.mark.parametrize(
    "dataset",
    [
        columns(numpy.array), {"train": columns(lambda values: numpy.array(values, dtype=object))}, columns(series),
        columns(lambda values: series(values).astype("category")), columns(deque), dict(Dataset.from_list(ROWS)[:]),
        {name: Dataset.from_list(ROWS)[name] for name in COLUMNS},
        ROWS, tuple(ROWS), {"train": ROWS}, COLUMNS, {"train": COLUMNS}, {"train": ROWS, "test": [None]},
        Dataset.from_list(ROWS), DatasetDict(train=Dataset.from_list(ROWS)), {"train": Dataset.from_list(ROWS)},
        [{**row, "id": 7} for row in ROWS], Dataset.from_list([{"id": None, **row} for row in ROWS]),
        IterableDataset.from_generator(lambda: iter(ROWS)), table(), (row for row in ROWS),
    ],
    ids=lambda dataset: type(dataset).__name__,
)  # fmt: skip
def test_all_forms_give_the_same_rows(dataset):
    assert training_rows(dataset) == ROWS


def test_a_limit_takes_the_first_ones_and_reads_no_more():
    def rows():
        yield from ROWS
        pytest.fail("read on")

    assert training_rows(rows(), 3) == ROWS[:3]
    assert training_rows(ROWS, 100) == ROWS


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ([{"instruction": "a", "output": "b"}], "example 1 has no column 'prompt'; it has instruction, output"),
        ([ROWS[0], {"prompt": "a"}], "training example 2 has no column 'answer'"),
        ([ROWS[0], {"prompt": "a", "answer": None}], "training example 2: answer is null"),
        ([{"prompt": 5, "answer": "b"}], "training example 1: prompt is 5"),
        ([{"prompt": "a", "answer": ["b"]}], "training example 1: answer is"),
        ([{"prompt": "a", "answer": float("nan")}], "training example 1: answer is NaN"),
        ([{"prompt": b"a", "answer": "b"}], "training example 1: prompt is b'a'"),
        ([{"prompt": "half \ud83d", "answer": "b"}], r"training example 1: prompt holds half a character \(\\ud83d\)"),
        ([("a", "b")], "training example 1: expected"),
        (["a"], "training example 1: expected"),
        ({"test": ROWS, "validation": ROWS}, r"no split 'train'; it has test, validation"),
        ({}, "no split 'train'; it has nothing"),
        (DatasetDict(test=Dataset.from_list(ROWS)), "no split 'train'; it has test"),
        ({"train": {"train": ROWS}}, "splits too"),
        ({"prompt": ["a"], "answer": ["b", "c"]}, "1 prompts and 2 answers"),
        ([], "training split is empty"),
        ({"train": Dataset.from_list([])}, "training split is empty"),
        ("rows.jsonl", "dataset='rows.jsonl' is a text"),
        (5, "dataset is of type int"),
        (None, "dataset is of type NoneType"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_named(dataset, words):
    with pytest.raises(LabError, match=words):
        training_rows(dataset)


def test_a_column_of_the_wrong_type_is_named():
    with pytest.raises(LabError, match="training example 1: answer is 7"):
        training_rows(Dataset.from_dict({"prompt": ["a"], "answer": [7]}))


def test_what_a_data_set_raises_while_it_is_read_is_said_in_words():
    def rows():
        yield ROWS[0]
        raise OSError("arrow says no")

    with pytest.raises(LabError, match=r"training example 2 cannot be read \(OSError: arrow says no\)"):
        training_rows(rows())


@pytest.mark.parametrize("answers", [{"a", "b"}, {"a": 1}, "ab", 5, numpy.array(7), numpy.array([["a"], ["b"]]), None])
def test_what_is_no_column_is_refused(answers):
    with pytest.raises(LabError, match="no split 'train'; it has prompt, answer"):
        training_rows({"prompt": ["a", "b"], "answer": answers})


def test_an_array_that_holds_numbers_is_refused_by_its_row():
    with pytest.raises(LabError, match="training example 1: answer is"):
        training_rows({"prompt": numpy.array(["a", "b"]), "answer": numpy.array([1, 2])})
