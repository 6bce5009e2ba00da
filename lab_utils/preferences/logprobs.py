"""How likely a model finds its answers: the log-probability of each token, given all the tokens before it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ..finetune import IGNORED, answer_logits


def token_logprobs(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """The log-probability of each labelled token. The logits at one place predict the token at the next.

    Parameters
    ----------
    logits : float Tensor, shape (rows, length, vocabulary)
    labels : int64 Tensor, shape (rows, length); `IGNORED` (-100) at every token that is only read, such as the prompt's
    temperature : float > 0, what the logits are divided by: that of sampling

    Returns
    -------
    float Tensor, shape (rows, length - 1), in nats: the token at place t + 1, and 0 where it has no label

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])  # two words; the last logits predict nothing
    >>> token_logprobs(logits, torch.tensor([[0, 1, 1]]))
    tensor([[-0.6931, -0.3133]])
    >>> token_logprobs(logits, torch.tensor([[-100, -100, 1]]))
    tensor([[ 0.0000, -0.3133]])
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    every_word = (logits / temperature).log_softmax(-1)  # (rows, length - 1, vocabulary)
    of_the_token = every_word.gather(-1, labels.clamp(min=0)[..., None])[..., 0]  # any word where there is no label
    return of_the_token.masked_fill(labels == IGNORED, 0.0)


def sequence_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each row's answer as a whole: the sum over its tokens, not their mean.

    Parameters
    ----------
    logits, labels : as in `token_logprobs`

    Returns
    -------
    float Tensor, shape (rows,), in nats; a longer answer is less likely, other things being equal

    >>> logits = torch.zeros(1, 3, 2)  # both words equally likely, always
    >>> sequence_logprobs(logits, torch.tensor([[-100, 0, 1]])).exp()
    tensor([0.2500])
    """
    return token_logprobs(logits, labels).sum(1)


def answer_mask(labels: Tensor) -> Tensor:
    """Which places of `token_logprobs` hold a token of the answer: bool Tensor, shape (rows, length - 1)."""
    return labels[:, 1:] != IGNORED


def answer_logprobs(model, batch: Mapping, temperature: float = 1.0) -> Tensor:
    """`token_logprobs` of a model on a batch; its head computes only the logits that count.

    Parameters
    ----------
    model : causal language model of transformers, with or without adapters
    batch : dict of int64 Tensors (rows, length): input_ids, attention_mask, labels, as `finetune.collate` returns it
    temperature : float > 0

    Returns
    -------
    float32 Tensor, shape (rows, length - 1), in nats

    Raises
    ------
    LabError
        As `finetune.answer_logits`.
    """
    logits, targets, _ = answer_logits(model, **batch)  # (answer tokens, vocabulary), (answer tokens,)
    every_word = (logits.float() / temperature).log_softmax(-1)
    of_the_token = every_word.gather(-1, targets[:, None])[:, 0]
    places = answer_mask(batch["labels"]).to(of_the_token.device)
    return torch.zeros(places.shape, device=places.device).masked_scatter(places, of_the_token)


@contextmanager
def reference(model, start: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Inside, the model is its own reference: its adapter is switched off, or is what it was at the start.

    A second copy of the base is not needed. Compute the reference's numbers under `torch.no_grad()`.

    Parameters
    ----------
    model : peft model
    start : dict name -> Tensor, the adapter's numbers at the start, as `adapter_state` copies them; None for a fresh
        adapter, which at its start (B = 0) changes nothing, so that the base alone is the reference
    """
    was_training = model.training
    model.eval()  # a reference drops nothing out
    try:
        if start is None:
            with model.disable_adapter():
                yield
        else:
            with _exchanged(model, start):
                yield
    finally:
        model.train(was_training)


def adapter_state(model) -> dict[str, Tensor]:
    """A copy of the numbers of a model's trainable parameters, by name."""
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}


@contextmanager
def _exchanged(model, start: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the parameters that `start` names have its numbers; afterwards they have their own again."""
    there = {name: one for name, one in model.named_parameters() if name in start}
    own = {name: one.data for name, one in there.items()}
    try:
        for name, one in there.items():
            one.data = start[name]
        yield
    finally:
        for name, one in there.items():
            one.data = own[name]
