"""From text to tokens and labels: what the model reads and what it is trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..tasks import Task, with_system
from ..tasks.conversations import check_conversation, turns_of
from ..tasks.data_lines import check_row, check_rows
from .conversation import answer_tokens, end_of_turn, prompt_tokens, render
from .examples import Examples
from .turns import encode_conversation

IGNORED = -100  # cross entropy's ignore_index


@dataclass(frozen=True)
class Encoded:
    """One example as tokens.

    Attributes
    ----------
    input_ids : list of int, prompt + answer + end of turn; of a conversation, up to the end of its last learned turn
    prompt_length : int, how many of them come before the first answer
    spans : tuple of (start, stop), the learned turns of a conversation, each with its end of turn; empty where the only
        answer goes from `prompt_length` to the end
    """

    input_ids: list[int]
    prompt_length: int
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def learned(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each answer, its end of turn included."""
        return self.spans or ((self.prompt_length, len(self.input_ids)),)

    def labels(self, supervise_end: bool = True) -> list[int]:
        """The token to learn at each position, `IGNORED` on all that is only read.

        Masked by construction: the prompt was encoded on its own, so its length is known. Nothing is searched.
        With `supervise_end=False` the end of turn is ignored too: the classic mistake, kept for the label microscope.
        """
        labels = [IGNORED] * len(self.input_ids)
        for start, stop in self.learned:
            stop = stop if supervise_end else stop - 1
            labels[start:stop] = self.input_ids[start:stop]
        return labels

    def supervised(self, supervise_end: bool = True) -> int:
        """How many tokens have a label."""
        return sum(stop - start - (not supervise_end) for start, stop in self.learned)


def prompt_text(tokenizer, task: Task, prompt: str, shots: Sequence[dict] = ()) -> str:
    """The prompt as the chat template writes it, up to where the answer begins.

    `shots` are examples, {"prompt": str, "answer": str}, that come before it as turns of the same conversation.

    Raises
    ------
    LabError
        One of the texts is not a str that can be encoded, or the template refuses the conversation.
    """
    return render(tokenizer, _messages(task, prompt, shots))


def prompt_ids(
    tokenizer, task: Task, prompt: str | Sequence[dict] | Mapping, shots: Sequence[dict] = ()
) -> list[int]:
    """The tokens of `prompt_text`; letters of a control token in the prompt or the shots are ordinary text.

    A prompt may also be a conversation so far, a list of messages: the task's system message is put before it. Or it is
    {"messages": that list, "tools": descriptions of the functions that may be called}.

    Raises
    ------
    LabError
        As `prompt_text`; or this tokenizer cannot read a control token's letters as text.
    """
    tools = None
    if isinstance(prompt, Mapping) and "messages" in prompt:
        prompt, tools = prompt["messages"], prompt.get("tools")
    return prompt_tokens(tokenizer, _messages(task, prompt, shots), tools)


def _messages(task: Task, prompt: str | Sequence[dict], shots: Sequence[dict]) -> list[dict]:
    """The conversation that ends with the prompt, shots after the system message; an empty system message is none."""
    asked = turns_of(prompt, "a prompt") if isinstance(prompt, (list, tuple)) else [{"role": "user", "content": prompt}]
    asked = with_system(task, asked)
    head = asked[:1] if asked[0]["role"] == "system" else []
    return [*head, *(turn for shot in _shots(shots) for turn in shot), *asked[len(head) :]]


def _shots(shots: Sequence[dict]) -> list[list[dict]]:
    """The turns of each shot, a pair or a conversation without its system message."""
    if not isinstance(shots, Iterable):
        check_rows(shots, "shot")  # refuses them
    found = []
    for number, shot in enumerate(shots, 1):
        if isinstance(shot, Mapping) and "messages" in shot:
            found.append([one for one in check_conversation(shot["messages"], f"shot {number}")
                          if one["role"] != "system"])  # fmt: skip
            continue
        check_row(shot, f"shot {number}", blank=True)
        turns = (("user", shot["prompt"]), ("assistant", shot["answer"]))
        found.append([{"role": role, "content": text} for role, text in turns])
    return found


def encode(tokenizer, task: Task, prompt: str, answer: str, shots: Sequence[dict] = ()) -> Encoded:
    """Encode one example, prompt and answer apart, and close it with the chat template's end of turn.

    Raises
    ------
    LabError
        As `prompt_ids`, also for the answer; or the tokenizer has no token that ends a turn.
    """
    before = prompt_ids(tokenizer, task, prompt, shots)
    return Encoded([*before, *answer_tokens(tokenizer, answer), end_of_turn(tokenizer)], len(before))


def encode_row(tokenizer, task: Task, row: Mapping, turns: str = "all") -> Encoded:
    """Encode a row of a data set: {"prompt", "answer"}, or a conversation, {"messages"}.

    Parameters
    ----------
    row : dict; a conversation may have "tools", descriptions of functions
    turns : "all" or "last", which turns of a conversation's assistant are learned

    Raises
    ------
    LabError
        As `encode`, or `turns.encode_conversation`.
    """
    if "messages" not in row:
        return encode(tokenizer, task, row["prompt"], row["answer"])
    ids, spans = encode_conversation(tokenizer, task, row["messages"], turns, row.get("tools"))
    return Encoded(ids, spans[0][0], tuple(spans))


def encode_split(tokenizer, task: Task, rows, max_length: int, turns: str = "all") -> list[Encoded]:
    """Encode a split of a task; examples longer than `max_length` tokens are left out, and that is said.

    Parameters
    ----------
    rows : iterable of {"prompt": str, "answer": str}, or of conversations, {"messages": list}
    max_length : int, tokens
    turns : "all" or "last", which turns of a conversation's assistant are learned

    Raises
    ------
    LabError
        No example is short enough, or a row is not two texts to learn from: its number and what is wrong are named.
    """
    return list(Examples(lambda row: encode_row(tokenizer, task, row, turns), _checked(rows), max_length, keep=True))


def _checked(rows) -> list[Mapping]:
    """The rows as a list; those that are not conversations are checked."""
    try:
        rows = list(rows)
    except TypeError:
        return check_rows(rows, "example")
    for number, row in enumerate(rows, 1):
        if not (isinstance(row, Mapping) and "messages" in row):
            check_row(row, f"example {number}")
    return rows
