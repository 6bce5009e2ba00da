"""From text to tokens, labels and batches: what the model reads and what it is trained on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .adapter import base_model
from .errors import LabError
from .tasks import Task

IGNORED = -100  # cross entropy's ignore_index
WINDOW = 8  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class Encoded:
    """One example as tokens.

    Attributes
    ----------
    input_ids : list of int, prompt + answer + end of turn
    prompt_length : int, how many of them are prompt
    """

    input_ids: list[int]
    prompt_length: int

    def labels(self, supervise_end: bool = True) -> list[int]:
        """The token to learn at each position, `IGNORED` on the prompt.

        Masked by construction: the prompt was encoded on its own, so its length is known. Nothing is searched.
        With `supervise_end=False` the end of turn is ignored too: the classic mistake, kept for the label microscope.
        """
        labels = [IGNORED] * self.prompt_length + self.input_ids[self.prompt_length :]
        if not supervise_end:
            labels[-1] = IGNORED
        return labels


def prompt_text(tokenizer, task: Task, prompt: str, shots: Sequence[dict] = ()) -> str:
    """The prompt as the chat template writes it, up to where the answer begins.

    `shots` are examples, {"prompt": str, "answer": str}, that stand before it as turns of the same conversation.
    """
    messages = [{"role": "system", "content": task.system}]
    for shot in shots:
        messages += [{"role": "user", "content": shot["prompt"]}, {"role": "assistant", "content": shot["answer"]}]
    messages.append({"role": "user", "content": prompt})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def encode(tokenizer, task: Task, prompt: str, answer: str, shots: Sequence[dict] = ()) -> Encoded:
    """Encode one example, prompt and answer apart, and close it with the end-of-turn token."""
    prompt_ids = tokenizer(prompt_text(tokenizer, task, prompt, shots), add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return Encoded([*prompt_ids, *answer_ids, tokenizer.eos_token_id], len(prompt_ids))


def encode_split(tokenizer, task: Task, rows, max_length: int) -> list[Encoded]:
    """Encode a split of a task; examples longer than `max_length` tokens are left out, and that is said.

    Parameters
    ----------
    rows : iterable of {"prompt": str, "answer": str}
    max_length : int, tokens

    Raises
    ------
    LabError
        No example is short enough.
    """
    examples = [encode(tokenizer, task, row["prompt"], row["answer"]) for row in rows]
    kept = [example for example in examples if len(example.input_ids) <= max_length]
    if not kept:
        shortest = min((len(example.input_ids) for example in examples), default=0)
        raise LabError(
            f"None of {len(examples)} training examples fits into max_length={max_length} tokens "
            f"(the shortest has {shortest}). Raise max_length."
        )
    if len(kept) < len(examples):
        print(f"{len(examples) - len(kept)} of {len(examples)} examples are longer than {max_length} tokens: left out.")
    return kept


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
    """The model's logits where a label stands, and nowhere else.

    The head is a tenth of the embedded model's work, and most of a batch is prompt.

    Parameters
    ----------
    model : causal language model of transformers, with or without adapters
    input_ids, attention_mask, labels : int64 Tensors (examples, length), as `collate` returns them

    Returns
    -------
    (logits, targets, owners) : Tensors (supervised tokens, vocabulary) in the model's dtype, and twice
        (supervised tokens,) int64: the token to predict, and the row of the batch it belongs to
    """
    base = base_model(model)
    decoder = getattr(base, base.base_model_prefix)
    hidden = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    targets = labels[:, 1:]
    keep = targets != IGNORED
    logits = base.get_output_embeddings()(hidden[:, :-1][keep])
    return logits, targets[keep], keep.nonzero()[:, 0]


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
