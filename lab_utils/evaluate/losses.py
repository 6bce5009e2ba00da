"""What the right answers to examples cost a model, in nats: nothing is generated."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..decoding import as_pairs, batches, check_fit
from ..errors import LabError, whole
from ..finetune import answer_logits, collate, encode, encode_row
from ..finetune.conversation import padding_token
from ..tasks import Task
from ..tasks.data_lines import check_rows
from ..tasks.registry import find_task
from .held_out import held_out


@dataclass(frozen=True)
class AnswerLosses:
    """What `answer_losses` found.

    Attributes
    ----------
    loss : float, mean cross entropy of all answers' tokens, end of turn included, in nats
    exact : float in [0, 1], share of answers of which every token is the model's first choice
    losses : tuple of float, mean cross entropy of each answer, in the order of the examples
    right : tuple of bool, is every token of that answer the first choice
    tokens : tuple of int, tokens of each answer
    """

    loss: float
    exact: float
    losses: tuple[float, ...] = field(repr=False)
    right: tuple[bool, ...] = field(repr=False)
    tokens: tuple[int, ...] = field(default=(), repr=False)


def answer_losses(
    model, tokenizer, examples, task: str | Task = "bookings", *, shots=(), batch_size: int = 20
) -> AnswerLosses:
    """What the right answers cost the model: one forward pass, nothing is generated.

    Greedy decoding writes the right answer exactly when each of its tokens is the first choice after those before it.
    So `exact` is `score`'s exact match letter by letter, for a tenth of the time; `score` also takes an answer that
    means the same JSON in other letters.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them
    examples : rows of {"prompt": str, "answer": str}, not empty
    task : a name in `TASKS`, or a Task
    shots : rows like `examples`, put before every prompt as turns of the conversation
    batch_size : int, examples read together

    Raises
    ------
    LabError
        There are no examples, one is not two texts or does not fit the model, the task is unknown, or an answer's loss
        is not finite: the example is named.
    """
    import torch

    task = find_task(task)
    batch_size = whole("batch_size", batch_size)
    if examples is task:
        examples = held_out(task)
    examples = list(examples) if isinstance(examples, Iterable) else examples
    if isinstance(examples, list) and any(isinstance(row, Mapping) and "messages" in row for row in examples):
        rows = [encode_row(tokenizer, task, row) for row in examples]
        examples = as_pairs(examples)
    else:
        examples = check_rows(examples, "example", blank=True)
        rows = [encode(tokenizer, task, row["prompt"], row["answer"], shots) for row in examples]
    if not rows:
        raise LabError("There are no examples to read: the split is empty. Choose another split or a larger slice.")
    check_fit(model, [row.input_ids for row in rows])
    device = next(model.parameters()).device
    total, tokens = [0.0] * len(rows), [0] * len(rows)
    right = [True] * len(rows)
    was_training = model.training
    model.eval()
    try:
        for indices in batches(model, [len(row.input_ids) for row in rows], batch_size):
            batch = collate([rows[index] for index in indices], padding_token(tokenizer))
            with torch.no_grad():
                logits, targets, owners = answer_logits(model, **{k: v.to(device) for k, v in batch.items()})
            costs = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none").tolist()
            hits = (logits.argmax(-1) == targets).tolist()
            for cost, hit, owner in zip(costs, hits, owners.tolist(), strict=True):
                index = indices[owner]
                total[index] += cost
                tokens[index] += 1
                right[index] &= hit
    finally:
        model.train(was_training)
    for number, (cost, row) in enumerate(zip(total, examples, strict=True), 1):
        if not math.isfinite(cost):
            raise LabError(
                f"example {number} ({row['prompt'][:60]!r}): the loss of its answer is {cost}. A weight or an adapter "
                "holds NaN or infinity, or float16 overflows. Load the base and the adapter again."
            )
    return AnswerLosses(
        loss=sum(total) / sum(tokens),
        exact=sum(right) / len(rows),
        losses=tuple(cost / count for cost, count in zip(total, tokens, strict=True)),
        right=tuple(right),
        tokens=tuple(tokens),
    )
