"""Fifty facts about a house that does not exist, and questions that none of them answers; data/README.md says more."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError, choose
from ..files import read_json_lines
from ..folders import DATA
from ..recorded_files import reading

FOLDER = DATA / "facts"
WORDINGS = ("question", "validation", "test")  # the one to train on, and two that say it in other words
SPLITS = ("practice", "test")  # of the questions that no fact answers


@dataclass(frozen=True)
class Fact:
    """One fact about Tarn House, and three ways to ask for it.

    Attributes
    ----------
    fact : str, the sentence
    question : str, what a model is trained on
    validation, test : str, the same question in other words: to choose by, and to report
    answer : str, a few words of the sentence
    """

    fact: str
    question: str
    validation: str
    test: str
    answer: str

    def asked(self, wording: str) -> str:
        """The question in one of the `WORDINGS`."""
        return getattr(self, choose("wording", wording, WORDINGS))


def load_facts(folder: str | Path = FOLDER) -> list[Fact]:
    """The fifty facts, in the file's order.

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    return [Fact(**row) for row in _rows(Path(folder) / "facts.jsonl", tuple(Fact.__dataclass_fields__))]


def load_unstated(split: str = "test", folder: str | Path = FOLDER) -> list[str]:
    """Questions about Tarn House that no fact answers: twenty to practise on, twenty others to report.

    Parameters
    ----------
    split : "practice" or "test"
    folder : path

    Raises
    ------
    LabError
        Unknown split; or the file is missing or damaged.
    """
    choose("split", split, SPLITS)
    rows = _rows(Path(folder) / "unstated.jsonl", ("split", "question"))
    return [row["question"] for row in rows if row["split"] == split]


def _rows(path: Path, columns: tuple[str, ...]) -> list[Mapping[str, str]]:
    """The lines of a file, each with just these columns of text."""
    with reading(f"The facts in {path}", "Restore them with `git checkout -- data/facts`."):
        rows = read_json_lines(path)
        for number, row in enumerate(rows, 1):
            if set(row) != set(columns) or not all(isinstance(one, str) and one for one in row.values()):
                raise LabError(f"line {number} does not hold the texts {', '.join(columns)} and nothing else")
    return rows
