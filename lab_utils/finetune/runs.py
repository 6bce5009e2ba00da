"""What a run leaves behind, and where the notebooks keep it."""

from dataclasses import dataclass, field
from pathlib import Path

from ..environment import runs_folder
from ..tasks import Task
from ..tasks.registry import find_task
from .recipe import Recipe
from .validation import best_step


@dataclass
class Run:
    """What a fine-tuning run leaves behind.

    Attributes
    ----------
    recipe : Recipe, with "auto" resolved, and the quantization that the base has
    output_dir : Path, holds `adapter/` (peft's layout) and the last checkpoints
    history : list of dict, one per step: step (1-based), loss (nats per supervised token), learning_rate, tokens
        (read), supervised_tokens, seconds; in float16 skipped (1 for a step that was left out, because a gradient
        overflowed); after every `validate_every` steps validation_loss (nats per supervised token)
    model, tokenizer : the peft model with the trained adapter, and its tokenizer
    resumed_from : int, steps that an earlier call had done
    """

    recipe: Recipe
    output_dir: Path
    history: list[dict]
    model: object = field(repr=False)
    tokenizer: object = field(repr=False)
    resumed_from: int = 0

    @property
    def adapter_dir(self) -> Path:
        """Where the trained adapter lies."""
        return self.output_dir / "adapter"

    @property
    def task(self) -> Task:
        """The task that it was trained on."""
        return find_task(self.recipe.task)

    @property
    def best_step(self) -> int:
        """The step (from 1) with the lowest validation loss; 0 if none was measured."""
        return best_step(self.history)

    @property
    def seconds(self) -> float:
        """Training time over all calls, without loading."""
        return sum(row["seconds"] for row in self.history)


def run_folder(recipe: Recipe) -> Path:
    """Where the notebooks keep a recipe's run: `runs/<task>-<fingerprint>`, or the same under `LORA_LAB_RUNS`."""
    name = recipe.own_task.name if recipe.own_task else recipe.task
    return runs_folder() / f"{name}-{recipe.fingerprint()}"
