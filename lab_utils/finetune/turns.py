"""Conversations of several turns as tokens and labels: which turns are learned, cut from what the template writes.

    full      <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n...
    asked     <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n
    learned                                                          Hello!<|im_end|>

Nothing is searched for in the tokens. The template writes the whole conversation, and for each turn of the assistant
the conversation before it, up to where an answer begins: the turn is what the whole one goes on with. So a model learns
a turn after exactly those tokens after which it will be asked for one.
"""

from collections.abc import Mapping, Sequence

from ..errors import LabError, choose
from ..tasks import Task, with_system
from ..tasks.conversations import check_conversation, learnable
from .conversation import chat_of, end_of_turn, write

TURNS = {"all": "every turn of the assistant", "last": "its last turn alone"}


def encode_conversation(
    tokenizer, task: Task, messages: Sequence[Mapping], turns: str = "all", tools: Sequence[dict] | None = None
) -> tuple[list[int], list[tuple[int, int]]]:
    """A conversation as tokens, up to the end of the last turn that is learned.

    Parameters
    ----------
    tokenizer : of transformers; without a chat template, turns are set apart by blank lines
    task : Task, whose system message comes first where the conversation has none
    messages : rows of {"role", "content"}; "reasoning_content", "tool_calls" and what else the template knows are
        passed on to it. What the template writes of them in a turn of the assistant is learned too.
    turns : "all" or "last", which turns of the assistant are learned. One with nothing before it is only read.
    tools : list of dict, JSON descriptions of functions, for templates that know tools

    Returns
    -------
    (input_ids, spans) : list of int, and for each turn that is learned (start, end), its end of turn included

    Raises
    ------
    LabError
        The messages are none; no turn can be learned; the template refuses the conversation, leaves out a call of a
        tool, or writes a turn in another way once later ones follow.
    """
    choose("turns", turns, TURNS)
    messages = with_system(task, check_conversation(messages, "a conversation"))
    _refuse_commands(tokenizer, messages)
    answers = learnable(messages)
    if not answers:
        raise LabError(
            "No turn of the assistant comes after a user's turn, so nothing can be learned from this conversation. "
            "Leave it out, or put the question first."
        )
    wanted = answers if turns == "all" else answers[-1:]

    def pieces(contents: Sequence[str]) -> list[str]:
        return _pieces(tokenizer, _with_contents(messages, contents), wanted, tools)

    ids, spans = [], []
    found = chat_of(tokenizer).control.piece_ids(tokenizer, _contents(messages), pieces)
    for number, piece in enumerate(found):
        start = len(ids)
        ids += piece
        if number % 2:
            if ids[-1] != (end := end_of_turn(tokenizer)):
                ids.append(end)  # the template puts no token after an answer
            spans.append((start, len(ids)))
    return ids, spans


def reads_tools(tokenizer, task: Task, messages: Sequence[Mapping], tools: Sequence[dict]) -> bool:
    """Does the chat template write the tools that a conversation may call?"""
    messages = with_system(task, messages)
    return write(tokenizer, messages, tools) != write(tokenizer, messages)


def _pieces(tokenizer, messages: list[dict], wanted: list[int], tools) -> list[str]:
    """The conversation's text, cut before and after each turn that is learned: read, learned, read, learned ..."""
    whole, place, pieces = write(tokenizer, messages, tools, asking=False), 0, []
    stop = _text_of(tokenizer, end_of_turn(tokenizer))
    for number in wanted:
        start = _start(tokenizer, whole, messages[:number], tools)
        end = _end(tokenizer, whole, messages[: number + 1], tools, start, stop)
        _refuse_unwritten(messages[number], whole[start:end])
        pieces += [whole[place:start], whole[start:end]]
        place = end
    return pieces


def _start(tokenizer, whole: str, before: list[dict], tools) -> int:
    """Where the turn after `before` begins in the whole text."""
    asked = write(tokenizer, before, tools)
    if whole.startswith(asked):
        return len(asked)
    told = write(tokenizer, before, tools, asking=False)
    opening = asked.removeprefix(told)  # a template may open with what it leaves out later, such as "<think>"
    if whole.startswith(told) and asked.startswith(told):
        rest = whole[len(told) :]
        alike = next((n for n, (a, b) in enumerate(zip(opening, rest, strict=False)) if a != b), len(opening))
        if alike:
            return len(told) + alike
    raise LabError(
        "This tokenizer's chat template writes earlier turns in another way once later ones follow (Qwen3 drops their "
        "reasoning, for example), so they cannot all be learned in one text. Take turns='last', or leave the "
        "reasoning out of the data."
    )


def _end(tokenizer, whole: str, upto: list[dict], tools, start: int, stop: str) -> int:
    """Where the last turn of `upto` ends in the whole text, its end of turn included."""
    told, said = write(tokenizer, upto, tools, asking=False), upto[-1]["content"].strip()
    if whole.startswith(told) and stop and (place := told.rfind(stop, start)) >= 0:
        return place + len(stop)
    if stop and (place := whole.find(stop, start)) >= 0:
        return place + len(stop)
    if said and (place := whole.find(said, start)) >= 0:  # nothing ends a turn in this template
        return place + len(said)
    return len(told.rstrip()) if whole.startswith(told) else len(whole.rstrip())


def _text_of(tokenizer, token: int) -> str:
    """A control token's letters."""
    return tokenizer.convert_ids_to_tokens(token) or ""


def _contents(messages: Sequence[dict]) -> list[str]:
    """The texts that people and models wrote: contents, then reasoning where there is some."""
    return [one[key] for one in messages for key in ("content", "reasoning_content") if key in one]


def _with_contents(messages: Sequence[dict], contents: Sequence[str]) -> list[dict]:
    """The same messages with other texts, in the order of `_contents`."""
    texts = iter(contents)
    return [
        {**one, **{key: next(texts) for key in ("content", "reasoning_content") if key in one}} for one in messages
    ]


def _refuse_unwritten(turn: Mapping, piece: str) -> None:
    """Raise a LabError for a call of a tool that the template leaves out: an empty answer would be learned for it."""
    calls = turn.get("tool_calls") if isinstance(turn.get("tool_calls"), list) else []
    named = [one.get("function", one) for one in calls if isinstance(one, Mapping)]
    names = [str(one["name"]) for one in named if isinstance(one, Mapping) and one.get("name")]
    if lost := [name for name in names if name not in piece]:
        raise LabError(
            f"This tokenizer's chat template does not write calls of tools: that of {lost[0]!r} would not be learned. "
            "Take a model whose template writes them (Qwen3's does), write the call as the turn's content, or leave "
            "those conversations out."
        )


def _refuse_commands(tokenizer, messages: Sequence[dict]) -> None:
    """Raise a LabError for a control token's letters in a call of a tool, where they cannot be told from a command."""
    control = chat_of(tokenizer).control
    for one in messages:
        if found := control.pattern.search(str(one.get("tool_calls", ""))):
            raise LabError(
                f"A call of a tool holds the letters of a control token ({found[0]}). Change or leave out that turn."
            )
