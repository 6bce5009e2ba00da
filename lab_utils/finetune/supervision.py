"""From text to tokens, labels and batches: what the model reads and what it is trained on."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import LabError
from ..models.registry import base_model
from ..tasks import Task, with_system
from ..tasks.conversations import check_conversation, turns_of
from ..tasks.data_lines import check_row, check_rows
from .conversation import answer_tokens, end_of_turn, prompt_tokens, render
from .examples import Examples
from .turns import encode_conversation

IGNORED = -100  # cross entropy's ignore_index
NOT_CAUSAL = ("bert-generation", "cpmant", "xlnet")  # of the models that transformers calls causal, unless is_decoder
WINDOW = 8  # batches whose examples are sorted by length together


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


def prompt_ids(tokenizer, task: Task, prompt: str | Sequence[dict], shots: Sequence[dict] = ()) -> list[int]:
    """The tokens of `prompt_text`; letters of a control token in the prompt or the shots are ordinary text.

    A prompt may also be a conversation so far, a list of messages: the task's system message is put before it.

    Raises
    ------
    LabError
        As `prompt_text`; or this tokenizer cannot read a control token's letters as text.
    """
    return prompt_tokens(tokenizer, _messages(task, prompt, shots))


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
    """The rows as a list; those that are no conversations are checked."""
    try:
        rows = list(rows)
    except TypeError:
        return check_rows(rows, "example")
    for number, row in enumerate(rows, 1):
        if not (isinstance(row, Mapping) and "messages" in row):
            check_row(row, f"example {number}")
    return rows


def plan_batches(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """Which examples each training step sees: a pure function, so that a resumed run goes on in the same order.

    Every epoch is a new shuffle. Within windows of `WINDOW` batches the examples are sorted by length, so that
    a batch holds examples of like length and little padding; the batches of a window are shuffled again.

    Parameters
    ----------
    lengths : tokens of each example
    batch_size, steps, seed : int

    Returns
    -------
    list of `steps` lists of `batch_size` indices (what an epoch leaves over begins the next); a plan for fewer steps
    is the beginning of a plan for more
    """
    rng = random.Random(seed)
    batches: list[list[int]] = []
    waiting: list[int] = []  # what an epoch left over: fewer than a batch
    while len(batches) < steps:
        epoch = list(range(len(lengths)))
        rng.shuffle(epoch)
        waiting += epoch
        full = len(waiting) // batch_size * batch_size
        for start in range(0, full, WINDOW * batch_size):
            window = sorted(waiting[start : min(start + WINDOW * batch_size, full)], key=lambda index: lengths[index])
            of_window = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
            rng.shuffle(of_window)
            batches += of_window
        waiting = waiting[full:]
    return batches[:steps]


def collate(examples: Sequence[Encoded], pad_token_id: int, supervise_end: bool = True) -> dict:
    """Pad examples on the right into one batch.

    Returns
    -------
    dict of int64 Tensors, shape (examples, longest): input_ids, attention_mask, labels (`IGNORED` = not trained)
    """
    import torch

    longest = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.tensor(example.input_ids)
        attention_mask[row, :length] = 1
        labels[row, :length] = torch.tensor(example.labels(supervise_end))
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def answer_logits(model, input_ids, attention_mask, labels):
    """The model's logits where there is a label to predict, and nowhere else.

    The head is a tenth of the embedded model's work, and most of a batch is prompt. So the model runs its own forward
    pass, and on the way into the head the hidden states are cut down to those that are needed. What the model does to
    its logits afterwards (scaling, soft capping) it does to these. A model that does not call its head as a module
    gives all logits, and they are cut down then.

    Parameters
    ----------
    model : causal language model of transformers, with or without adapters
    input_ids, attention_mask, labels : int64 Tensors (examples, length), as `collate` returns them

    Returns
    -------
    (logits, targets, owners) : Tensors (supervised tokens, vocabulary) in the model's dtype, and twice
        (supervised tokens,) int64: the token to predict, and the row of the batch it belongs to

    Raises
    ------
    LabError
        The model does not predict each next token from the tokens before it (T5, BERT), or its logits are not one row
        for each token.
    """
    import torch

    base = base_model(model)
    check_causal(base)
    keep = torch.zeros_like(labels, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != IGNORED
    with _into_the_head(base, keep) as was_cut:
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    if was_cut and logits.shape[:-1] == (1, int(keep.sum())):
        logits = logits[0]
    elif not was_cut and logits.shape[:-1] == keep.shape:
        logits = logits[keep.to(logits.device)]
    else:
        raise LabError(
            f"{type(base).__name__} gives logits of shape {tuple(logits.shape)} for {tuple(input_ids.shape)} tokens, "
            "and one row for each token is needed. Take another base model."
        )
    return logits, labels[:, 1:][keep[:, :-1]].to(logits.device), keep.nonzero()[:, 0].to(logits.device)


def check_causal(base) -> None:
    """Raise a LabError unless a transformers model predicts each token from the tokens before it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILLS_GAPS

    config = base.config
    if getattr(config, "is_encoder_decoder", False):
        why = "reads the prompt with an encoder and answers with a decoder"
    elif base.get_output_embeddings() is None:
        why = "has no head that predicts tokens"
    elif config.model_type in {*FILLS_GAPS, *NOT_CAUSAL} and not getattr(config, "is_decoder", False):
        why = "reads the tokens after a place too (its config does not say is_decoder=True)"
    else:
        return
    raise LabError(
        f"{type(base).__name__} {why}: it cannot be trained here to write an answer token by token. "
        "Take a causal language model, such as a Llama or a Qwen."
    )


@contextmanager
def _into_the_head(base, keep) -> Iterator[list]:
    """Inside, only the hidden states at `keep` (bool, examples × length) go into the head, as one row of a batch.

    Yields a list: empty as long as the head was not called with hidden states of that shape.
    """
    calls = []

    def cut(module, inputs):
        if inputs and inputs[0].dim() == 3 and inputs[0].shape[:2] == keep.shape:
            calls.append(module)
            return (inputs[0][keep.to(inputs[0].device)][None], *inputs[1:])
        return None

    handle = base.get_output_embeddings().register_forward_pre_hook(cut)
    try:
        yield calls
    finally:
        handle.remove()


def build_supervised(model):
    """Wrap a causal language model so that calling it gives the summed loss over the supervised tokens."""
    import torch

    class SupervisedLoss(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, labels):
            """int64 (examples, length) each -> float32 scalar, sum of cross entropy in nats."""
            logits, targets, _ = answer_logits(self.model, input_ids, attention_mask, labels)
            return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    return SupervisedLoss(model)
