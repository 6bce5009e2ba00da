"""Several answers to each prompt, drawn by chance: what a group is made of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..decoding import quick_decoder, refuse_nonfinite
from ..finetune.conversation import pad_left, padding_token, stop_tokens
from ..models.registry import base_model


def sample_groups(
    model, tokenizer, prompts: Sequence[Sequence[int]], group_size: int, temperature: float = 1.0, room: int = 64
) -> list[list[int]]:
    """Draw `group_size` answers to each prompt, token by token, from the model's whole distribution.

    No likeliest-words cut (top-k, top-p) is made: the loss takes an answer to be drawn from the probabilities it
    computes. A 4-bit model is decoded through its plain copy, as `decoding.generate` does; its probabilities differ
    from the 4-bit layers' by rounding.

    Parameters
    ----------
    model, tokenizer : of transformers, with or without adapters
    prompts : token ids of each prompt
    group_size : int >= 1
    temperature : float > 0
    room : int >= 1, most tokens of an answer

    Returns
    -------
    list of lists of token ids, the answers to one prompt side by side; each ends with its end of turn, or without one
    where the room was used up. Which ones are drawn depends on torch's random state.

    Raises
    ------
    LabError
        The model's logits are not finite.
    """
    import torch

    was_training, device = model.training, next(model.parameters()).device
    stops = stop_tokens(tokenizer)
    decoder = quick_decoder(model)
    batch = {name: one.to(device) for name, one in pad_left(tokenizer, prompts).items()}
    how = {"temperature": temperature, "max_new_tokens": room, "num_return_sequences": group_size}
    how |= {"eos_token_id": stops, "pad_token_id": padding_token(tokenizer)}
    try:
        with torch.no_grad(), _at_random(decoder, how) as settings:
            tokens = decoder.generate(**batch, **settings, logits_processor=[refuse_nonfinite])
    finally:
        model.train(was_training)
    return [_cut(answer, stops) for answer in tokens[:, batch["input_ids"].shape[1] :].tolist()]


def _cut(tokens: list[int], stops: Sequence[int]) -> list[int]:
    """An answer up to its first stop, that one included; the padding after it left out."""
    end = next((place + 1 for place, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]


@contextmanager
def _at_random(model, how: dict) -> Iterator[dict]:
    """Inside, `model.generate(**settings)` samples by `how` alone, whatever settings the model's files recommend."""
    from transformers import GenerationConfig

    base = base_model(model)
    recommended = base.generation_config
    own = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, **how)
    base.generation_config = own
    try:
        yield {"generation_config": own}
    finally:
        base.generation_config = recommended
