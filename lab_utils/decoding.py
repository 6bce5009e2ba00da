"""What a model writes: greedy answers to prompts, in batches."""

from collections.abc import Iterable

from .errors import LabError, shown, whole
from .finetune.conversation import decode_answer, pad_left, padding_token, stop_tokens
from .finetune.fit import check_fit
from .finetune.greedy import greedy
from .finetune.supervision import prompt_ids
from .memory.free import free_memory_bytes
from .models.registry import base_model
from .tasks import Task
from .tasks.registry import find_task


def generate(model, tokenizer, prompts: list[str], task: str | Task = "bookings", batch_size: int = 32,
             max_new_tokens: int | None = None) -> list[str]:
    """Greedy answers to prompts, in batches sorted by length, each stopped at its end of turn.

    A 4-bit model is decoded through `merging.dequantized_copy` where that fits into memory: same weights, on a CPU a
    third of the time. Settings that the model's files recommend do not count: see `finetune.greedy`.

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

    task = find_task(task)
    batch_size = whole("batch_size", batch_size)
    room = whole("max_new_tokens", task.max_new_tokens if max_new_tokens is None else max_new_tokens)
    rows = [prompt_ids(tokenizer, task, prompt) for prompt in texts("prompts", prompts)]
    check_fit(model, rows, room)
    stops, padding = stop_tokens(tokenizer), padding_token(tokenizer)
    was_training = model.training
    device = next(model.parameters()).device
    decoder = quick_decoder(model)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    outputs = [""] * len(rows)
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = {name: one.to(device) for name, one in pad_left(tokenizer, [rows[i] for i in indices]).items()}
            with torch.no_grad(), greedy(decoder, room=room, stops=stops, padding=padding) as settings:
                tokens = decoder.generate(**batch, **settings, logits_processor=[refuse_nonfinite])
            for index, answer in zip(indices, tokens[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                outputs[index] = decode_answer(tokenizer, answer)
    finally:
        model.train(was_training)
    return outputs


def quick_decoder(model):
    """The model to decode with, in eval mode: a plain copy of one in 4 bits where that fits, else the model itself.

    A 4-bit layer dequantizes its whole weight for every token of a batch; the copy has done it once. On a CPU it is
    always made. On a GPU half as much again has to be free for the keys and values of a batch.

    Parameters
    ----------
    model : transformers model or peft model, in 4 bits or not
    """
    from .merging import dequantized_copy

    states = [one.quant_state for one in model.parameters() if getattr(one, "quant_state", None) is not None]
    if not states:
        return model.eval()
    kind, size = kind_of(model), base_model(model).dtype.itemsize
    copy_bytes = size * sum(state.shape.numel() for state in states)
    if kind == "cpu" or 1.5 * copy_bytes <= free_memory_bytes(kind):
        return dequantized_copy(model)
    return model.eval()


def kind_of(model) -> str:
    """The kind of device that a model is on."""
    return next(model.parameters()).device.type


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
