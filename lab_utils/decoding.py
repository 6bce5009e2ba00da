"""What a model writes: greedy answers to prompts, in batches."""

from collections.abc import Iterable

from .errors import LabError, shown, whole
from .finetune.conversation import decode_answer, pad_left, padding_token, stop_tokens
from .finetune.fit import check_fit
from .finetune.supervision import prompt_ids
from .tasks import Task
from .tasks.registry import find_task


def generate(model, tokenizer, prompts: list[str], task: str | Task = "bookings", batch_size: int = 32,
             max_new_tokens: int | None = None) -> list[str]:
    """Greedy answers to prompts, in batches sorted by length, each stopped at its end of turn.

    On a CPU a 4-bit model is decoded through `merging.dequantized_copy`: same weights, a third of the time.

    Parameters
    ----------
    prompts : list of str, the task's prompts without any template; letters of a control token in them are text
    task : a name in `TASKS`, or a Task; it gives the system message
    batch_size : int, prompts decoded together
    max_new_tokens : int, default the task's

    Returns
    -------
    list of str, in the order of `prompts`, without special tokens

    Raises
    ------
    LabError
        A prompt is not a text or does not fit the model, a setting is out of range, or the model's logits are not
        finite.
    """
    import torch

    from .merging import dequantized_copy

    task = find_task(task)
    batch_size = whole("batch_size", batch_size)
    room = whole("max_new_tokens", task.max_new_tokens if max_new_tokens is None else max_new_tokens)
    rows = [prompt_ids(tokenizer, task, prompt) for prompt in texts("prompts", prompts)]
    check_fit(model, rows, room)
    was_training = model.training
    device = next(model.parameters()).device
    four_bit = any(type(module).__name__ == "Linear4bit" for module in model.modules())
    decoder = dequantized_copy(model) if device.type == "cpu" and four_bit else model.eval()
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    outputs = [""] * len(rows)
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = {name: one.to(device) for name, one in pad_left(tokenizer, [rows[i] for i in indices]).items()}
            with torch.no_grad():
                tokens = decoder.generate(
                    **batch,
                    max_new_tokens=room,
                    do_sample=False,
                    eos_token_id=stop_tokens(tokenizer),
                    pad_token_id=padding_token(tokenizer),
                    logits_processor=[refuse_nonfinite],
                )
            for index, answer in zip(indices, tokens[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                outputs[index] = decode_answer(tokenizer, answer)
    finally:
        model.train(was_training)
    return outputs


def texts(name: str, values: object) -> list:
    """A list of texts as a list. A text alone is refused: its letters would be taken for the texts.

    Raises
    ------
    LabError
        `values` is one text, or not a list at all.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise LabError(f"{name}={shown(values)} is out of range: a list of texts, even of one.")
    return list(values)


def refuse_nonfinite(input_ids, scores):
    """A step of transformers' generation that passes on finite logits; else the likeliest token would be token 0.

    Raises
    ------
    LabError
        A logit is NaN or infinite.
    """
    if not scores.amax(-1).isfinite().all():  # the largest is NaN where any is
        raise LabError(
            "The model's logits are not finite: a weight or an adapter holds NaN or infinity, or float16 overflows. "
            "Load the base and the adapter again; on a GPU take bfloat16 or float32."
        )
    return scores
