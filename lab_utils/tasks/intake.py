"""A person's rows, read once: written to the disk as Arrow, counted and digested on the way."""

import bisect
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LabError
from .conversations import is_silent, is_unweighted
from .data_lines import strict_json
from .layouts import Layout, LeftOut, as_text, is_nothing
from .reading import Source

KEPT = 5  # places that are kept of each finding
MOST_LABELS = 2000  # more different answers than this are not labels


class Scratch:
    """A folder that is deleted when nobody needs it any more: when its owner goes, or at the end of the process."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="lora-lab-data-"))
        weakref.finalize(self, _remove, self.path, os.getpid())

    def __reduce__(self):
        return (str, (str(self.path),))  # a copy in another process reads it, and does not delete it


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked from the owner's
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class Tally:
    """How often something occurs, and where first.

    Attributes
    ----------
    count : int
    first : list, the lowest numbers of rows, in order
    """

    count: int = 0
    first: list = field(default_factory=list)

    def add(self, number) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < KEPT or number < self.first[-1]:
            bisect.insort(self.first, number)
            del self.first[KEPT:]


@dataclass
class Intake:
    """What is known of one source after it was read.

    Attributes
    ----------
    where : str, the place of a row with {} for its number: "tickets.csv, line {}"
    path : Path of the Arrow file; its columns are those of `columns_of`
    rows, read : int, examples written, and rows read
    left_out : dict reason -> Tally
    types : dict column -> dict name of a type -> Tally
    answers : Counter answer -> int, or None if there are more than `MOST_LABELS`
    json_fields : dict, the keys of answers that are JSON objects, in order
    no_json : Tally of answers that are not JSON objects
    room : int, tokens that the longest answer may take
    groups : array of int, one per example; rows without a group have one each
    ungrouped : Tally of those
    silent : Tally of conversations with a turn in which the assistant says nothing
    unweighted : Tally of conversations with a turn of the assistant of weight 0
    digest : str, hexadecimal, of all examples
    """

    where: str
    path: Path
    rows: int = 0
    read: int = 0
    left_out: dict[str, Tally] = field(default_factory=dict)
    types: dict[str, dict[str, Tally]] = field(default_factory=dict)
    answers: Counter | None = field(default_factory=Counter)
    json_fields: dict = field(default_factory=dict)
    no_json: Tally = field(default_factory=Tally)
    room: int = 0
    groups: array = field(default_factory=lambda: array("q"))
    ungrouped: Tally = field(default_factory=Tally)
    silent: Tally = field(default_factory=Tally)
    unweighted: Tally = field(default_factory=Tally)
    digest: str = ""

    def place(self, number: int) -> str:
        """Where a row is, for a message."""
        return self.where.format(number)

    def data(self):
        """The examples as a datasets.Dataset, read from the disk as they are needed."""
        from datasets import Dataset

        found = Dataset.from_file(str(self.path))
        return found.with_transform(decoded) if "messages" in found.column_names else found


def take_in(source: Source, layout: Layout, group: str | None, path: Path) -> Intake:
    """Read a source to its end, and write its examples to `path`.

    Raises
    ------
    LabError
        A row is broken: its place and column are named. Or the disk is full.
    """
    from datasets.arrow_writer import ArrowWriter

    found, digest = Intake(source.where, path), hashlib.sha256()
    try:
        with ArrowWriter(path=str(path), features=_features(layout, group), writer_batch_size=500) as writer:
            for number, row in source.rows():
                found.read += 1
                if example := _example(found, layout, row, number):
                    digest.update(json.dumps(example, sort_keys=True).encode())
                    if group is not None:
                        example["group"] = _group(found, row, group, number)
                    writer.write(_encoded(example))
            if found.rows:
                writer.finalize()
    except OSError as error:
        raise LabError(f"The data cannot be kept in {path.parent}: {error}. Free some space, or set TMPDIR.") from error
    found.digest = digest.hexdigest()
    return found


def _features(layout: Layout, group: str | None):
    from datasets import Features, Value

    texts = ["prompt", "answer"] if layout.kind == "answers" else ["messages", "tools"]
    texts += ["group"] if group is not None else []
    return Features({name: Value("string") for name in texts} | {"line": Value("int64")})


def _example(found: Intake, layout: Layout, row: Mapping, number: int) -> dict | None:
    """The example of a row, counted; None if there is nothing to learn from it."""
    for column in (one for columns in layout.columns.values() for one in columns):
        if not is_nothing(value := row.get(column)):
            found.types.setdefault(column, {}).setdefault(type(value).__name__, Tally()).add(number)
    try:
        example = layout.convert(row, found.place(number))
    except LeftOut as reason:
        found.left_out.setdefault(str(reason), Tally()).add(number)
        return None
    found.rows += 1
    if layout.kind == "answers":
        _count_answer(found, example["answer"], number)
    else:
        answers = [one["content"] for one in example["messages"] if one["role"] == "assistant"]
        found.room = max(found.room, *map(room_of, answers))
        if any(map(is_silent, example["messages"])):
            found.silent.add(number)
        if any(map(is_unweighted, example["messages"])):
            found.unweighted.add(number)
    return {**example, "line": number}


def _count_answer(found: Intake, answer: str, number: int) -> None:
    found.room = max(found.room, room_of(answer))
    if found.answers is not None:
        found.answers[answer] += 1
        if len(found.answers) > MOST_LABELS:
            found.answers = None
    if (value := _object(answer)) is None:
        found.no_json.add(number)
    else:
        found.json_fields |= dict.fromkeys(value)


def room_of(answer: str) -> int:
    """Tokens that an answer may take: words at two bytes per token, each digit, sign or byte of other letters as one.

    >>> room_of("Booked."), room_of("550e8400-e29b")
    (12, 21)
    """
    words, size = re.findall(" ?[A-Za-z]+", answer), len(answer.encode())
    signs = size - sum(map(len, words))
    return max(math.ceil(size / 2), sum(math.ceil(len(one.strip()) / 2) for one in words) + signs) + 8


def _object(text: str) -> dict | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = strict_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _group(found: Intake, row: Mapping, group: str, number: int) -> str | None:
    """A row's group as text; None, and its own group, where the column is empty."""
    text = as_text(row.get(group), found.place(number), group)
    if not text:
        found.ungrouped.add(number)
        found.groups.append(-len(found.groups) - 1)
        return None
    found.groups.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big"))
    return text


def _encoded(example: dict) -> dict:
    """An example as Arrow keeps it: turns of unlike keys have no common columns, so they are JSON text there."""
    if "messages" not in example:
        return example
    texts = {name: json.dumps(example[name], ensure_ascii=False) for name in ("messages", "tools")}
    return {**example, **texts}


def decoded(batch: dict) -> dict:
    """The examples of a batch with their turns as lists again: what `Dataset.with_transform` calls."""
    return {
        name: [json.loads(text) for text in values] if name in ("messages", "tools") else values
        for name, values in batch.items()
    }
