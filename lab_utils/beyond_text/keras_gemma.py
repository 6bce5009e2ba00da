"""Gemma in Keras, small enough to be trained on the page, with its LoRA and its int8 taken apart.

The model is keras-hub's own Gemma with 51 thousand parameters. It learns to recite the weekdays and the months; an
adapter then teaches it to go backwards. Keras computes with torch here. keras-hub needs TensorFlow for text alone, and
grain or TensorFlow for `fit`: numbers made by hand and `train_on_batch` need neither.
"""

import gc
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import find_device
from ..errors import LabError, at_least, choose
from ..notebook.extras import require

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WORDS = (".", *WEEKDAYS, *MONTHS)  # a word's number is its place; 0 fills up
VOCABULARY = 24  # a multiple of 8, as fast matrix products on a GPU like it; the last few numbers have no word
LENGTH = 9  # words per line


def load_keras():
    """Import Keras with torch as its backend, and keras-hub.

    Returns
    -------
    (keras, keras_hub) : the two modules. Another backend that `KERAS_BACKEND` or ~/.keras/keras.json asks for is
        overruled in this process. Keras computes on the lab's device.

    Raises
    ------
    LabError
        A package is missing, or Keras was imported before with another backend, which cannot be changed any more.
    """
    require("keras")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
        os.environ.setdefault("KERAS_TORCH_DEVICE", find_device().kind)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # keras-hub imports TensorFlow where there is one
    import keras

    backend = keras.config.backend()
    if backend != "torch":
        raise LabError(
            f"Keras was imported before with the backend {backend!r}, and keeps it: restart the kernel, and run this "
            "cell before anything else imports Keras."
        )
    import keras_hub

    warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize` method implemented")
    warnings.filterwarnings("ignore", message="The use of `x.T` on tensors of dimension other than 2")
    return keras, keras_hub


def lines(step: int) -> np.ndarray:
    """What the model is to recite: one line for each weekday and month to begin with.

    Parameters
    ----------
    step : int, 1 forwards, -1 backwards

    Returns
    -------
    int32 array, shape (19, LENGTH), numbers of `WORDS`
    """
    cycles = [[WORDS.index(word) for word in cycle] for cycle in (WEEKDAYS, MONTHS)]
    return np.array(
        [
            [cycle[(start + step * place) % len(cycle)] for place in range(LENGTH)]
            for cycle in cycles for start in range(len(cycle))
        ],
        dtype="int32",
    )


def sentences(sequences: np.ndarray) -> list[str]:
    """Numbers of words, shape (lines, words), as text; "?" for a number that has no word."""
    return [" ".join(WORDS[i] if i < len(WORDS) else "?" for i in line) for line in sequences]


def tiny_gemma(seed: int = 0, dtype: str = "float32"):
    """A `keras_hub.models.GemmaCausalLM` with random weights: 2 blocks, 2 query heads, 1 key and value head.

    Parameters
    ----------
    seed : int. Keras, Python, numpy and torch are all seeded with it.
    dtype : "float32", or "mixed_bfloat16": float32 weights, computing in bfloat16. In "bfloat16" alone a quantized
        layer with an adapter is an error on torch (Keras 3.15).
    """
    keras, keras_hub = load_keras()
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=VOCABULARY, num_layers=2, num_query_heads=2, num_key_value_heads=1, hidden_dim=64,
        intermediate_dim=128, head_dim=32, dtype=dtype,
    )  # fmt: skip
    return keras_hub.models.GemmaCausalLM(backbone)


def copy_of(model, seed: int = 0):
    """A second tiny Gemma in float32 with the weights of `model`, not quantized; `seed` is that of its adapters."""
    twin = tiny_gemma(seed)
    twin.set_weights(model.get_weights())
    return twin


def quantize(model, mode: str, **settings) -> None:
    """`model.quantize(mode, **settings)` of Keras, in place, and quicker.

    Keras collects Python's garbage after each layer, which takes a tenth of a second and more in a process as large as
    a notebook's. What was there before is left out of that.
    """
    gc.freeze()
    try:
        model.quantize(mode, **settings)
    finally:
        gc.unfreeze()


def train(model, sequences: np.ndarray, steps: int, learning_rate: float) -> list[float]:
    """Train whatever is trainable with Adam, all sequences in one batch.

    Parameters
    ----------
    model : a tiny Gemma
    sequences : int array, shape (lines, words); each word is to be guessed from those before it
    steps : int, at least 1
    learning_rate : float

    Returns
    -------
    list of float, the loss of each step before its update, in nats a word

    Raises
    ------
    LabError
        `steps` is out of range.
    """
    at_least(1, steps=steps)
    keras, _ = load_keras()
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), weighted_metrics=[])
    inputs, targets = _inputs(sequences[:, :-1]), sequences[:, 1:]
    return [float(model.train_on_batch(inputs, targets)) for _ in range(steps)]


def recite(model, word: str, count: int = 6) -> str:
    """One word of `WORDS` and the `count` words that the model says after it, always the likeliest, by `generate`."""
    choose("word", word, WORDS[1:])
    at_least(1, count=count)
    ids = np.zeros((1, count + 1), dtype="int32")
    ids[0, 0] = WORDS.index(word)
    said = model.generate({"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}, stop_token_ids=None)
    return sentences(said["token_ids"])[0]


def accuracy(model, sequences: np.ndarray) -> float:
    """The share of next words that the model finds likeliest, each given the right words before it."""
    with torch.no_grad():
        guessed = model(_inputs(sequences[:, :-1])).argmax(-1).cpu().numpy()
    return float((guessed == sequences[:, 1:]).mean())


def not_embedding(layer) -> bool:
    """For `quantize(…, filters=not_embedding)`: every layer but the embedding, which Gemma uses as its output too."""
    return "embedding" not in layer.name


def head_gradient(model, sequences: np.ndarray) -> Tensor:
    """What the output layer hands back: the loss's gradient at the hidden states under it.

    Returns
    -------
    float32 Tensor, shape (lines, words - 1, hidden)
    """
    with torch.no_grad():
        hidden = model.backbone(_inputs(sequences[:, :-1]))
    hidden.requires_grad_(True)
    logits = model.backbone.token_embedding(hidden, reverse=True)
    targets = torch.as_tensor(sequences[:, 1:], dtype=torch.long, device=hidden.device)
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
    return torch.autograd.grad(loss, hidden)[0].float().cpu()


@dataclass(frozen=True)
class Part:
    """A part of a model: `dtype` as stored, `values` stored (two 4-bit numbers share one), `trainable` ones of them."""

    name: str
    dtype: str
    values: int
    value_bytes: int
    trainable: int

    def __str__(self) -> str:
        size = f"{self.values:6,} × {self.dtype:8} = {self.value_bytes:7,} bytes"
        return f"{self.name:18} {size}{f', {self.trainable:,} trainable' if self.trainable else ''}"


def parts(model) -> list[Part]:
    """What a model consists of: its variables by kind and dtype, in the order in which they come."""
    found: dict[tuple[str, str], list[int]] = {}
    for variable in model.weights:
        sums = found.setdefault((_kind(variable.path), variable.dtype), [0, 0])
        count = math.prod(variable.shape)
        sums[0] += count
        sums[1] += count if variable.trainable else 0
    return [
        Part(name, dtype, values, values * getattr(torch, dtype).itemsize, trainable)
        for (name, dtype), (values, trainable) in found.items()
    ]


def _inputs(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Keras' two inputs, nothing padded."""
    return {"token_ids": ids, "padding_mask": np.ones_like(ids)}


_KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("adapter", lambda path: "/lora_" in path),
    ("embedding and head", lambda path: path.startswith("token_embedding")),
    ("attention", lambda path: "/attention/" in path),
    ("feed-forward", lambda path: "/ffw_" in path),
    ("norms", lambda path: path.endswith("/scale")),
)


def _kind(path: str) -> str:
    """Which part of `parts` a variable belongs to."""
    return next(name for name, fits in _KINDS if fits(path))
