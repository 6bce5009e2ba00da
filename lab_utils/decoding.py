"""What a model writes: greedy answers to prompts, in batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .device import GIB
from .errors import LabError, shown, whole
from .finetune.conversation import decode_answer, pad_left, padding_token, stop_tokens
from .finetune.fit import check_fit
from .finetune.greedy import greedy
from .finetune.supervision import prompt_ids
from .memory.free import free_memory_bytes
from .models.registry import base_model
from .printing import say
from .tasks import Task, last_turn, rows_text
from .tasks.conversations import check_conversation, has_text
from .tasks.data_lines import check_rows
from .tasks.registry import find_task

SCORES = 11  # bytes per head and pair of tokens in eager attention, which softmax holds twice; 10.7 were measured


def generate(model, tokenizer, prompts: list, task: str | Task = "bookings", batch_size: int = 32,
             max_new_tokens: int | None = None, *, shots=()) -> list[str]:
    """Greedy answers to prompts, in batches sorted by length, each stopped at its end of turn.

    A 4-bit model is decoded through `merging.dequantized_copy` where that fits into memory: same weights, on a CPU a
    third of the time. Settings that the model's files recommend do not count: see `finetune.greedy`.

    Parameters
    ----------
    prompts : list of str, the task's prompts without any template; letters of a control token in them are text. A
        conversation so far is a list of messages, {"role", "content"}, or {"messages": that list, "tools": list}
    task : a name in `TASKS`, or a Task; it gives the system message
    batch_size : int, prompts decoded together
    max_new_tokens : int, default the task's
    shots : rows of {"prompt", "answer"} or {"messages"}, put before every prompt as turns of the conversation

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
    rows = [prompt_ids(tokenizer, task, prompt, shots) for prompt in texts("prompts", prompts)]
    check_fit(model, rows, room)
    stops, padding = stop_tokens(tokenizer), padding_token(tokenizer)
    was_training = model.training
    device = next(model.parameters()).device
    decoder = quick_decoder(model)
    outputs = [""] * len(rows)
    try:
        for indices in batches(model, [len(row) + room for row in rows], batch_size):
            batch = {name: one.to(device) for name, one in pad_left(tokenizer, [rows[i] for i in indices]).items()}
            with torch.no_grad(), greedy(decoder, room=room, stops=stops, padding=padding) as settings:
                tokens = decoder.generate(**batch, **settings, logits_processor=[refuse_nonfinite])
            for index, answer in zip(indices, tokens[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                outputs[index] = decode_answer(tokenizer, answer)
    finally:
        model.train(was_training)
    return outputs


def answers(model, tokenizer, task: str | Task, rows: Iterable, shots=(), batch_size: int = 32) -> list[str]:
    """`generate` for rows of a data set: of a conversation the assistant's last turn is asked for.

    Parameters
    ----------
    model, tokenizer, task, shots, batch_size : as in `generate`
    rows : rows of {"prompt", "answer"} or of {"messages"}

    Returns
    -------
    list of str, one per row

    Raises
    ------
    LabError
        As `generate`; or a row is neither.
    """
    prompts = [prompt_of(pair) for pair in as_pairs(rows)]
    return generate(model, tokenizer, prompts, task, batch_size, shots=shots)


def say_cut(tokenizer, task: Task, pairs: Iterable[Mapping]) -> None:
    """Print how many right answers have more tokens than the task has room for: those cannot be written whole."""
    sizes = [len(tokenizer(pair["answer"], add_special_tokens=False)["input_ids"]) for pair in pairs]
    if over := [size for size in sizes if size > task.max_new_tokens]:
        say(
            f"Note: {len(over):,} of {len(sizes):,} right answers have more tokens than max_new_tokens="
            f"{task.max_new_tokens} lets a model write, so it cannot be right there as a whole. The longest takes "
            f"{max(over)}: pass task=tasks.own(…, max_new_tokens={max(over)}), own= to a report card, or to the "
            f"command lab_utils.evaluate --max-new-tokens {max(over)}."
        )


def prompt_of(pair: Mapping) -> str | dict:
    """What `generate` is asked with for one of `as_pairs`."""
    return {"messages": pair["context"], "tools": pair.get("tools")} if "context" in pair else pair["prompt"]


def as_pairs(rows: Iterable) -> list[Mapping]:
    """Rows of conversations as rows of prompt and answer, with the turns before the answer as "context", and "tools".

    Raises
    ------
    LabError
        A row is neither two texts nor a conversation with an answer: its number is named.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        return check_rows(rows, "example", blank=True)
    return check_rows([_as_pair(number, row) for number, row in enumerate(rows, 1)], "example", blank=True)


def _as_pair(number: int, row: object) -> object:
    """A conversation as what was said last, the answer, and all that came before it; another row as it is."""
    if not (isinstance(row, Mapping) and "messages" in row):
        return row
    messages = check_conversation(row["messages"], f"example {number}")
    if not has_text({"messages": messages}):
        raise LabError(f"example {number}: the assistant calls tools, and says no text to compare with. Leave it out.")
    context, answer = last_turn(messages)
    asked = rows_text({"messages": messages})[0]
    return {"prompt": asked, "answer": answer, "context": context, "tools": row.get("tools")}


def batches(model, lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """The numbers of rows that are read together: in order of length, fewer where `batch_size` do not fit into memory.

    Parameters
    ----------
    model : the one that reads them, on its device
    lengths : tokens of each row
    batch_size : int, the most together

    Raises
    ------
    LabError
        A row alone does not fit into the memory that is free: its tokens are named.
    """
    order, free = sorted(range(len(lengths)), key=lambda place: lengths[place]), free_memory_bytes(kind_of(model))
    while order:
        count = min(batch_size, len(order))
        while (taken := reading_bytes(model, count, lengths[order[count - 1]])) > free:
            if count == 1:
                raise LabError(
                    f"To read {lengths[order[0]]:,} tokens takes about {taken / GIB:.1f} GiB, and {free / GIB:.1f} are "
                    "free. Close other programs, or leave out texts as long as this."
                )
            count -= 1
        yield order[:count]
        order = order[count:]


def reading_bytes(model, rows: int, tokens: int) -> int:
    """What a forward pass takes on top of the model, about: keys and values, and where it is eager the attention."""
    config = getattr(base_model(model), "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(config, "num_attention_heads", 0)
    groups = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(heads, 1)
    numbers = 2 * getattr(config, "num_hidden_layers", 0) * groups * size * tokens
    eager = getattr(config, "_attn_implementation", None) == "eager"
    return rows * (numbers * next(model.parameters()).element_size() + eager * SCORES * heads * tokens**2)


def quick_decoder(model):
    """The model to decode with, in eval mode: a plain copy of one in 4 bits where that fits, else the model itself.

    A 4-bit layer dequantizes its whole weight for every token of a batch; the copy has done it once. On a CPU it is
    always made. On a GPU half as much again has to be free for the keys and values of a batch. Where an adapter cannot
    be merged, as around a mixture's experts, there is none.

    Parameters
    ----------
    model : transformers model or peft model, in 4 bits or not
    """
    from .merging import dequantized_copy
    from .merging.plain_copy import is_mergeable

    states = [one.quant_state for one in model.parameters() if getattr(one, "quant_state", None) is not None]
    if not states or not is_mergeable(model):
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
