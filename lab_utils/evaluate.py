"""How good is it: exact match, fields, valid answers with a confidence interval, and perplexity."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import LabError, choose
from .supervision import answer_logits, collate, encode, prompt_text
from .tasks import TASKS, Task


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
    """

    exact: float
    exact_interval: tuple[float, float]
    valid: float
    valid_interval: tuple[float, float]
    fields: dict[str, float]
    rows: list[dict] = field(repr=False)

    def __str__(self) -> str:
        parts = [f"exact match {self.exact:.0%} ({self.exact_interval[0]:.0%} to {self.exact_interval[1]:.0%})"]
        parts.append(f"well-formed {self.valid:.0%}")
        parts += [f"{name} {share:.0%}" for name, share in self.fields.items()]
        return f"{len(self.rows)} examples: " + ", ".join(parts)


def bootstrap_interval(hits: list[bool], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a share.

    Parameters
    ----------
    hits : list of bool, one an example, not empty

    Returns
    -------
    (low, high), both in [0, 1]

    Source: Efron 1979, Bootstrap methods. https://doi.org/10.1214/aos/1176344552
    """
    import numpy as np

    values = np.asarray(hits, dtype=float)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def generate(model, tokenizer, prompts: list[str], task: str = "bookings", batch_size: int = 32,
             max_new_tokens: int | None = None) -> list[str]:
    """Greedy answers to prompts, in batches sorted by length, each stopped at its end of turn.

    On a CPU a 4-bit model is decoded through `merging.dequantized_copy`: same weights, a third of the time.

    Parameters
    ----------
    prompts : list of str, the task's prompts without any template
    task : str, a name in `TASKS`; it gives the system message
    batch_size : int, prompts decoded together
    max_new_tokens : int, default the task's

    Returns
    -------
    list of str, in the order of `prompts`, without special tokens
    """
    import torch

    from .merging import dequantized_copy

    choose("task", task, TASKS)
    texts = [prompt_text(tokenizer, TASKS[task], prompt) for prompt in prompts]
    was_training = model.training
    on_cpu = next(model.parameters()).device.type == "cpu"
    four_bit = any(type(module).__name__ == "Linear4bit" for module in model.modules())
    decoder = dequantized_copy(model) if on_cpu and four_bit else model.eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    outputs = [""] * len(texts)
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = tokenizer([texts[i] for i in indices], return_tensors="pt", padding=True, padding_side="left",
                              add_special_tokens=False).to(next(model.parameters()).device)
            with torch.no_grad():
                tokens = decoder.generate(
                    **batch,
                    max_new_tokens=max_new_tokens or TASKS[task].max_new_tokens,
                    do_sample=False,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            answers = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, answer in zip(indices, answers, strict=True):
                outputs[index] = answer
    finally:
        model.train(was_training)
    return outputs


def score(model, tokenizer, examples, task: str = "bookings", batch_size: int = 32) -> Scores:
    """Let the model answer `examples` greedily and compare with the answers.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them
    examples : a split of `load_task`, or any list of {"prompt": str, "answer": str}
    task : str, a name in `TASKS`
    batch_size : int, examples decoded together

    Returns
    -------
    Scores

    Raises
    ------
    LabError
        There are no examples, or the task is unknown.
    """
    choose("task", task, TASKS)
    examples = list(examples)
    if not examples:
        raise LabError("There are no examples to score: the split is empty. Choose another split or a larger slice.")
    outputs = generate(model, tokenizer, [example["prompt"] for example in examples], task, batch_size)
    return grade(TASKS[task], examples, outputs)


def grade(task: Task, examples: list[dict], outputs: list[str]) -> Scores:
    """The scores of given outputs."""
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
    shares = {}
    for name in task.fields:
        hits = [(task.parse(row["output"]) or {}).get(name) == task.parse(row["answer"]).get(name) for row in rows]
        shares[name] = sum(hits) / len(hits)
    right, valid = [row["right"] for row in rows], [row["valid"] for row in rows]
    return Scores(
        exact=sum(right) / len(rows),
        exact_interval=bootstrap_interval(right),
        valid=sum(valid) / len(rows),
        valid_interval=bootstrap_interval(valid),
        fields=shares,
        rows=rows,
    )


@dataclass(frozen=True)
class AnswerLosses:
    """What `answer_losses` found.

    Attributes
    ----------
    loss : float, mean cross entropy of all answers' tokens, end of turn included, in nats
    exact : float in [0, 1], share of answers of which every token is the model's first choice
    losses : tuple of float, mean cross entropy of each answer, in the order of the examples
    right : tuple of bool, is every token of that answer the first choice
    """

    loss: float
    exact: float
    losses: tuple[float, ...] = field(repr=False)
    right: tuple[bool, ...] = field(repr=False)


def answer_losses(
    model, tokenizer, examples, task: str = "bookings", *, shots=(), batch_size: int = 20
) -> AnswerLosses:
    """What the right answers cost the model: one forward pass, nothing is generated.

    Greedy decoding writes the right answer exactly when each of its tokens is the first choice after those before it.
    So `exact` is `score`'s exact match letter by letter, for a tenth of the time; `score` also takes an answer that
    means the same JSON in other letters.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them
    examples : rows of {"prompt": str, "answer": str}, not empty
    task : str, a name in `TASKS`
    shots : rows like `examples`, put before every prompt as turns of the conversation
    batch_size : int, examples read together

    Raises
    ------
    LabError
        There are no examples, or the task is unknown.
    """
    import torch

    choose("task", task, TASKS)
    rows = [encode(tokenizer, TASKS[task], row["prompt"], row["answer"], shots) for row in examples]
    if not rows:
        raise LabError("There are no examples to read: the split is empty. Choose another split or a larger slice.")
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    device = next(model.parameters()).device
    total, tokens = [0.0] * len(rows), [0] * len(rows)
    right = [True] * len(rows)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = collate([rows[index] for index in indices], tokenizer.pad_token_id)
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
    return AnswerLosses(
        loss=sum(total) / sum(tokens),
        exact=sum(right) / len(rows),
        losses=tuple(cost / count for cost, count in zip(total, tokens, strict=True)),
        right=tuple(right),
    )


def perplexity(model, tokenizer, text: str, window: int = 512, stride: int = 256) -> float:
    """exp of the mean cross entropy of a fixed text, by sliding window: exp of the mean of `token_losses`.

    Parameters, errors
        As of `token_losses`.

    Returns
    -------
    float, at least 1
    """
    return math.exp(float(token_losses(model, tokenizer, text, window, stride).double().mean()))


def token_losses(model, tokenizer, text: str, window: int = 512, stride: int = 256):
    """What each token of a fixed text costs the model, by sliding window.

    Every token but the first is scored exactly once, with at least `window - stride` tokens before it wherever the
    text has that many. Two models are compared best token by token: what is hard for one is mostly hard for both.

    Parameters
    ----------
    text : str, of two tokens or more
    window : int, tokens the model reads at once
    stride : int, 1 to window - 1, tokens by which the window moves

    Returns
    -------
    float32 Tensor, shape (tokens - 1,): cross entropy in nats, of the second token first

    Raises
    ------
    LabError
        The text is too short, or stride is out of range.
    """
    import torch

    if not 1 <= stride < window:  # at stride = window a piece's first token would have nothing before it
        raise LabError(f"stride={stride} is out of range: 1 to {window - 1}, less than window={window}.")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    if len(ids) < 2:
        raise LabError(f"The text has {len(ids)} token(s); perplexity needs two at least.")
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
    return torch.cat(losses).cpu()


@contextmanager
def changed_weights(model, change: Callable, *, skip: tuple[str, ...] = ("lm_head",)) -> Iterator[dict[str, float]]:
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
        The model holds quantized weights, or none that may be changed.
    """
    import torch

    from .lowrank import relative_error

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
            errors[name] = relative_error(weight, changed)
            module.weight.data = changed.to(before[name].dtype)
        yield errors
    finally:
        for name, module in linear.items():
            module.weight.data = before[name]
