"""Conversations as data: turns in one form, whatever form they came in, and what a reader of rows asks of them."""

import json
from collections.abc import Mapping, Sequence

from ..errors import LabError, shown
from .data_lines import half_character, json_flaw

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "agent": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool", "tool_response": "tool",
}  # fmt: skip
ROLE_KEYS, CONTENT_KEYS = ("role", "from", "speaker"), ("content", "value", "text")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
PASSED_ON = ("tool_calls", "tool_call_id", "name")
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff"  # characters without a width: a text of these alone says nothing


def is_blank(text: str) -> bool:
    """Does a text say nothing: is it empty, or are all its characters blanks or without a width?

    >>> is_blank(" \\n\\u200b"), is_blank("0")
    (True, False)
    """
    return not text.strip() or not any(one not in UNSEEN and not one.isspace() for one in text)


def turns_of(value: object, place: str, roles: dict[str, str] | None = None) -> list[dict]:
    """A conversation in the lab's form.

    Parameters
    ----------
    value : list of turns, each with a role ("role" or "from") and a text ("content" or "value"); or that as JSON text
    place : str, with the column's name, for messages
    roles : dict, takes each role that has another name in the data: {"bot": "assistant"}

    Returns
    -------
    list of {"role": "system", "user", "assistant" or "tool", "content": str}, with "reasoning_content", "tool_calls",
    "tool_call_id" and "name" where the data have them, and "weight": 0 where a turn is not to be learned

    Raises
    ------
    LabError
        It is something else: the place, the turn and the value are named.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise LabError(f"{place}: expected a list of turns, found the text {shown(value)}.") from error
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        raise LabError(f"{place}: expected a list of turns, found {shown(value)}.")
    roles = {} if roles is None else roles
    return [_turn(one, f"{place}, turn {number}", roles) for number, one in enumerate(value, 1)]


def _turn(turn: object, place: str, roles: dict[str, str]) -> dict:
    if not isinstance(turn, Mapping):
        raise LabError(f"{place}: expected {{'role': …, 'content': …}}, found {shown(turn)}. Correct that turn.")
    turn = {key: unpacked(value) for key, value in turn.items()}
    if isinstance(turn.get("function_call"), Mapping):  # how OpenAI wrote a call before there were several
        turn["tool_calls"] = turn.get("tool_calls") or [{"type": "function", "function": turn["function_call"]}]
    role = next((turn[key] for key in ROLE_KEYS if turn.get(key) is not None), None)
    if not isinstance(role, str) or role.lower() not in ROLES:
        known = "system, user, assistant and tool (or human and gpt)"
        raise LabError(f"{place}: the role is {shown(role)}; known are {known}. Correct that turn.")
    found = {"role": ROLES[role.lower()]}
    if role != found["role"]:
        roles[role] = found["role"]
    said = next((turn[key] for key in CONTENT_KEYS if turn.get(key) is not None), None)
    found["content"] = _content(said, place, optional=bool(turn.get("tool_calls")))
    if reasoning := next((turn[key] for key in REASONING_KEYS if turn.get(key)), None):
        found["reasoning_content"] = _content(reasoning, f"{place}, reasoning")
    found |= {key: passed_on(turn[key], f"{place}, {key}") for key in PASSED_ON if turn.get(key)}
    return found | ({"weight": 0} if turn.get("weight") == 0 else {})


def passed_on(value: object, place: str) -> object:
    """What a chat template gets as it is, such as a call of a tool: JSON, and nothing else.

    Raises
    ------
    LabError
        JSON cannot say it.
    """
    try:
        kept = json.loads(json.dumps(value, allow_nan=False, default=_listed))
        flaw = json_flaw(kept)
    except (TypeError, ValueError, RecursionError) as error:
        raise LabError(f"{place}: {shown(value)} cannot be written as JSON ({error}). Correct that turn.") from error
    if flaw:
        raise LabError(f"{place}: {shown(value)} cannot be written as JSON ({flaw}). Correct that turn.")
    return kept


def unpacked(value: object) -> object:
    """A value as plain Python: of numpy's arrays, as pandas reads them from Parquet, the lists."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _listed(value: object) -> object:
    """What `json.dumps` calls for something that it does not know."""
    if (kept := unpacked(value)) is not value:
        return kept
    raise TypeError(f"{type(value).__name__} is not JSON")


def _content(said: object, place: str, optional: bool = False) -> str:
    """A turn's text; a list of parts is joined where all of them are texts."""
    if said is None and optional:
        return ""
    if isinstance(said, (list, tuple)):
        parts = [_part(one) for one in said]
        if not all(isinstance(one, str) for one in parts):
            raise LabError(f"{place}: a part of the content is not text: {shown(said)}. Only text can be trained on.")
        said = "".join(parts)
    if said is None:
        return ""
    if not isinstance(said, str):
        raise LabError(f"{place}: the content is {shown(said)}, not a text. Correct that turn.")
    if half := half_character(said):
        raise LabError(f"{place}: the content holds {half}. Correct that turn.")
    return said


def _part(part: object) -> object:
    """The text of one part of a content; of a picture, the part itself."""
    is_text = isinstance(part, Mapping) and part.get("type") in (None, "text", "input_text", "output_text")
    return part.get("text") if is_text else part


def check_conversation(messages: object, place: str) -> list[dict]:
    """`turns_of`, and there must be an answer to learn from: an assistant's turn with a text or a call of a tool."""
    turns = turns_of(messages, place)
    if not has_answer(turns):
        raise LabError(f"{place}: no turn of the assistant says anything, so there is nothing to learn from.")
    return turns


def has_answer(messages: Sequence[Mapping]) -> bool:
    """Does the assistant say something, or call a tool?"""
    return any(is_answer(one) for one in messages)


def is_answer(turn: Mapping) -> bool:
    """Is it a turn to learn from: one in which the assistant says something, or calls a tool?"""
    return turn["role"] == "assistant" and bool(turn.get("tool_calls") or not is_blank(turn["content"]))


def learnable(messages: Sequence[Mapping]) -> list[int]:
    """The numbers of the turns to learn from: answers to something that somebody else than the system said.

    >>> learnable([{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "?"},
    ...            {"role": "assistant", "content": "Yes."}])
    [2]
    """
    spoken = next((number for number, one in enumerate(messages) if one["role"] != "system"), len(messages))
    answers = (number for number, one in enumerate(messages) if number > spoken and is_answer(one))
    return [number for number in answers if not is_unweighted(messages[number])]


def is_unweighted(turn: Mapping) -> bool:
    """Is it an assistant's turn of weight 0, which is read and not learned, as in OpenAI's files?"""
    return turn["role"] == "assistant" and turn.get("weight") == 0


def _is_text(turn: Mapping) -> bool:
    """Is it an assistant's turn with a text to compare with?"""
    return turn["role"] == "assistant" and not is_blank(turn["content"]) and not is_unweighted(turn)


def has_text(row: Mapping) -> bool:
    """Does a row have an answer that is a text, to compare with? A conversation may have calls of tools alone."""
    return "messages" not in row or any(map(_is_text, row["messages"]))


def is_silent(turn: Mapping) -> bool:
    """Is it a turn in which the assistant says nothing? Later turns are learned after it; it is not learned itself."""
    return turn["role"] == "assistant" and not is_answer(turn)


def with_system(task, messages: Sequence[dict]) -> list[dict]:
    """The conversation with the task's system message first, if it has none itself and the task has one."""
    has = bool(messages) and messages[0]["role"] == "system"
    return list(messages) if has or not task.system else [{"role": "system", "content": task.system}, *messages]


def last_turn(messages: Sequence[dict]) -> tuple[list[dict], str]:
    """What comes before the assistant's last turn that has a text, and that text: what a score asks for.

    Raises
    ------
    LabError
        There is no such turn.
    """
    for number in range(len(messages) - 1, -1, -1):
        if _is_text(messages[number]):
            return list(messages[:number]), messages[number]["content"]
    raise LabError("A conversation has no turn in which the assistant says something: there is nothing to score.")


def rows_text(row: Mapping) -> tuple[str, str]:
    """(prompt, answer) of a row, for a table: of a conversation, what the user said last and what was answered."""
    if "messages" not in row:
        return row["prompt"], row["answer"]
    if not has_text(row):
        return next((one["content"] for one in row["messages"] if one["role"] == "user"), ""), ""
    context, answer = last_turn(row["messages"])
    asked = [one["content"] for one in context if one["role"] == "user"]
    return (asked[-1] if asked else ""), answer
