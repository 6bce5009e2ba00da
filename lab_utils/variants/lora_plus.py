"""LoRA+: the same layers as LoRA; B learns faster than A."""

import math

from torch import nn

from ..errors import LabError
from ..lora import adapted_layers
from ..lora.whole_model import LoRAEmbedding

RATIO = 16.0
EMBEDDING_LEARNING_RATE = 1e-6  # peft's, for both matrices of an adapted embedding


def lora_plus_groups(model: nn.Module, learning_rate: float, ratio: float = RATIO) -> list[dict]:
    """Parameter groups for an optimizer: A at `learning_rate`, B at `ratio` times it.

    Rule: η_B = λ·η_A with λ = 16, all else as in LoRA. B starts at zero and A does not, so in wide layers equal rates
    leave A almost unchanged; a larger rate for B lets both learn.
    Trains what LoRA trains, at the same cost. Saves: nothing; it promises fewer steps.

    Parameters
    ----------
    model : nn.Module with LoRA adapters
    learning_rate : float > 0, of A
    ratio : float >= 1, λ

    Returns
    -------
    list of {"params": list, "lr": float}: A, B, and adapted embeddings if there are any; the groups of peft's
    `create_loraplus_optimizer` without the empty ones.

    Raises
    ------
    LabError
        The model has no adapters, or the ratio is out of range.

    Source: Hayou et al. 2024 (LoRA+). https://arxiv.org/abs/2402.12354

    >>> from lab_utils.lora import inject
    >>> model = inject(nn.Sequential(nn.Linear(8, 4)), ["0"], rank=2, alpha=4)
    >>> [group["lr"] for group in lora_plus_groups(model, learning_rate=0.001)]  # of A, of B
    [0.001, 0.016]
    """
    number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
    if not number or not 1 <= ratio < math.inf:
        raise LabError(f"ratio={ratio!r} is out of range: a number from 1, how many times faster B learns than A.")
    layers = adapted_layers(model).values()
    linear = [layer for layer in layers if not isinstance(layer, LoRAEmbedding)]
    tables = [layer for layer in layers if isinstance(layer, LoRAEmbedding)]
    groups = [
        {"params": [layer.lora_A for layer in linear], "lr": learning_rate},
        {"params": [matrix for layer in tables for matrix in (layer.lora_A, layer.lora_B)],
         "lr": EMBEDDING_LEARNING_RATE},
        {"params": [layer.lora_B for layer in linear], "lr": learning_rate * ratio},
    ]  # fmt: skip
    return [group for group in groups if group["params"]]
