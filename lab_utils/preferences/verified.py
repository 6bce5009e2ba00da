"""The model's own answers to messages, told apart by the task's verifier: pairs for DPO, right ones to imitate."""

from collections.abc import Iterable, Mapping

from ..errors import LabError, shown, whole
from ..finetune.conversation import decode_answer
from ..finetune.supervision import prompt_ids
from ..tasks import Task
from ..tasks.data_lines import check_row
from ..tasks.registry import find_task
from .sampling import sample_groups


def own_answers(
    model, tokenizer, rows: Iterable[Mapping], group_size: int = 8, temperature: float = 1.0, task="bookings",
    prompts_at_once: int = 4,
) -> list[dict]:  # fmt: skip
    """Sample several answers of a model to each message.

    Parameters
    ----------
    model, tokenizer : of transformers, with or without adapters
    rows : rows of {"prompt", "answer"}; the answers are handed on, and the model does not see them
    group_size : int >= 1, answers per message
    temperature : float > 0
    task : a name in `TASKS`, or a Task
    prompts_at_once : int >= 1, messages that are answered together; more of them only take more memory

    Returns
    -------
    list of {"prompt", "answer", "outputs"}, outputs a list of str. Which ones are drawn depends on torch's random
    state.

    Raises
    ------
    LabError
        A row has no prompt or no answer, or the model's logits are not finite.
    """
    task, rows, found = find_task(task), list(rows), []
    for number, row in enumerate(rows, 1):
        check_row(row, f"example {number}")
    size, at_once = whole("group_size", group_size), whole("prompts_at_once", prompts_at_once)
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        prompts = [prompt_ids(tokenizer, task, row["prompt"]) for row in some]
        drawn = sample_groups(model, tokenizer, prompts, size, temperature, task.max_new_tokens)
        texts = [decode_answer(tokenizer, tokens) for tokens in drawn]
        for place, row in enumerate(some):
            outputs = texts[place * size : (place + 1) * size]
            found.append({"prompt": row["prompt"], "answer": row["answer"], "outputs": outputs})
    return found


def own_pairs(sampled: Iterable[Mapping], most: int = 3, task="bookings") -> list[dict]:
    """Of each message's own answers a right one and a wrong one: pairs that show the model its own mistakes.

    Parameters
    ----------
    sampled : rows of {"prompt", "answer", "outputs"}, as `own_answers` returns them
    most : int >= 1, pairs per message; each has another wrong answer, and all have the first right one
    task : a name in `TASKS`, or a Task, whose `is_right` judges

    Returns
    -------
    list of {"prompt", "chosen", "rejected", "mistake"}, all str; a message whose answers are all right, or all wrong,
    gives none. The mistake is the names of the fields that are wrong, or "form" where the answer has none.

    Raises
    ------
    LabError
        A row is not of this kind.

    >>> own_pairs([{"prompt": "Two, Joe", "answer": '{"qty":2}', "outputs": ['{"qty":2}', '{"qty":3}', '{"qty":3}']}])
    [{'prompt': 'Two, Joe', 'chosen': '{"qty":2}', 'rejected': '{"qty":3}', 'mistake': 'qty'}]
    """
    task, most, pairs = find_task(task), whole("most", most), []
    for row in _checked(sampled):
        right, wrong = _judged(row, task)
        pairs += [
            {"prompt": row["prompt"], "chosen": right[0], "rejected": one, "mistake": mistake_in(one, row, task)}
            for one in wrong[:most] if right
        ]  # fmt: skip
    return pairs


def own_right(sampled: Iterable[Mapping], task="bookings") -> list[dict]:
    """The right ones among the model's own answers, each once: what rejection sampling fine-tunes on.

    Parameters
    ----------
    sampled, task : as in `own_pairs`

    Returns
    -------
    list of {"prompt", "answer"}; a message without a right answer gives none

    >>> own_right([{"prompt": "Two, Joe", "answer": '{"qty":2}', "outputs": ['{"qty":3}', '{"qty": 2}', '{"qty": 2}']}])
    [{'prompt': 'Two, Joe', 'answer': '{"qty": 2}'}]
    """
    task = find_task(task)
    return [{"prompt": row["prompt"], "answer": one} for row in _checked(sampled) for one in _judged(row, task)[0]]


def mistake_in(output: str, row: Mapping, task: Task) -> str:
    """Which fields of a wrong answer are wrong, as text; "form" for one that cannot be read or has all fields right."""
    if not task.is_valid(output):
        return "form"
    asked, right = task.parse(row["answer"]) or {}, task.right_fields(output, row["answer"])
    return ", ".join(name for name in task.fields if name in asked and not right[name]) or "form"


def _judged(row: Mapping, task: Task) -> tuple[list[str], list[str]]:
    """Right and wrong answers, each text once, in the order drawn; empty ones are left out."""
    texts = [one for one in dict.fromkeys(row["outputs"]) if one.strip()]
    right = [one for one in texts if task.is_right(one, row["answer"])]
    return right, [one for one in texts if one not in right]


def _checked(sampled: Iterable[Mapping]) -> list[Mapping]:
    """The rows, if each is one of `own_answers`."""
    rows = list(sampled)
    for number, row in enumerate(rows, 1):
        outputs = row.get("outputs") if isinstance(row, Mapping) else None
        if not isinstance(outputs, list) or not all(isinstance(one, str) for one in outputs):
            raise LabError(
                f"row {number}: {shown(row)} is not a row of own_answers: it needs prompt, answer, and outputs, a list "
                "of texts."
            )
        check_row(row, f"row {number}")
    return rows
