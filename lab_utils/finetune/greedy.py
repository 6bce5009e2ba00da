"""Greedy decoding by settings of our own, whatever settings a model's files recommend."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..models.registry import base_model


@contextmanager
def greedy(model, *, room: int, stops: Sequence[int], padding: int) -> Iterator[dict]:
    """Inside, `model.generate(**batch, **settings)` takes the likeliest token each time, and nothing else counts.

    A model's folder may hold a `generation_config.json`. transformers takes every setting from it that a call leaves
    open, and some count in greedy decoding too: a repetition penalty, a ban on repeated n-grams, a list of suppressed
    tokens, a number of beams. Here these settings are put aside while the block lasts.

    Parameters
    ----------
    model : transformers model that generates, or a peft model
    room : int >= 1, most new tokens
    stops : token ids at which an answer is over
    padding : int, token id that fills finished rows

    Yields
    ------
    dict of arguments for `model.generate`
    """
    from transformers import GenerationConfig

    base = base_model(model)
    recommended = base.generation_config
    own = GenerationConfig(do_sample=False, max_new_tokens=room, eos_token_id=list(stops), pad_token_id=padding)
    base.generation_config = own
    try:
        yield {"generation_config": own}
    finally:
        base.generation_config = recommended
