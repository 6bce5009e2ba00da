"""The fine-tuning tasks: where the data lies, how an example is asked, what counts as a right answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .errors import LabError, choose

DATA = Path(__file__).resolve().parent.parent / "data"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    system : str, the system message that every prompt starts with
    to_example : function, one line of the data file -> {"prompt": str, "answer": str}
    splits : names of the splits, each a file `data/<name>/<split>.jsonl` (or made from the hub's)
    fields : the answer's JSON fields; empty if the answer is plain text
    max_new_tokens : int, room for the longest answer
    hub : str, the dataset on the Hugging Face hub, if the data do not lie in the repository
    in_form : function, text -> bool: does a plain-text answer have the task's form (default: it is not empty)
    """

    system: str
    to_example: Callable[[dict], dict]
    splits: tuple[str, ...] = SPLITS
    fields: tuple[str, ...] = ()
    max_new_tokens: int = 64
    hub: str = ""
    in_form: Callable[[str], bool] = bool

    def parse(self, text: str) -> dict | None:
        """The answer as a dict, blanks around its strings taken off, if `text` is a JSON object, else None."""
        try:
            found = json.loads(text)
        except ValueError:
            return None
        if not isinstance(found, dict):
            return None
        return {key: value.strip() if isinstance(value, str) else value for key, value in found.items()}

    def is_right(self, text: str, answer: str) -> bool:
        """Exact match: of the parsed JSON if the task has fields, of the stripped text otherwise."""
        if self.fields:
            return self.parse(text) == self.parse(answer)
        return text.strip() == answer.strip()


    def is_valid(self, text: str) -> bool:
        """Is the answer well-formed: a JSON object if the task has fields, else as `in_form` says."""
        return self.parse(text) is not None if self.fields else self.in_form(text)


OPENINGS = ("Arr, ", "Ahoy, ", "Avast, ", "Shiver me timbers, ", "Blimey, ", "Yo ho, ")
ENDINGS = (", matey!", ", me hearty!", ", says I!", ", matey?")


def is_pirate(text: str) -> bool:
    """Does a sentence begin and end as every line of the `style` task does?"""
    return text.startswith(OPENINGS) and text.rstrip().endswith(ENDINGS)


def _booking(line: dict) -> dict:
    """The answer as JSON; a blank before name and item makes their first token the one that the message has.

    " tripods" after a blank and "tripods" after a quote are different tokens. A small model copies the same token far
    more surely than it spells the word anew; `Task.parse` takes the blank off again.
    """
    answer = {key: f" {value}" if key in ("name", "item") else value for key, value in line["answer"].items()}
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    return {"prompt": line["message"], "answer": text}


def _style(line: dict) -> dict:
    return {"prompt": line["plain"], "answer": line["styled"]}


def _dolly(line: dict) -> dict:
    context = f"\n\n{line['context']}" if line["context"] else ""
    return {"prompt": line["instruction"] + context, "answer": line["response"]}


TASKS = MappingProxyType(
    {
        "bookings": Task(
            system="Booking to JSON.",
            to_example=_booking,
            splits=(*SPLITS, "handwritten"),
            fields=("name", "qty", "item", "day", "time"),
            max_new_tokens=64,
        ),
        "style": Task(system="Say it like a pirate.", to_example=_style, in_form=is_pirate),
        "dolly": Task(
            system="Answer the question.", to_example=_dolly, max_new_tokens=200, hub="databricks/databricks-dolly-15k"
        ),
    }
)


def read_jsonl(path: Path) -> list[dict]:
    """The objects in a JSON Lines file.

    Raises
    ------
    LabError
        The file is missing or empty, or a line is not a JSON object: file and line number are named.
    """
    if not path.is_file():
        raise LabError(f"There is no data file {path}. Take the whole repository, `data/` included.")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LabError(f"{path}, line {number}: not JSON ({error}). Mend or delete that line.") from error
        if not isinstance(row, dict):
            raise LabError(f"{path}, line {number}: expected an object {{...}}, found {type(row).__name__}.")
        rows.append(row)
    if not rows:
        raise LabError(f"{path} holds no example. Restore it (`git checkout -- data`) or choose another split.")
    return rows


def load_task(name: str, folder: Path | None = None):
    """Load a task.

    Parameters
    ----------
    name : str
        A name in `TASKS`. "dolly" comes from the Hugging Face hub and needs a network.
    folder : Path, optional
        Read the JSON Lines files from here; default `data/<name>`.

    Returns
    -------
    datasets.DatasetDict
        Splits train, validation, test (bookings also handwritten); columns "prompt" and "answer", both str.

    Raises
    ------
    LabError
        Unknown task, missing or empty file, corrupt line (named by file and number), hub out of reach.
    """
    choose("task", name, TASKS)
    task = TASKS[name]
    from datasets import Dataset, DatasetDict

    if task.hub:
        return _from_hub(name, task)
    splits = {}
    for split in task.splits:
        path = (folder or DATA / name) / f"{split}.jsonl"
        splits[split] = Dataset.from_list(_examples(task, path))
    return DatasetDict(splits)


def _examples(task: Task, path: Path) -> list[dict]:
    """The file's lines as prompt and answer, each line checked."""
    examples = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            examples.append(task.to_example(row))
        except (KeyError, TypeError) as error:
            raise LabError(f"{path}, line {number}: the key {error} is missing. Mend or delete that line.") from error
    return examples


def _from_hub(name: str, task: Task):
    """A hub dataset in the same columns; its one split cut into three, always the same way."""
    from datasets import DatasetDict, load_dataset

    try:
        rows = load_dataset(task.hub, split="train")
    except Exception as error:  # datasets and the hub raise a dozen types when there is no network
        raise LabError(
            f"{name} ({task.hub}) could not be loaded from the hub: {type(error).__name__}. "
            "Without a network use 'bookings' or 'style'."
        ) from error
    rows = rows.map(task.to_example, remove_columns=rows.column_names)
    first = rows.train_test_split(test_size=400, seed=0)
    second = first["test"].train_test_split(test_size=200, seed=0)
    return DatasetDict(train=first["train"], validation=second["train"], test=second["test"])
