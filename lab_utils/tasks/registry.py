"""The fine-tuning tasks: where the data lies, how an example is asked, what counts as a right answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ..errors import LabError, choose
from ..files import user_path
from ..folders import DATA
from .data_lines import check_line, check_rows, placed_lines, same_json, strict_json

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    system : str, the system message that every prompt starts with
    to_example : function, one line of the data file -> {"prompt": str, "answer": str}
    columns : what such a line must hold, as `data_lines.check_line` reads it; other columns are left alone
    splits : names of the splits, each a file `data/<name>/<split>.jsonl` (or made from the hub's)
    fields : the answer's JSON fields; empty if the answer is plain text
    max_new_tokens : int, room for the longest answer
    hub : str, the dataset on the Hugging Face hub, if the data do not lie in the repository
    in_form : function, text -> bool: does a plain-text answer have the task's form (default: it is not empty)
    """

    system: str
    to_example: Callable[[dict], dict]
    columns: Mapping = field(default_factory=dict, kw_only=True)
    splits: tuple[str, ...] = SPLITS
    fields: tuple[str, ...] = ()
    max_new_tokens: int = 64
    hub: str = ""
    in_form: Callable[[str], bool] = bool

    def parse(self, text: str) -> dict | None:
        """The answer as a dict, blanks around its strings taken off, if `text` is a JSON object, else None.

        Read strictly: NaN, Infinity and a key that occurs twice are not JSON here.
        """
        try:
            found = strict_json(text)
        except ValueError:
            return None
        if not isinstance(found, dict):
            return None
        return {key: value.strip() if isinstance(value, str) else value for key, value in found.items()}

    def is_right(self, text: str, answer: str) -> bool:
        """Exact match: of the parsed JSON if the task has fields, of the stripped text otherwise.

        JSON values match in type and value: the number 1 is neither true, nor 1.0, nor "1".
        """
        if self.fields:
            found, expected = self.parse(text), self.parse(answer)
            return found is not None and same_json(found, expected)
        return text.strip() == answer.strip()

    def right_fields(self, text: str, answer: str) -> dict[str, bool]:
        """For each of the task's fields: do both JSON objects have it, with the same type and value?"""
        found, expected = self.parse(text) or {}, self.parse(answer) or {}
        return {
            name: name in found and name in expected and same_json(found[name], expected[name]) for name in self.fields
        }

    def is_valid(self, text: str) -> bool:
        """Is the answer well-formed: a JSON object if the task has fields, else as `in_form` says."""
        return self.parse(text) is not None if self.fields else self.in_form(text)


OPENINGS = ("Arr, ", "Ahoy, ", "Avast, ", "Shiver me timbers, ", "Blimey, ", "Yo ho, ")
ENDINGS = (", matey!", ", me hearty!", ", says I!", ", matey?")


def is_pirate(text: str) -> bool:
    """Does a sentence begin and end as every line of the `style` task does?"""
    return text.startswith(OPENINGS) and text.rstrip().endswith(ENDINGS)


BOOKING = MappingProxyType({"name": str, "qty": int, "item": str, "day": str, "time": str})  # in the answer's order


def _booking(line: dict) -> dict:
    """The answer as JSON; a blank before name and item makes their first token the one that the message has.

    " tripods" after a blank and "tripods" after a quote are different tokens. A small model copies the same token far
    more surely than it spells the word afresh; `Task.parse` takes the blank off again.
    """
    said = line["answer"]
    answer = {key: f" {said[key]}" if key in ("name", "item") else said[key] for key in BOOKING}
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    return {"prompt": line["message"], "answer": text}


def _style(line: dict) -> dict:
    return {"prompt": line["plain"], "answer": line["styled"]}


def _dolly(line: dict) -> dict:
    context = f"\n\n{line['context']}" if line.get("context") else ""
    return {"prompt": line["instruction"] + context, "answer": line["response"]}


TASKS = MappingProxyType(
    {
        "bookings": Task(
            system="Booking to JSON.",
            to_example=_booking,
            columns={"message": str, "answer": BOOKING},
            splits=(*SPLITS, "handwritten"),
            fields=tuple(BOOKING),
            max_new_tokens=64,
        ),
        "style": Task(
            system="Say it like a pirate.",
            to_example=_style,
            columns={"plain": str, "styled": str},
            in_form=is_pirate,
        ),
        "dolly": Task(
            system="Answer the question.",
            to_example=_dolly,
            columns={"instruction": str, "context": str | None, "response": str},
            max_new_tokens=200,
            hub="databricks/databricks-dolly-15k",
        ),
    }
)


def find_task(task: str | Task) -> Task:
    """A task by its name in `TASKS`; a Task is given back as it is.

    Raises
    ------
    LabError
        There is no task of that name.
    """
    if isinstance(task, Task):
        return task
    return TASKS[choose("task", task, TASKS)]


def load_task(name: str | Task, folder: str | Path | None = None):
    """Load a task.

    Parameters
    ----------
    name : str
        A name in `TASKS`. "dolly" comes from the Hugging Face hub and needs a network, unless `folder` is given. Of
        one's own task (`own`), the data that it holds.
    folder : path, optional
        Read the JSON Lines files from here; default `data/<name>`.

    Returns
    -------
    datasets.DatasetDict
        Splits train, validation, test (bookings also handwritten); columns "prompt" and "answer", both str.

    Raises
    ------
    LabError
        Unknown task, missing or empty file, corrupt line (named by file, line and column), hub out of reach.
    """
    if getattr(name, "data", None) is not None and isinstance(name, Task):
        return name.data
    task = TASKS[choose("task", name, TASKS)]
    from datasets import Dataset, DatasetDict

    if task.hub and folder is None:
        return _from_hub(name, task)
    folder = DATA / name if folder is None else user_path(folder)
    splits = {split: Dataset.from_list(_examples(task, folder / f"{split}.jsonl")) for split in task.splits}
    return DatasetDict(splits)


def _examples(task: Task, path: Path) -> list[dict]:
    """The file's lines as prompt and answer, each line checked."""
    return [example(task, row, place) for place, row in placed_lines(path)]


def example(task: Task, row: Mapping, place: str) -> dict:
    """A line of data as {"prompt": str, "answer": str}.

    Parameters
    ----------
    task : Task
    row : the line's columns
    place : str, where the line is, such as "train.jsonl, line 3"

    Raises
    ------
    LabError
        A column is missing, empty or of another type: the place and the column are named.
    """
    check_line(row, task.columns, place)
    try:
        made = task.to_example(row)
    except (KeyError, TypeError, AttributeError) as error:  # of a task that names no columns
        raise LabError(f"{place}: no example ({type(error).__name__}: {error}). Correct or delete it.") from error
    return check_rows([made], f"{place}, example")[0]


def _from_hub(name: str, task: Task):
    """A hub dataset in the same columns; its one split cut into three, always the same way."""
    from datasets import Dataset, DatasetDict, load_dataset

    try:
        rows = load_dataset(task.hub, split="train")
    except Exception as error:  # datasets and the hub raise a dozen types when there is no network
        raise LabError(
            f"{name} ({task.hub}) could not be loaded from the hub: {type(error).__name__}. "
            "Without a network use 'bookings' or 'style'."
        ) from error
    examples = []
    for number, row in enumerate(rows, 1):
        if any(isinstance(row.get(one), str) and not row[one].strip() for one in ("instruction", "response")):
            print(f"{task.hub}, row {number} is empty: left out.")
            continue
        examples.append(example(task, row, f"{task.hub}, row {number}"))
    rows = Dataset.from_list(examples)
    first = rows.train_test_split(test_size=400, seed=0)
    second = first["test"].train_test_split(test_size=200, seed=0)
    return DatasetDict(train=first["train"], validation=second["train"], test=second["test"])
