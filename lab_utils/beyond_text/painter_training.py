"""Teach a painter: all of a tiny one, or an adapter on any."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import LabError
from ..files import user_path
from ..finetune.optimizer import descend, set_rate
from .drawings import COLOURS, NEW_THING, THINGS, caption, draw
from .larger import STABLE_DIFFUSION
from .painter import Painter, autocast, encode_pictures, read
from .painter_states import alone, restore, save

# Pairs that the tiny painter never sees: each of their words it knows from other pairs.
HELD_OUT = (("boat", "purple"), ("fish", "yellow"), ("flower", "blue"), ("house", "green"))
PARTS = [  # of diffusers' U-Net, by the ends of their names: attention and feed-forward, convolutions, time
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "conv_in", "conv_out", "time_emb_proj",
]  # fmt: skip
STYLED = ("house", "boat", "car", "fish")  # the only things that an adapter for a style is shown


@dataclass(frozen=True, kw_only=True)
class PainterRecipe:
    """How to train a painter.

    Parameters
    ----------
    steps : int >= 1
    learning_rate : float in (0, 1), after the first steps; it falls to almost nothing over the last 40 %
    batch_size : int >= 1, pictures a step
    drop_captions : float in [0, 1), share of the pictures shown without their caption, which guidance needs
    average : float in [0, 1), weight of the past in the running average of the weights, which is what is kept
    seed : int >= 0
    checkpoint_every : int >= 1, steps

    Raises
    ------
    LabError
        Names the value and its range.
    """

    steps: int = 800
    learning_rate: float = 1.5e-3
    batch_size: int = 32
    drop_captions: float = 0.1
    average: float = 0.99
    seed: int = 0
    checkpoint_every: int = 100

    def __post_init__(self):
        ranges = {
            "steps": (1, math.inf), "batch_size": (1, math.inf), "checkpoint_every": (1, math.inf),
            "seed": (0, math.inf), "learning_rate": (1e-12, 1 - 1e-12), "drop_captions": (0, 1 - 1e-12),
            "average": (0, 1 - 1e-12),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise LabError(f"{name}={getattr(self, name)} is out of range: see painter_training.PainterRecipe.")

    def learning_rate_at(self, step: int) -> float:
        """The rate of the step after `step` finished ones: rising over 50 at most, flat, falling over the last 40 %."""
        rising = (step + 1) / min(50, max(1, self.steps // 10))
        falling = (self.steps - step) / (0.4 * self.steps)
        return self.learning_rate * min(1.0, rising, max(0.02, falling))


def first_pictures(copies: int = 30, size: int = 32) -> tuple[list, list[str]]:
    """What the tiny painter learns from: all things but the new one, in all colours but the held-out pairs.

    Returns
    -------
    (pictures, captions) : `copies` drawings of each pair, one of five in chalk, each placed by its own seed
    """
    pairs = [(thing, colour) for thing in THINGS if thing != NEW_THING for colour in COLOURS]
    pairs = [pair for pair in pairs if pair not in HELD_OUT]
    styles = ("chalk" if copy % 5 == 0 else "ink" for copy in range(copies))
    return _drawn([(*pair, style) for style in styles for pair in pairs], size, first_seed=0)


def style_pictures(
    things: Sequence[str] = STYLED, style: str = "neon", copies: int = 4, size: int = 32
) -> tuple[list, list[str]]:
    """A few things in every colour and one style: what an adapter learns from.

    Returns
    -------
    (pictures, captions) : `copies` drawings of each pair, placed otherwise than in `first_pictures`
    """
    wanted = [(thing, colour, style) for thing in things for colour in COLOURS] * copies
    return _drawn(wanted, size, first_seed=10_000)


def _drawn(wanted: list[tuple[str, str, str]], size: int, first_seed: int) -> tuple[list, list[str]]:
    """Drawings of (thing, colour, style), and their captions."""
    pictures = [
        draw(thing, colour, size=size, seed=first_seed + number, style=style)
        for number, (thing, colour, style) in enumerate(wanted)
    ]
    return pictures, [caption(*one) for one in wanted]


def train_base(painter: Painter, recipe: PainterRecipe, folder: str | Path, **options) -> list[dict]:
    """Train all of the tiny painter on `first_pictures`; nothing is done to one that can paint already.

    Returns
    -------
    The history, as `train` gives it; empty if there was nothing to do
    """
    if painter.ready:
        return []
    models = (painter.unet, painter.text_encoder)
    for model in models:
        model.requires_grad_(True)
    try:
        history = train(painter, *first_pictures(size=painter.size), recipe, folder, **options)
    finally:
        for model in models:
            model.requires_grad_(False)
    painter.ready = True
    return history


def adapter_recipe(painter: Painter, steps: int = 150) -> PainterRecipe:
    """How to train an adapter: the tiny painter with large steps, Stable Diffusion with small ones, two at a time."""
    if painter.name == "tiny":
        return PainterRecipe(steps=steps, learning_rate=5e-3, average=0.95)
    return PainterRecipe(steps=steps, learning_rate=STABLE_DIFFUSION.learning_rate, batch_size=2, average=0.95)


def train(painter: Painter, pictures: Sequence, captions: Sequence[str], recipe: PainterRecipe, folder: str | Path, *,
          on_step: Callable[[list[dict]], object] | None = None) -> list[dict]:
    """Train what has `requires_grad`: noise is added to pictures, and the U-Net says what was below it.

    Killed at any step, the same call goes on from the last checkpoint in `folder`, with the numbers that an
    uninterrupted run has. A finished run is loaded. The average of the weights is what the painter has in the end.

    Parameters
    ----------
    pictures : of PIL.Image.Image, `painter.size` pixels a side
    captions : of str, as many
    recipe : PainterRecipe
    folder : path; the file in it is named after everything that decides the result, so runs never mix
    on_step : function of the history so far, called after every step, and once for a finished run

    Returns
    -------
    list of {"step", "loss", "seconds", "pictures"}, one for each step; the loss is a mean square error

    Raises
    ------
    LabError
        Nothing is trainable, pictures and captions differ in number, the loss is not finite, `folder` cannot be read or
        written, or another process trains the same there.

    Source: Ho et al. 2020 (DDPM), section 3, https://arxiv.org/abs/2006.11239; the clean picture as the target:
    Salimans and Ho 2022, section 4, https://arxiv.org/abs/2202.00512
    """
    models = {"unet": painter.unet, "text_encoder": painter.text_encoder}
    trained = {
        f"{part}.{name}": parameter for part, model in models.items() for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }  # fmt: skip
    if not trained:
        raise LabError("Nothing in this painter is trainable: add an adapter first, or use train_base.")
    if len(pictures) != len(captions) or not captions:
        raise LabError(f"{len(pictures)} pictures and {len(captions)} captions: give one caption a picture.")
    clean = encode_pictures(painter, pictures)
    path = user_path(folder) / f"{_fingerprint(painter, trained, clean, captions, recipe)}.pt"
    with alone(path):
        return _learn(painter, list(trained.values()), clean, captions, recipe, path, on_step)


def _learn(
    painter: Painter, parameters: list, clean, captions, recipe: PainterRecipe, path: Path, on_step
) -> list[dict]:
    """Go on from the state in `path`, if there is one, to the last step; returns the history."""
    import torch

    for parameter in parameters:
        parameter.data = parameter.data.float()  # in half precision small steps would be rounded away
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    average = [parameter.detach().clone() for parameter in parameters]
    scaler = torch.amp.GradScaler(painter.device.kind, enabled=painter.dtype == torch.float16)
    history = restore(path, parameters, average, optimizer, scaler)
    started = len(history)
    for model in (painter.unet, painter.text_encoder):
        model.train()
    for step in range(started, recipe.steps):
        began = time.perf_counter()
        loss = _loss(painter, clean, captions, recipe, step)
        if not math.isfinite(value := loss.item()):
            raise LabError(f"The loss is {value} at step {step + 1}: lower learning_rate ({recipe.learning_rate:g}).")
        optimizer.zero_grad()
        set_rate(optimizer, recipe.learning_rate_at(step))
        descend(loss, optimizer, scaler)
        past = min(recipe.average, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - past)
        seconds = time.perf_counter() - began
        history.append({"step": step + 1, "loss": value, "seconds": seconds, "pictures": recipe.batch_size})
        if len(history) % recipe.checkpoint_every == 0 and len(history) < recipe.steps:
            save(path, parameters, average, optimizer, scaler, history)
        if on_step:
            on_step(history)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    if started < recipe.steps:
        save(path, average, average, None, None, history)
    elif on_step:
        on_step(history)  # so that a curve is there for a run that was loaded, too
    return history


def _loss(painter: Painter, clean, captions: Sequence[str], recipe: PainterRecipe, step: int):
    """The mean square error on the pictures, moments and noise of one step, which its number decides."""
    import torch

    chance = torch.Generator().manual_seed(1_000_003 * recipe.seed + step)
    chosen = torch.randint(len(captions), (recipe.batch_size,), generator=chance)
    dropped = torch.rand(recipe.batch_size, generator=chance) < recipe.drop_captions
    moments = torch.randint(painter.scheduler.config.num_train_timesteps, (recipe.batch_size,), generator=chance)
    picked = clean[chosen.to(clean.device)]
    noise = torch.randn(picked.shape, generator=chance).to(clean.device)
    moments = moments.to(clean.device)
    noisy = painter.scheduler.add_noise(picked, noise, moments)
    kind = painter.scheduler.config.prediction_type
    if kind == "v_prediction":
        target = painter.scheduler.get_velocity(picked, noise, moments)
    else:
        target = {"sample": picked, "epsilon": noise}[kind]
    with autocast(painter):
        words = read(painter, ["" if drop else captions[place] for place, drop in zip(chosen, dropped, strict=True)])
        answer = painter.unet(noisy, moments, words).sample
    return torch.nn.functional.mse_loss(answer.float(), target)


def _fingerprint(painter: Painter, trained: dict, clean, captions: Sequence[str], recipe: PainterRecipe) -> str:
    """Ten signs that change with anything that decides the result: recipe, data, and where the weights start."""
    settings = {name: value for name, value in asdict(recipe).items() if name != "checkpoint_every"}
    told = hashlib.sha256(repr((painter.name, settings, list(captions), sorted(trained))).encode())
    told.update(clean.cpu().numpy().tobytes())
    for model in (painter.unet, painter.text_encoder):
        for parameter in model.parameters():
            told.update(repr(parameter.detach().double().sum().item()).encode())
    return told.hexdigest()[:10]
