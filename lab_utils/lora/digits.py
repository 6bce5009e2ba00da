"""A small model with a real job: it reads handwritten digits, and learns to read them in a mirror in under a second.

The images are 1,797 of the UCI set "Optical Recognition of Handwritten Digits", 8 × 8 pixels (`data/README.md`).
"""

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from ..errors import choose
from ..folders import DATA
from ..recorded_files import reading
from .whole_model import inject

FILE = DATA / "digits" / "digits.csv.gz"
IMAGES, TRAIN_IMAGES = 1797, 1200
LAYERS = ("first", "second")
TASKS = {
    "upright": lambda images: images,
    "mirrored": lambda images: images.flip(2),
    "turned": lambda images: torch.rot90(images, 1, (1, 2)),
}


@dataclass(frozen=True)
class Digits:
    """`images` float32 (1797, 8, 8) in [0, 1], 1 is ink; `labels` int64 (1797,) in [0, 9]. In a seeded random order."""

    images: Tensor
    labels: Tensor


@cache
def load_digits() -> Digits:
    """All images and their labels.

    Returns
    -------
    Digits. The tensors are shared by all callers: change copies only.

    Raises
    ------
    LabError
        The data file is missing or damaged.

    Source: E. Alpaydin and C. Kaynak 1998, https://doi.org/10.24432/C50P49
    """
    with reading(f"The digits in {FILE}", "Restore them with `git checkout -- data/digits`."):
        with gzip.open(FILE, "rt", encoding="utf-8-sig") as lines:
            rows = torch.tensor([[float(value) for value in line.split(",")] for line in lines], dtype=torch.float32)
        pixels, labels = rows[:, :64], rows[:, 64]
        within = bool(((pixels >= 0) & (pixels <= 16)).all()) and bool(torch.isin(labels, torch.arange(10.0)).all())
        if rows.shape != (IMAGES, 65) or not within:
            raise ValueError(f"{IMAGES} lines of 64 numbers from 0 to 16 and a digit are expected")
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return Digits((rows[:, :64] / 16).reshape(-1, 8, 8), rows[:, 64].long())


def split(task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The digits as one task shows them, cut in two.

    Parameters
    ----------
    task : "upright", "mirrored" (left and right change places) or "turned" (by 90 degrees)

    Returns
    -------
    (train_x, train_y, test_x, test_y): float32 (1200, 64) and (597, 64) in [0, 1], int64 (1200,) and (597,)

    Raises
    ------
    LabError
        Unknown task.
    """
    choose("task", task, TASKS)
    digits = load_digits()
    pixels, labels = TASKS[task](digits.images).reshape(-1, 64), digits.labels
    return pixels[:TRAIN_IMAGES], labels[:TRAIN_IMAGES], pixels[TRAIN_IMAGES:], labels[TRAIN_IMAGES:]


class Reader(nn.Module):
    """Three linear layers with ReLU between: `first` (64 → width), `second` (width → width), `out` (width → 10).

    Parameters
    ----------
    width : int >= 1
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (images, 64) -> logits, float32 (images, 10)."""
        return self.out(torch.relu(self.second(torch.relu(self.first(pixels)))))


def pretrained(seed: int = 0) -> Reader:
    """A new Reader that has learned upright digits: 150 steps, the same weights for the same seed.

    Parameters
    ----------
    seed : int
    """
    return deepcopy(_pretrained(seed))


@cache
def _pretrained(seed: int) -> Reader:
    """Trained once a process; every caller gets a copy."""
    train_x, train_y, _, _ = split("upright")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader()
    fit(reader, reader.parameters(), train_x, train_y, steps=150, learning_rate=3e-3)
    return reader


@contextmanager
def _one_thread():
    """These matrices are so small that a second thread costs more than it saves, and far more on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images `x` (images, 64) whose most likely digit is `y` (images,), in [0, 1]."""
    with torch.no_grad(), _one_thread():
        return float((model(x).argmax(-1) == y).float().mean())


def training(
    model: nn.Module, parameters, x: Tensor, y: Tensor, *, steps: int, learning_rate: float,
    after_step: Callable[[nn.Module], object] | None = None,
) -> Iterator[float]:  # fmt: skip
    """Train on all images at once with Adam, one step for each loss that is asked for.

    Parameters
    ----------
    model : nn.Module, (images, 64) -> (images, 10)
    parameters : the tensors to train, or an optimizer's groups of them
    x, y : as `split` gives them
    steps : int
    learning_rate : float
    after_step : function of the model, called after each step (see `lab_utils.variants.after_step`)

    Yields
    ------
    float, the loss before that step's change, in nats an image
    """
    optimizer = torch.optim.Adam(list(parameters), lr=learning_rate)
    for _ in range(steps):
        with _one_thread():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if after_step:
                after_step(model)
        yield loss.item()


def fit(
    model: nn.Module, parameters, x: Tensor, y: Tensor, *, steps: int = 100, learning_rate: float = 5e-3,
    after_step: Callable[[nn.Module], object] | None = None, on_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train to the end (see `training`); `on_step` is called with 1, 2, … after each step.

    Returns
    -------
    list of float, the loss before each step, in nats an image
    """  # fmt: skip
    losses = []
    steps_taken = training(model, parameters, x, y, steps=steps, learning_rate=learning_rate, after_step=after_step)
    for loss in steps_taken:
        losses.append(loss)
        if on_step:
            on_step(len(losses))
    return losses


def adapted(
    rank: int, alpha: float, *, dropout: float = 0.0, use_rslora: bool = False, layers=LAYERS, seed: int = 1
) -> Reader:
    """A pretrained Reader with LoRA on some layers, ready to train: everything else is frozen.

    Parameters
    ----------
    rank : int, 1 to 64; with "out" among the layers, which has 10 outputs, at most 10
    alpha : float > 0
    dropout, use_rslora : as `lab_utils.lora.LoRALinear`
    layers : of "first", "second", "out"
    seed : int, of the initial A

    Raises
    ------
    LabError
        A value is out of its range.
    """
    reader = pretrained()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return inject(reader, list(layers), rank=rank, alpha=alpha, dropout=dropout, use_rslora=use_rslora)
