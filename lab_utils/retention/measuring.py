"""What a model still knows: one set of fixed texts for the skill, and others for what the training never asked for."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import LabError, whole
from ..evaluate import answer_losses, token_losses
from ..files import read_text
from ..folders import DATA
from ..tasks import Task, load_task

GENERAL = Task(
    system="Answer the question.", to_example=dict, columns={"prompt": str, "answer": str, "use": str}, splits=()
)
SHORTEST = 40  # words of a paragraph that counts as a passage
KINDS = ("skill", "prose", "questions", "style")


@dataclass(frozen=True)
class Reading:
    """What fixed texts cost a model.

    Attributes
    ----------
    losses : tuple of float, mean loss of each text in nats per token
    tokens : tuple of int, tokens of each text that were predicted
    right : tuple of bool, is every token the model's first choice; empty for running text
    """

    losses: tuple[float, ...] = field(repr=False)
    tokens: tuple[int, ...] = field(repr=False)
    right: tuple[bool, ...] = field(default=(), repr=False)

    @property
    def loss(self) -> float:
        """Mean over all tokens, in nats."""
        return sum(a * b for a, b in zip(self.losses, self.tokens, strict=True)) / sum(self.tokens)

    @property
    def perplexity(self) -> float:
        """exp of `loss`: over all tokens together, not the mean of the texts' perplexities."""
        return math.exp(self.loss)

    @property
    def exact(self) -> float:
        """Share of answers of which every token is the first choice; NaN for running text."""
        return sum(self.right) / len(self.right) if self.right else math.nan


def passages(use: str = "measure") -> list[str]:
    """Paragraphs of data/prose of 40 words or more: every second one to measure, the others to replay."""
    found = [one for one in read_text(DATA / "prose" / "prose.txt").split("\n\n") if len(one.split()) >= SHORTEST]
    return found[_half(use) :: 2]


def questions(use: str = "measure") -> list[dict]:
    """General questions with their answers, {"prompt": str, "answer": str}: 40 to measure, 20 others to replay."""
    _half(use)
    rows = [json.loads(line) for line in read_text(DATA / "forgetting" / "general.jsonl").splitlines()]
    return [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows if row["use"] == use]


def _half(use: str) -> int:
    if use not in ("measure", "replay"):
        raise LabError(f"use={use!r} is out of range: 'measure' or 'replay'.")
    return int(use == "replay")


def fixed_texts(messages: int = 40, others: int = 40) -> dict[str, Sequence]:
    """The texts that every measurement reads, by kind.

    Parameters
    ----------
    messages : int >= 2, of the test split of bookings: the skill that was trained
    others : int >= 2, at most, of each of the other kinds: prose, questions, and the test split of style

    Returns
    -------
    dict of "skill" and "style" (rows of prompt and answer), "prose" (texts) and "questions" (rows)
    """
    messages, others = whole("messages", messages, 2), whole("others", others, 2)
    return {
        "skill": list(load_task("bookings")["test"])[:messages],
        "prose": passages()[:others],
        "questions": questions()[:others],
        "style": list(load_task("style")["test"])[:others],
    }


def read_all(model, tokenizer, texts: Mapping[str, Sequence]) -> dict[str, Reading]:
    """What each kind of text costs a model: forward passes only, nothing is generated and nothing changes.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them, with or without adapters
    texts : as `fixed_texts` returns them, or some of its kinds

    Raises
    ------
    LabError
        A kind is unknown or has no text, or a loss is not finite.
    """
    found = {}
    for kind, some in texts.items():
        if kind not in KINDS or not some:
            raise LabError(f"{kind!r} with {len(some)} texts cannot be read: one of {', '.join(KINDS)}, not empty.")
        if kind == "prose":
            costs = [token_losses(model, tokenizer, text) for text in some]
            found[kind] = Reading(tuple(float(one.mean()) for one in costs), tuple(len(one) for one in costs))
        else:
            task = {"skill": "bookings", "questions": GENERAL, "style": "style"}[kind]
            read = answer_losses(model, tokenizer, some, task)
            found[kind] = Reading(read.losses, read.tokens, read.right)
    return found


def forgetting(before: Reading, after: Reading) -> tuple[float, ...]:
    """By how much each text's loss rose, in nats per token; below zero where it fell.

    Raises
    ------
    LabError
        The two did not read the same texts.
    """
    if before.tokens != after.tokens:
        raise LabError("Before and after did not read the same texts: compare readings of one set of fixed texts.")
    return tuple(b - a for a, b in zip(before.losses, after.losses, strict=True))
