"""Which examples each step sees, and examples as one padded batch."""

import random
from collections.abc import Sequence

from .supervision import IGNORED, Encoded

WINDOW = 8  # batches whose examples are sorted by length together


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
