"""Small instances of the explorers of notebooks 09 to 14, for tests."""

import math

import numpy as np
import torch

from lab_utils.finetune import Encoded
from lab_utils.finetune.recipe import Recipe
from lab_utils.recorded.pictures import Samples
from lab_utils.sweep.summary import frame_of
from lab_utils.sweep.table import COLUMNS
from lab_utils.sweep.trial import Trial
from lab_utils.widgets.conversation_explorer import ConversationExplorer
from lab_utils.widgets.merge_explorer import MergeExplorer
from lab_utils.widgets.picture_explorer import PictureExplorer
from lab_utils.widgets.sweep_explorer import SweepExplorer
from lab_utils.widgets.variant_explorer import VariantExplorer


class Turns(Encoded):
    """Turns of four tokens; every second one is an answer, its first token apart."""

    def labels(self, supervise_end: bool = True) -> list[int]:
        return [token if place // 4 % 2 and place % 4 else -100 for place, token in enumerate(self.input_ids)]


class Spelled:
    """A tokenizer that can only read back: token 0 ends a line."""

    def decode(self, tokens) -> str:
        return "".join(f" <{token}>" if token else "\n" for token in tokens)


def conversation_explorer() -> ConversationExplorer:
    """Six chats of 8 to 48 tokens, of one to six answers."""
    chats = [[place % 7 for place in range(8 * answers)] for answers in (3, 1, 6, 2, 2, 4)]
    return ConversationExplorer(Spelled(), [Turns(chat, 5) for chat in chats])


def merge_explorer() -> MergeExplorer:
    """A Gaussian weight of 40 × 512, of which 32 rows are shown, and an update of full rank."""
    generator = torch.Generator().manual_seed(0)
    weight, update = torch.randn(2, 40, 512, generator=generator)
    return MergeExplorer(weight, 0.01 * update, rank=3)


def sweep_row(seed: int, loss: float, *, method: str = "adapter", shots: int = 0, problem: str = "", **changes) -> dict:
    """A row as `sweep.read_rows` gives it: the sweep's middle setting with some changed, and made-up results."""
    settings = {"model": "smollm2-135m", "steps": 32, "train_examples": 128, "rank": 8} | changes
    settings["alpha"] = changes.get("alpha", 2.0 * settings["rank"])
    trial = Trial(recipe=Recipe(seed=seed, **settings), method=method, shots=shots)
    results = {
        "trainable_parameters": 1000 * settings["rank"], "training_cpu_seconds": 50 + seed, "validation_loss": loss,
        "test_loss": 2 * loss, "validation_exact": 1 - loss, "test_exact": 1 - 2 * loss,
    }  # fmt: skip
    found = {"method": method, "shots": shots, **trial.settings, **({} if problem else results), "problem": problem}
    return {name: str(found.get(name, "")) for name in COLUMNS}


def sweep_rows() -> list[dict]:
    """A small sweep: ranks, layers, bases, alpha against learning rate, both scaling rules, and references."""
    settings = [
        {"rank": 1}, {"rank": 8}, {"rank": 64},
        {"rank": 8, "target_modules": "qv"}, {"rank": 1, "target_modules": "qv"},
        {"quantization": "none"}, {"alpha": 4.0, "learning_rate": 0.008}, {"learning_rate": 0.008}, {"alpha": 64.0},
        {"rank": 1, "alpha": 16.0}, {"rank": 64, "alpha": 16.0}, {"train_examples": 16}, {"dropout": 0.1},
        {"rank": 1, "alpha": 2 * math.sqrt(8), "use_rslora": True},
        {"rank": 64, "alpha": 2 * math.sqrt(8), "use_rslora": True},
        {"method": "full", "quantization": "none", "learning_rate": 2e-4}, {"method": "prompt", "shots": 4},
    ]  # fmt: skip
    rows = [
        sweep_row(seed, round(0.1 + 0.013 * number + 0.004 * seed * (number % 3), 4), **one)
        for number, one in enumerate(settings)
        for seed in range(3)
    ]
    alone = [
        sweep_row(0, 0.05, method="full", quantization="none", learning_rate=1e-4),
        sweep_row(0, 0.5, method="prompt"), sweep_row(3, 9.0, problem="The loss is not a number."),
    ]  # fmt: skip
    return rows + alone


def sweep_explorer() -> SweepExplorer:
    return SweepExplorer(frame_of(sweep_rows()))


def variant_explorer() -> VariantExplorer:
    return VariantExplorer()


def picture_samples() -> Samples:
    """Three ranks at four strengths, two prompts, 6 × 6 pixels of one colour each: at strength 0 the same for all."""
    ranks, strengths, size = (1, 2, 4), (0.0, 0.5, 1.0, 1.5), 6
    generator = np.random.default_rng(0)
    base = generator.integers(60, 120, (1, 2, 3))
    style = generator.integers(-40, 80, (len(ranks), *base.shape))
    rows = [base + strength * one for one in style for strength in strengths]
    adapters = {
        rank: {"trainable_parameters": 1200 * rank, "file_bytes": 5000 * rank, "loss": 0.1 / rank, "seconds": 9.0}
        for rank in ranks
    }
    sheet = np.concatenate(rows).astype(np.uint8).repeat(size, axis=0).repeat(size, axis=1)
    return Samples(size, ranks, strengths, ("a red house", "a blue boat"), adapters, sheet)


def picture_explorer() -> PictureExplorer:
    return PictureExplorer(picture_samples())
