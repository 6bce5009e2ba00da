"""The conversation explorer: which tokens of a chat are learned, and what a largest length cuts or leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass

import traitlets

from .. import plots
from ..errors import LabError, choose, whole
from ..finetune import IGNORED, Encoded
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Count, Word

QUESTION = "You lower max_length and cut off what is too long. Which tokens go first?"
TURNS = ("all answers", "the last answer", "the first answer", "every token")
LONG = ("leave the chat out", "cut the end off")
SHORTEST = 8  # tokens, the smallest max_length of a recipe


@dataclass(frozen=True)
class Kept:
    """What is left of chats at one setting.

    Attributes
    ----------
    too_long : int, chats with more tokens than max_length
    read : int, tokens that one pass over the chats reads
    learned : int, of them those in the loss
    lost : int, tokens that would be in the loss without a largest length
    endless : int, chats that are read without the end of their last answer: nothing there teaches the model to stop
    """

    too_long: int
    read: int
    learned: int
    lost: int
    endless: int


def answers_of(example: Encoded) -> list[tuple[int, int]]:
    """(start, stop) of each run of tokens in the loss."""
    labels = [IGNORED, *example.labels(), IGNORED]
    learned = [label != IGNORED for label in labels]
    edges = [place for place in range(len(labels) - 1) if learned[place] != learned[place + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def learned_spans(record: dict, turns: str) -> list[tuple[int, int]]:
    """(start, stop) of what is in the loss with a choice of turns, one of `TURNS`."""
    answers = record["answers"]
    chosen = {"all answers": answers, "the last answer": answers[-1:], "the first answer": answers[:1]}
    return chosen.get(turns, [(0, len(record["tokens"]))])


def kept(records: Sequence[dict], turns: str, long: str, max_length: int) -> Kept:
    """What is left of chats.

    Parameters
    ----------
    records : of {"tokens": list of str, "answers": list of (start, stop)}
    turns : one of `TURNS`
    long : one of `LONG`
    max_length : int >= 1, tokens
    """
    read = learned = whole_learned = endless = 0
    too_long = sum(len(record["tokens"]) > max_length for record in records)
    for record in records:
        length, spans = len(record["tokens"]), learned_spans(record, turns)
        whole_learned += sum(stop - start for start, stop in spans)
        reach = length if length <= max_length else max_length if long == LONG[1] else 0
        read += reach
        learned += sum(max(min(stop, reach) - start, 0) for start, stop in spans)
        endless += 0 < reach < length
    return Kept(too_long, read, learned, whole_learned - learned, endless)


class ConversationExplorer(Explorer):
    """A chat token by token: read, learned, or lost; sliders for the chat and for max_length, choices beside them.

    Parameters
    ----------
    tokenizer : the model's
    examples : list of Encoded, as `encode` makes them of chats; their labels say where the answers are
    chat : int, 1 to the number of examples
    turns : one of `TURNS`, which tokens count
    long : one of `LONG`, what happens to a chat of more than max_length tokens; the lab's recipes leave it out
    max_length : int, from 8 to the longest chat; default the longest

    Attributes
    ----------
    chat, turns, long, max_length : at every moment

    Raises
    ------
    LabError
        There is no example, one has no answer, a choice is unknown, or a number is out of range.
    """

    _esm = script("conversation_explorer")
    _css = STYLE + (FOLDER / "conversation.css").read_text(encoding="utf-8")
    _moved = ("chat", "turns", "long", "max_length")
    records = traitlets.List().tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    chat, max_length = Count(1).tag(sync=True), Count(SHORTEST).tag(sync=True)
    turns, long = Word(TURNS[0], allowed=TURNS).tag(sync=True), Word(LONG[0], allowed=LONG).tag(sync=True)

    def __init__(
        self, tokenizer, examples: Sequence[Encoded], chat: int = 1, turns: str = TURNS[0], long: str = LONG[0],
        max_length: int | None = None, question: str = QUESTION,
        choices=("the greeting", "a little of every turn", "the last answer and its end"),
    ):  # fmt: skip
        records = [_record(tokenizer, example) for example in examples]
        if not records:
            raise LabError("There are no chats to show: give at least one encoded example.")
        for number, record in enumerate(records, 1):
            if not record["answers"]:
                raise LabError(f"Chat {number} has no answer to learn. Leave it out.")
        lengths = [len(record["tokens"]) for record in records]
        longest = max(*lengths, SHORTEST)
        options = {"turns": list(TURNS), "long": list(LONG), "shortest": SHORTEST, "longest": longest}
        super().__init__(
            records=records, options=options, chat=chat, turns=turns, long=long,
            max_length=longest if max_length is None else max_length, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("chat", "max_length")
    def _in_range(self, proposal):
        name = proposal["trait"].name
        low, high = (1, len(self.records)) if name == "chat" else (SHORTEST, self.options["longest"])
        return whole(name, proposal["value"], low, high)

    @traitlets.validate("turns", "long")
    def _known(self, proposal):
        name = proposal["trait"].name
        return choose(name, proposal["value"], {"turns": TURNS, "long": LONG}[name])

    def kept(self) -> Kept:
        """What is left of all chats now."""
        return kept(self.records, self.turns, self.long, self.max_length)

    def summary(self) -> str:
        record, now = self.records[self.chat - 1], self.kept()
        alone = kept([record], self.turns, self.long, self.max_length)
        count = len(self.records)
        fate = "lose their last end of turn" if now.endless else "are left out"
        long = f"{now.too_long:,} of {count:,} chats are too long and {fate}" if now.too_long else "every chat fits"
        size, limit = len(record["tokens"]), self.max_length
        return (
            f"Chat {self.chat}: {size} tokens, {alone.learned} learned ({self.turns}). With max_length {limit}, {long}"
            f". One pass reads {now.read:,} tokens and learns {now.learned:,}; {now.lost:,} are lost."
        )

    def figure(self):
        lengths = [len(record["tokens"]) for record in self.records]
        reach = [min(length, self.max_length) if self.long == LONG[1] or length <= self.max_length else 0
                 for length in lengths]  # fmt: skip
        return plots.lengths(lengths, reach, self.max_length, self.chat - 1)


def _record(tokenizer, example: Encoded) -> dict:
    """What the browser needs of an example."""
    tokens = [tokenizer.decode([token]) for token in example.input_ids]
    return {"tokens": tokens, "answers": answers_of(example)}
