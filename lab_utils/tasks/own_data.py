"""A task of your own: your file, which of its columns is asked and which is answered, and its splits."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import LabError, choose, shown, whole
from ..files import user_path
from ..printing import folded, put
from .answer_kinds import answer_kind, metric_name, score_by
from .conversations import has_text, last_turn
from .file_heads import TABLES
from .findings import counted
from .intake import Intake, Scratch, Tally, take_in
from .layouts import Layout, choose_layout
from .reading import Source
from .registry import Task
from .sources import open_source
from .splitting import SPLITS, check_shares, cut


@dataclass(frozen=True, eq=False, repr=False)
class OwnTask(Task):
    """A task made of a person's own data; it goes wherever a Task or a task's name goes.

    Attributes
    ----------
    name : str, for folders: "tickets"
    kind : "answers" (rows of prompt and answer) or "conversations" (rows of messages)
    data : datasets.DatasetDict, read from the disk as it is needed; each row has its place in the file, "line"
    metric : "exact", "labels", "fields", "text", or the person's function (output, answer) -> bool, or float in [0, 1]
    labels : tuple of str, the labels if the metric is "labels"
    notes : tuple of str, what was recognised, and what was left out
    settings : dict, the arguments of `own`
    data_digest : str, hex digits that differ for other examples
    intakes : tuple of Intake, what was seen while reading, one per file
    """

    name: str = field(default="data", kw_only=True)
    kind: str = field(default="answers", kw_only=True)
    data: object = field(default=None, kw_only=True, repr=False)
    metric: str | Callable = field(default="exact", kw_only=True)
    labels: tuple[str, ...] = field(default=(), kw_only=True, repr=False)
    notes: tuple[str, ...] = field(default=(), kw_only=True, repr=False)
    settings: dict = field(default_factory=dict, kw_only=True, repr=False)
    data_digest: str = field(default="", kw_only=True)
    intakes: tuple[Intake, ...] = field(default=(), kw_only=True, repr=False)
    scratch: Scratch | None = field(default=None, kw_only=True, repr=False)

    @property
    def key(self) -> str:
        """Name and twelve hex digits that differ for other data, splits, system message or metric."""
        parts = [self.data_digest, self.system, *self.fields, metric_name(self.metric), *map(str, self.splits)]
        parts += [self.settings.get(name) for name in ("split", "group", "seed")]
        return f"{self.name}-{hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnTask) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __deepcopy__(self, memo: dict) -> "OwnTask":
        return self

    def __repr__(self) -> str:
        return f"<OwnTask {self.name}: {self._sizes()}>"

    def __str__(self) -> str:
        return folded("\n".join([f"{self.name}: {self._sizes()}.", *(f"  {note}" for note in self.notes)]))

    def _sizes(self) -> str:
        return ", ".join(f"{len(rows):,} in {split}" for split, rows in self.data.items())

    def __getitem__(self, split: str):
        return self.data[choose("split", split, self.data)]

    def intake_of(self, split: str) -> Intake:
        """What was read for a split: the file's own, or the one that all splits are cut from."""
        return self.intakes[0] if len(self.intakes) == 1 else self.intakes[self.splits.index(split)]

    def place(self, split: str, number: int) -> str:
        """Where the row of this number, from 1, in a split is in the person's data: "tickets.csv, line 12"."""
        return self.intake_of(split).place(self[split][number - 1]["line"])

    def is_right(self, text: str, answer: str) -> bool:
        """As of a Task; by the person's own function if there is one, which calls an answer right by True or 1."""
        return score_by(self.metric, text, answer) >= 1 if callable(self.metric) else super().is_right(text, answer)

    def right_fields(self, text: str, answer: str) -> dict[str, bool]:
        """As of a Task; but a field that both JSON objects leave out is right: not every answer has every field."""
        found, expected, right = self.parse(text), self.parse(answer), super().right_fields(text, answer)
        if found is None or expected is None:
            return right
        return {name: one or not (name in found or name in expected) for name, one in right.items()}

    def report(self, tokenizer=None, max_length: int = 256):
        """What is wrong or strange in the data, with counts and the first lines: print it. Nothing is changed.

        Parameters
        ----------
        tokenizer : of transformers, to count tokens with (default: the embedded model's)
        max_length : int >= 8, the recipe's: longer examples would be left out

        Returns
        -------
        findings.Report
        """
        from .linter import lint

        return lint(self, tokenizer, max_length)

    def description(self) -> dict:
        """What a run's record keeps of the task, ready for JSON: `from_description` makes the task of it again."""
        return {
            **self.settings, "own": self.settings.get("own"), "key": self.key, "name": self.name, "kind": self.kind,
            "data_digest": self.data_digest, "system": self.system, "fields": list(self.fields),
            "metric": metric_name(self.metric), "max_new_tokens": self.max_new_tokens,
            "rows": {split: len(rows) for split, rows in self.data.items()},
        }  # fmt: skip


def own(
    source, *, prompt=None, answer=None, messages=None, system: str | None = None, fields=(), split=(0.8, 0.1, 0.1),
    group: str | None = None, seed: int = 0, metric=None, max_new_tokens: int | None = None, name: str | None = None,
    encoding: str = "utf-8",
) -> OwnTask:  # fmt: skip
    """Make a task of your own data. What was recognised is printed, and so is what was left out.

    Parameters
    ----------
    source : path of a .csv, .tsv, .json, .jsonl or .parquet file, or of a folder with train, validation and test; a
        list of dicts; a pandas table; a datasets.Dataset or DatasetDict; or a dict of these by split
    prompt, answer : the column that is asked and the one that is answered; several prompts are joined by a blank line,
        several answers become one JSON object. Not needed where the data have a form that is recognised.
    messages : or a column of conversations, each a list of {"role", "content"} or of ShareGPT's {"from", "value"}; an
        assistant's turn with "weight": 0 is read, and not learned
    system : str, the system message; "" or None for none
    fields : names of the answer's JSON fields, to be scored one by one (default: those that are found)
    split : shares of training, validation and test, if the source has no splits itself
    group : a column whose rows of one value stay in one split, such as the customer
    seed : int, of the split
    metric : "exact", "labels", "fields" or "text"; or a function (output, answer) -> bool, or a float in [0, 1]
        Default: by what the answers look like.
    max_new_tokens : int, room for the longest answer (default: by the longest there is)
    name : str, for folders (default: the file's)
    encoding : str, of a text file

    Returns
    -------
    OwnTask

    Raises
    ------
    LabError
        An argument is out of range, or the data are broken: file, line and column are named.
    """
    shares, seed = check_shares(split), whole("seed", seed, 0, 2**32 - 1)
    parts = open_source(source, encoding)
    first = next(iter(parts.values()))
    if not (peek := first.peek()):
        header = ": no line follows the one with the columns' names" if _file(first).lower().endswith(TABLES) else ""
        raise LabError(f"{_file(first)} holds no row{header}. Give at least one example.")
    layout = choose_layout(peek, _file(first), prompt, answer, messages, first.label_names)
    _check_group(group, peek, first)
    scratch = Scratch()
    intakes = {
        part: take_in(one, layout, group, scratch.path / f"{part or 'rows'}.arrow") for part, one in parts.items()
    }
    _refuse_empty(intakes, layout)
    data = _splits(intakes, shares, seed, group)
    path = _path(source)
    made = OwnTask(
        system or "", dict, splits=tuple(data), name=_name(name, path), kind=layout.kind, data=data,
        data_digest=hashlib.sha256("".join(one.digest for one in intakes.values()).encode()).hexdigest()[:16],
        intakes=tuple(intakes.values()), scratch=scratch,
        settings={
            "own": path, "prompt": prompt, "answer": answer, "messages": messages, "split": list(shares),
            "group": group, "seed": seed, "encoding": encoding,
        },
    )  # fmt: skip
    made = replace(made, **answer_kind(layout.kind, made.intakes, fields, metric, max_new_tokens))
    if callable(metric):  # tried now, not after a training
        row = next(filter(has_text, next(iter(data.values()))), None)
        if row is not None:
            right = last_turn(row["messages"])[1] if "messages" in row else row["answer"]
            score_by(metric, right, right, "for the first answer itself")
    made = replace(made, notes=_notes(made, layout, parts))
    put(str(made))
    return made


def _file(source: Source | Intake) -> str:
    """What a message calls a source: its file, or "the data"."""
    return source.where.rpartition(", ")[0] or "the data"


def _path(source: object) -> str | None:
    if not (isinstance(source, str) or hasattr(source, "__fspath__")):
        return None
    return str(Path(user_path(source)).absolute())


def _name(name: str | None, path: str | None) -> str:
    text = name
    if name is None:
        text = Path(path).stem if path else "data"
    if not isinstance(text, str):
        raise LabError(f"name={shown(name)} is out of range: a short text, such as 'tickets'.")
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "data"


def _check_group(group: object, peek: list[dict], source: Source) -> None:
    if group is not None:
        columns = dict.fromkeys(key for row in peek for key in row)
        choose(f"column of {_file(source)} for group", group, columns)


def _refuse_empty(intakes: dict[str, Intake], layout: Layout) -> None:
    for one in intakes.values():
        if not one.rows:
            left = one.left_out.items()
            why = ", ".join(f"{tally.count} with {reason} ({_first(one, tally)})" for reason, tally in left)
            why = why or "it is empty"
            rest = " Or leave that split out." if len(intakes) > 1 else ""
            raise LabError(f"{_file(one)} holds no example that can be learnt from: {why} ({layout.said}).{rest}")


def _splits(intakes: dict[str, Intake], shares, seed: int, group: str | None):
    """The examples by split, cut by a seed unless the source was cut already."""
    import numpy as np
    from datasets import DatasetDict

    if "" not in intakes:
        return DatasetDict({name: intakes[name].data() for name in SPLITS if name in intakes})
    one = intakes[""]
    groups = np.array(one.groups, dtype=np.int64) if group is not None else None
    data = one.data()
    return DatasetDict({name: data.select(rows) for name, rows in cut(one.rows, shares, seed, groups).items()})


def _notes(made: OwnTask, layout: Layout, parts: dict[str, Source]) -> tuple[str, ...]:
    """What was recognised and what was left out, in sentences."""
    form = next(iter(parts.values())).form
    notes = [f"Read as {form}; {layout.said}."]
    if made.metric == "labels":
        notes.append(f"{counted(len(made.labels), 'label')}.")
    if layout.roles:
        read = (f"{role!r} as {name}" for role, name in layout.roles.items())
        notes.append(f"Roles with other names are read so: {', '.join(read)}.")
    for one in made.intakes:
        for reason, tally in one.left_out.items():
            notes.append(f"Left out: {counted(tally.count, 'row')} with {reason} ({_first(one, tally)}).")
        if one.silent.count:
            notes.append(
                f"In {counted(one.silent.count, 'conversation')} a turn of the assistant says nothing, and is not "
                f"learned ({_first(one, one.silent)})."
            )
        if one.unweighted.count:
            notes.append(
                f"In {counted(one.unweighted.count, 'conversation')} a turn of the assistant has weight 0: it is read, "
                f"and not learned ({_first(one, one.unweighted)})."
            )
        if one.json_fields and one.no_json.count and made.kind == "answers":
            notes.append(
                f"{one.rows - one.no_json.count:,} of {one.rows:,} answers are JSON objects and the rest are not "
                f"({_first(one, one.no_json)}), so they are not compared field by field."
            )
    if made.settings["group"] is not None:
        groups = "the file's own splits are kept" if "" not in parts else "each in one split"
        notes.append(f"Groups from {made.settings['group']!r}: {groups}.")
    return tuple(notes)


def _first(intake: Intake, tally: Tally) -> str:
    """The first rows of a tally, for a note."""
    more = " …" if tally.count > len(tally.first) else ""
    return intake.where.format(", ".join(map(str, tally.first))) + more
