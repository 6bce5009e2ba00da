"""How good is it: exact match, fields, valid answers with a confidence interval, and perplexity."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .decoding import as_pairs, check_fit, generate, texts
from .errors import LabError, listed, shown, whole
from .finetune import answer_logits, collate, encode, encode_row
from .finetune.control_tokens import ControlTokens
from .finetune.conversation import padding_token
from .scores import measure
from .tasks import TASKS, OwnTask, Task, load_task
from .tasks.data_lines import check_rows, check_text
from .tasks.registry import find_task


@dataclass(frozen=True)
class Scores:
    """What `score` found.

    Attributes
    ----------
    exact : float in [0, 1], share of answers that are right as a whole
    exact_interval : (low, high), 95 % bootstrap interval of `exact`
    valid : float in [0, 1], share of well-formed answers: a JSON object, or a text in the task's style
    valid_interval : (low, high), 95 % bootstrap interval of `valid`
    fields : dict field -> share of right values (empty for plain-text tasks)
    rows : list of {"prompt", "answer", "output", "right", "valid"}, in the order of the examples
    measured : scores.Measured, what suits the task's answers: label accuracy, fields, token F1, your own function
    """

    exact: float
    exact_interval: tuple[float, float]
    valid: float
    valid_interval: tuple[float, float]
    fields: dict[str, float]
    rows: list[dict] = field(repr=False)
    measured: object = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.measured is not None:
            return str(self.measured)
        parts = [f"exact match {self.exact:.0%} ({self.exact_interval[0]:.0%} to {self.exact_interval[1]:.0%})"]
        parts.append(f"well-formed {self.valid:.0%}")
        parts += [f"{name} {share:.0%}" for name, share in self.fields.items()]
        return f"{len(self.rows)} examples: " + ", ".join(parts)


def bootstrap_interval(hits: Sequence[bool], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a share.

    Parameters
    ----------
    hits : sequence of bool, one per example, not empty; or of numbers in [0, 1]
    resamples : int, 1 to 1,000,000
    seed : int, 0 or more

    Returns
    -------
    (low, high), both in [0, 1]

    Raises
    ------
    LabError
        `hits` is empty or holds something else, or a setting is out of range.

    Source: Efron 1979, Bootstrap methods. https://doi.org/10.1214/aos/1176344552
    """
    import numpy as np

    resamples, seed = whole("resamples", resamples, 1, 1_000_000), whole("seed", seed, 0)
    try:
        values = np.asarray(hits, dtype=float)
    except (TypeError, ValueError) as error:
        raise LabError(f"hits={shown(hits)} is out of range: True or False for each example.") from error
    if values.size == 0:
        raise LabError("There are no examples: the share of none has no interval.")
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():  # NaN is neither
        raise LabError(f"hits={shown(hits)} is out of range: True or False for each example.")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def score(
    model, tokenizer=None, examples=None, task: str | Task | None = None, batch_size: int = 32, *, shots=()
) -> Scores:
    """Let the model answer `examples` greedily and compare with the answers.

        score(run)                  the test split of the task that the run was trained on
        score(run, own)             the test split of a task of your own
        score(run, rows)            rows of the run's task
        score(model, tokenizer, rows, "bookings")

    Parameters
    ----------
    model : a Run of `finetune`; or a model, as `load_base` or `finetune` return it, with its `tokenizer`
    tokenizer : the model's; after a Run, the examples
    examples : a split of `load_task`, any list of {"prompt": str, "answer": str} or of {"messages": list}, or a task of
        your own, whose test split is meant. Of a conversation the assistant's last turn is asked for.
    task : a name in `TASKS`, or a Task: what the answers are compared as, and the system message. Default: the run's,
        or the examples' if they are a task; else "bookings"
    batch_size : int, examples decoded together
    shots : rows like `examples`, put before every prompt as turns of the conversation

    Returns
    -------
    Scores

    Raises
    ------
    LabError
        There are no examples, the task is unknown, the answers are not the task's, or as `generate`.
    """
    if hasattr(model, "recipe") and hasattr(model, "output_dir"):
        run, examples = model, tokenizer if examples is None else examples
        model, tokenizer, task = run.model, run.tokenizer, task or run.recipe.task
        examples = find_task(task) if examples is None else examples
    if isinstance(examples, OwnTask):
        task = task or examples
    task = find_task(task or "bookings")
    examples = _check_references(task, _held_out(examples))
    prompts = [row["context"] if "context" in row else row["prompt"] for row in examples]
    outputs = generate(model, tokenizer, prompts, task, batch_size, shots=shots)
    return grade(task, examples, outputs)


def _held_out(examples):
    """The examples themselves, or the split of a task that was not trained on: test, else validation."""
    if not isinstance(examples, Task):
        return examples
    data = load_task(examples if isinstance(examples, OwnTask) else _name_of(examples))
    for split in ("test", "validation"):
        if split in data:
            return data[split]
    raise LabError(
        "This task has no split that was not trained on: give examples of a test split. Scores on training examples "
        "tell nothing."
    )


def _name_of(task: Task) -> str:
    """The name of one of the pages' tasks."""
    return next((name for name, one in TASKS.items() if one is task), "")


def grade(task: Task, examples: list[dict], outputs: list[str]) -> Scores:
    """The scores of given outputs.

    A field is right if output and answer both have it, with the same type and value: where both leave it out, or where
    the output is not JSON, it is wrong.

    Parameters
    ----------
    task : Task
    examples : rows of {"prompt": str, "answer": str}, not empty
    outputs : list of str, one per example, in the same order

    Raises
    ------
    LabError
        There are no examples, the numbers differ, an output is not a text, or an answer is empty or not the task's.
    """
    task = find_task(task)
    examples, outputs = _check_references(task, examples), texts("outputs", outputs)
    if len(outputs) != len(examples):
        raise LabError(f"There are {len(examples)} examples and {len(outputs)} outputs: give one output per example.")
    for number, output in enumerate(outputs, 1):
        if not isinstance(output, str):
            raise LabError(f"output {number} is a {type(output).__name__}: give the text that the model wrote.")
    rows = [
        {
            "prompt": example["prompt"],
            "answer": example["answer"],
            "output": output,
            "right": task.is_right(output, example["answer"]),
            "valid": task.is_valid(output),
        }
        for example, output in zip(examples, outputs, strict=True)
    ]
    fields = [task.right_fields(row["output"], row["answer"]) for row in rows]
    right, valid = [row["right"] for row in rows], [row["valid"] for row in rows]
    return Scores(
        exact=sum(right) / len(rows),
        exact_interval=bootstrap_interval(right),
        valid=sum(valid) / len(rows),
        valid_interval=bootstrap_interval(valid),
        fields={name: sum(one[name] for one in fields) / len(rows) for name in task.fields},
        rows=rows,
        measured=measure(task, [row["answer"] for row in rows], outputs) if isinstance(task, OwnTask) else None,
    )


def _check_references(task: Task, examples) -> list[dict]:
    """The examples as a list, or a LabError that names the first whose answer is not one of the task."""
    examples = as_pairs(examples)
    if not examples:
        raise LabError("There are no examples to score: the split is empty. Choose another split or a larger slice.")
    for number, row in enumerate(examples, 1):
        if not task.fields:
            if not row["answer"].strip():
                raise LabError(f"example {number}: the answer is empty, and so would be right. Leave that row out.")
            continue
        found = task.parse(row["answer"])
        if found is None:
            why = "is not a JSON object"
        elif unknown := [key for key in found if key not in task.fields]:
            why = f"has the field {unknown[0]!r}"
        elif not found:
            why = "has no field"
        else:
            continue
        raise LabError(
            f"example {number}: the answer {row['answer'][:60]!r} {why}, and this task's answers are JSON objects with "
            f"the fields {', '.join(task.fields)}. Name the task that the examples belong to: task='style' compares "
            "plain text; for other fields give task=dataclasses.replace(TASKS['bookings'], fields=('your', 'fields'))."
        )
    return examples


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
        examples = _held_out(task)
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
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    device = next(model.parameters()).device
    total, tokens = [0.0] * len(rows), [0] * len(rows)
    right = [True] * len(rows)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
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


def perplexity(model, tokenizer, text: str, window: int = 512, stride: int = 256) -> float:
    """exp of the mean cross entropy of a fixed text, by sliding window: exp of the mean of `token_losses`.

    Parameters
        As of `token_losses`.

    Returns
    -------
    float, at least 1

    Raises
    ------
    LabError
        As `token_losses`, or the result is beyond a float's range.
    """
    mean = float(token_losses(model, tokenizer, text, window, stride).double().mean())
    try:
        return math.exp(mean)
    except OverflowError as error:
        raise LabError(
            f"The mean loss is {mean:,.0f} nats per token, and exp of that is beyond a float's range: this model is "
            "broken. Load it again; if you quantized it, take more bits."
        ) from error


def token_losses(model, tokenizer, text: str, window: int = 512, stride: int = 256):
    """What each token of a fixed text costs the model, by sliding window.

    Every token but the first is scored exactly once, with at least `window - stride` tokens before it wherever the
    text has that many. Two models are compared best token by token: what is hard for one is mostly hard for both.

    Parameters
    ----------
    text : str, of two tokens or more; letters of a control token in it are text
    window : int, tokens the model reads at once
    stride : int, 1 to window - 1, tokens by which the window moves

    Returns
    -------
    float32 Tensor, shape (tokens - 1,): cross entropy in nats, of the second token first

    Raises
    ------
    LabError
        `text` is not a text or too short, window or stride is out of range, the text does not fit the model, or a loss
        is not finite: its token is named.
    """
    import torch

    check_text("text", text)
    window = whole("window", window, 2)  # at stride = window a piece's first token would have nothing before it
    stride = whole("stride", stride, 1, window - 1, f"less than window={window}")
    control = ControlTokens(tokenizer)
    if control.pattern.search(text):
        ids = torch.tensor(control.text_ids(tokenizer, text))
    else:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    if len(ids) < 2:
        raise LabError(f"The text has {len(ids)} token(s); perplexity needs two at least.")
    check_fit(model, [ids[:window].tolist(), [int(ids.max())]])
    was_training = model.training
    model.eval()
    losses, scored = [], 1  # tokens before `scored` have been predicted (the first never is)
    try:
        while scored < len(ids):
            end = min(len(ids), window if scored == 1 else scored + stride)
            start = max(0, end - window)
            piece = ids[start:end].to(next(model.parameters()).device)
            with torch.no_grad():
                logits = model(input_ids=piece[None], use_cache=False).logits[0].float()
            fresh = end - scored
            losses.append(torch.nn.functional.cross_entropy(logits[-fresh - 1 : -1], piece[-fresh:], reduction="none"))
            scored = end
    finally:
        model.train(was_training)
    losses = torch.cat(losses).cpu()
    if not losses.isfinite().all():
        place = int((~losses.isfinite()).nonzero()[0]) + 1
        raise LabError(
            f"The loss of token {place + 1} of {len(ids)} is {float(losses[place - 1])}. A weight or an adapter holds "
            "NaN or infinity, or float16 overflows. Load the base and the adapter again."
        )
    return losses


@contextmanager
def changed_weights(model, change: Callable, *, skip: Iterable[str] = ("lm_head",)) -> Iterator[dict[str, float]]:
    """While the `with` block lasts, every linear weight W of the model is `change(W)`; then W is back.

    That shows what a quantization costs, whatever format it is: let `change` quantize and dequantize.

    Parameters
    ----------
    model : torch module whose linear weights are plain floats
    change : function of a float32 Tensor (out, in) to a Tensor of that shape
        The result is rounded to the dtype that the model computes in.
    skip : names of modules to leave as they are, by the last part of the name

    Yields
    ------
    dict module -> float, the relative error ‖change(W) − W‖ / ‖W‖ of each changed weight, before that rounding

    Raises
    ------
    LabError
        The model holds quantized weights, or none that may be changed; a weight or what `change` gives is not finite;
        or `change` gives another shape.
    """
    import torch

    from .finite import nonfinite_in_words
    from .lowrank import relative_error

    skip = listed(skip) or ()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    linear = {name: module for name, module in linear.items() if name.rpartition(".")[2] not in skip}
    quantized = next((name for name, module in linear.items() if not module.weight.is_floating_point()), None)
    if quantized or not linear:
        reason = f"{quantized} is quantized already" if quantized else "it has no linear weight to change"
        raise LabError(f"This model cannot be used here: {reason}. Load it with quantization='none'.")
    before = {name: module.weight.data for name, module in linear.items()}
    errors = {}
    try:
        for name, module in linear.items():
            weight = before[name].float()
            changed = change(weight)
            for what, tensor in ((f"{name}.weight", weight), (f"the changed {name}.weight", changed)):
                if isinstance(tensor, torch.Tensor) and (wrong := nonfinite_in_words(what, tensor)):
                    raise LabError(f"{wrong}. Load the model again, and look at what `change` does there.")
            errors[name] = relative_error(weight, changed)
            module.weight.data = changed.to(before[name].dtype)
        yield errors
    finally:
        for name, module in linear.items():
            module.weight.data = before[name]
