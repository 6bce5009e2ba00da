"""Which columns of a person's data are asked and which are answered: as they say, or by a form that many data have."""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import LabError, listed, shown
from .conversations import has_answer, is_blank, is_unweighted, learnable, passed_on, turns_of, unpacked
from .data_lines import half_character
from .findings import counted

NOTHING = ("NAType", "NaTType")  # of pandas
CHAT_COLUMNS = ("messages", "conversations", "conversation", "chat", "turns", "dialogue", "dialog")
PAIRS = (  # columns that many data sets have: asked, answered
    ("prompt", "answer"), ("prompt", "completion"), ("prompt", "response"), ("question", "answer"),
    ("instruction", "response"), ("instruction", "output"), ("input", "output"), ("text", "label"),
    ("source", "target"), ("query", "response"),
)  # fmt: skip


class LeftOut(Exception):
    """A row that nothing can be learnt from, and why: "no answer"."""


@dataclass(frozen=True)
class Layout:
    """How a row of the data becomes an example.

    Attributes
    ----------
    kind : "answers" or "conversations"
    said : str, what was recognised
    columns : dict, "prompt" / "answer" / "messages" -> the column's name or names, for messages
    convert : function (row, place) -> an example; raises LeftOut for an empty one, LabError for a broken one
    roles : dict, filled by `convert`: a role of the data -> the lab's name of it, where they differ
    """

    kind: str
    said: str
    columns: dict
    convert: Callable[[Mapping, str], dict]
    roles: dict = field(default_factory=dict)


def choose_layout(
    peek: Sequence[Mapping], where: str, prompt=None, answer=None, messages=None, names: Mapping | None = None
) -> Layout:
    """The layout of data, from their first rows and what a person said of them.

    Parameters
    ----------
    peek : list of dict, the first rows
    where : str, the file, for messages
    prompt, answer : a column, or several: prompts are joined by a blank line, answers become one JSON object
    messages : a column with conversations; not beside prompt and answer
    names : column -> names of its classes

    Raises
    ------
    LabError
        A column is not there (the nearest one is named), or nothing is said and no form is recognised.
    """
    columns = list(dict.fromkeys(key for row in peek for key in row if isinstance(key, str)))
    if messages is not None:
        if prompt is not None or answer is not None:
            raise LabError("Give either messages=, or prompt= and answer=: a row is a conversation or a pair.")
        column = _known(messages, "messages", columns, where)[0]
        return _chat(column, peek, columns, f"conversations in the column {column!r}")
    if prompt is None and answer is None:
        return _recognised(peek, columns, where, names or {})
    if prompt is None or answer is None:
        lacks = "prompt" if prompt is None else "answer"
        raise LabError(f"{where}: {lacks}= is missing. Name both columns, of: {_names(columns)}.")
    asked, answered = _known(prompt, "prompt", columns, where), _known(answer, "answer", columns, where)
    if both := sorted(set(asked) & set(answered)):
        raise LabError(f"{where}: the column {both[0]!r} is prompt and answer. Name one column for each.")
    return _pair(asked, answered, f"prompt from {_quoted(asked)}, answer from {_quoted(answered)}", names or {})


def _known(given: object, name: str, columns: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns that a person named, each of them there."""
    found = listed(given)
    if not found or not all(isinstance(one, str) for one in found):
        raise LabError(f"{name}={shown(given)} is out of range: the name of a column, or a tuple of names.")
    for one in found:
        if one not in columns:
            alike = [column for column in columns if column.strip().lower() == one.lower()]
            near = alike or difflib.get_close_matches(one, columns, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if isinstance(given, str) and len(several := tuple(part.strip() for part in one.split(","))) > 1:
                hint = f" Several columns are a tuple: {name}={several!r}."
            elif not near and where.lower().endswith((".csv", ".tsv")):
                hint = " The first line of the file is read as the names of the columns."
            raise LabError(f"{where} has no column {one!r}; it has: {_names(columns)}.{hint}")
    return found


def _names(columns: Sequence[str], most: int = 40) -> str:
    """Columns for a message: of thousands, the first."""
    more = f", … ({len(columns):,} in all)" if len(columns) > most else ""
    return (", ".join(map(repr, columns[:most])) or "none") + more


def _quoted(columns: Sequence[str]) -> str:
    return " and ".join(repr(one) for one in columns)


def _recognised(peek: Sequence[Mapping], columns: Sequence[str], where: str, names: Mapping) -> Layout:
    """The layout of a form that many data have."""
    lower = {column.lower(): column for column in reversed(columns)}
    for name in CHAT_COLUMNS:
        if name in lower and _holds_turns(peek, lower[name]):
            column = lower[name]
            first = next(row[column] for row in peek if _filled(row.get(column)))
            sharegpt = not isinstance(first, str) and "from" in first[0]
            form = "ShareGPT" if sharegpt else "chat"
            return _chat(column, peek, columns, f"{form} format: conversations in the column {column!r}")
    if {"instruction", "output"} <= lower.keys():
        asked = [lower[one] for one in ("instruction", "input") if one in lower]
        return _pair(tuple(asked), (lower["output"],), f"Alpaca format: prompt from {_quoted(asked)}, answer from "
                     f"{lower['output']!r}", names)  # fmt: skip
    if {"prompt", "chosen", "rejected"} <= lower.keys():
        raise LabError(_of_preferences(peek, lower["prompt"], lower["chosen"], where))
    for asked, answered in PAIRS:
        if asked in lower and answered in lower:
            one, other = (lower[asked],), (lower[answered],)
            return _pair(one, other, f"prompt from {_quoted(one)}, answer from {_quoted(other)}", names)
    raise LabError(
        f"{where}: which column is asked and which is answered? It has: {_names(columns)}. "
        "Say so: prompt='…', answer='…'; or messages='…' for a column of conversations."
    )


def _of_preferences(peek: Sequence[Mapping], prompt: str, chosen: str, where: str) -> str:
    """What is said of data with a better and a worse answer."""
    how = f"prompt={prompt!r}, answer={chosen!r}"
    if first := next((row[chosen] for row in peek if _is_turns(row.get(chosen))), None):
        roles = [one.get("role", one.get("from")) for one in first]
        how = f"messages={chosen!r}"
        if roles == ["assistant"]:
            how = f"{how} once prompt and chosen are one column: row['prompt'] + row['chosen']"
    return (
        f"{where} holds preferences (chosen and rejected), and finetune learns answers. To learn the chosen ones, pass "
        f"{how}. To learn from both, see preferences.prefer (page 16)."
    )


def _is_turns(value: object) -> bool:
    """Is it a list of turns, each with a role and a text?"""
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    keys = ({"role", "content"}, {"from", "value"})
    return is_list and all(isinstance(one, Mapping) and any(two <= one.keys() for two in keys) for one in value)


def _holds_turns(peek: Sequence[Mapping], column: str) -> bool:
    first = next((row[column] for row in peek if _filled(row.get(column))), None)
    if isinstance(first, str):
        return first.lstrip().startswith("[")
    return first is not None and not isinstance(first, Mapping) and isinstance(first[0], Mapping)


def _filled(value: object) -> bool:
    """Is it something with a length above 0: a text, a list, an array?"""
    return hasattr(value, "__len__") and len(value) > 0


# Conversations.


def _chat(column: str, peek: Sequence[Mapping], columns: Sequence[str], said: str) -> Layout:
    system = "system" if "system" in columns else None
    tools = "tools" if "tools" in columns else None
    roles: dict[str, str] = {}
    beside = [f"the system message from {system!r}"] if system else []
    beside += [f"tools from {tools!r}"] if tools else []

    def convert(row: Mapping, place: str) -> dict:
        if not _filled(row.get(column)):
            raise LeftOut(f"no {column}")
        found = turns_of(row[column], f"{place}, column {column!r}", roles)
        if not has_answer(found):
            raise LeftOut("no turn of the assistant")
        if not learnable(found):
            weight = any(map(is_unweighted, found))
            raise LeftOut("turns of weight 0 alone" if weight else "no turn of the assistant after somebody else's")
        if system and (text := as_text(row.get(system), place, system)) and found[0]["role"] != "system":
            found.insert(0, {"role": "system", "content": text})
        return {"messages": found, "tools": _tools(row.get(tools), place) if tools else None}

    return Layout("conversations", ", ".join([said, *beside]), {"messages": (column,)}, convert, roles)


def _tools(value: object, place: str) -> list | None:
    """The tools that a conversation may call, as chat templates take them."""
    value = unpacked(value)
    if is_nothing(value) or not value:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise LabError(f"{place}, column 'tools': not JSON ({error}). Correct it.") from error
    if not isinstance(value, (list, tuple)):
        raise LabError(f"{place}, column 'tools': expected a list of tools, found {shown(value)}.")
    return passed_on(list(value), f"{place}, column 'tools'") or None


# Pairs.


def _pair(asked: tuple[str, ...], answered: tuple[str, ...], said: str, names: Mapping) -> Layout:
    classes = names.get(answered[0]) if len(answered) == 1 else None

    def convert(row: Mapping, place: str) -> dict:
        texts = [as_text(row.get(one), place, one, plain=True) for one in asked]
        value = row.get(answered[0])
        if classes and isinstance(value, int) and -1 <= value < len(classes):
            value = classes[value] if value >= 0 else None  # -1 is how datasets says that there is no label
        if len(answered) > 1:
            value = {one: row.get(one) for one in answered}
            value = value if any(one not in (None, "") for one in value.values()) else None
        answer = as_text(value, place, answered[0])
        if not texts[0]:
            raise LeftOut(f"no {asked[0]}")
        if not answer:
            raise LeftOut(f"no {answered[0]}")
        return {"prompt": "\n\n".join(text for text in texts if text), "answer": answer}

    if classes:
        said += f" (the names of its {counted(len(classes), 'class', 'classes')})"
    return Layout("answers", said, {"prompt": asked, "answer": answered}, convert)


def as_text(value: object, place: str, column: str, plain: bool = False) -> str:
    """A value as the text that the model reads or writes; "" for an empty one.

    Parameters
    ----------
    value : str; or a number, True or False, a date, or (unless `plain`) a dict or list, which is written as JSON
    place, column : str, for messages

    Raises
    ------
    LabError
        It is something that is not text, or holds half a character.
    """
    if is_nothing(value):
        return ""
    if not isinstance(value, str):
        value = _written(value, plain, f"{place}, column {column!r}")
    if half := half_character(value):
        raise LabError(f"{place}, column {column!r}: the text holds {half}. Correct or delete that row.")
    return "" if is_blank(value) else value


def is_nothing(value: object) -> bool:
    """Is it how a table says that there is no value: None, NaN, pandas' NA or NaT?"""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in NOTHING


def _written(value: object, plain: bool, place: str) -> str:
    """A value that is not a text, as one."""
    item = unpacked(value)
    if isinstance(item, (dict, list, tuple)) and not plain and not _is_turns(item):
        try:
            return json.dumps(item, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise LabError(f"{place}: {shown(value)} cannot be written as JSON ({error}). Correct that row.") from error
    if isinstance(item, (bytes, bytearray, dict, list, tuple, set)) or not _is_scalar(item):
        way_out = "Correct that row, or name another column."
        if _is_turns(item):
            way_out = "Those are turns: put all turns of a row into one column, and pass messages= with its name."
        raise LabError(f"{place}: expected a text, found {shown(value)}. {way_out}")
    return json.dumps(item) if isinstance(item, (bool, float)) else str(item)


def _is_scalar(item: object) -> bool:
    """A number, a truth value, a date or a time: something with one obvious way to write it."""
    plain = isinstance(item, (bool, int, float)) or hasattr(item, "isoformat")
    return plain or type(item).__module__ in ("decimal", "uuid")
