"""QLoRA fine-tuning: a 4-bit base, peft adapters, only the answer's tokens in the loss, killed and resumed at will."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import LabError
from ..printing import say
from ..tasks import OwnTask, load_task
from ..tasks.registry import find_task
from .examples import Examples
from .fsdp import launched_sharded, read_plugin
from .identity import data_digest
from .recipe import Recipe
from .runs import Run
from .starting import check_arguments, device_for
from .supervision import encode_row
from .trainer import Trainer
from .training import Objective, run_training
from .training_rows import training_rows
from .turns import reads_tools


def finetune(
    recipe: Recipe,
    output_dir: str | Path,
    resume: bool = True,
    *,
    base: tuple | None = None,
    dataset=None,
    fsdp: str | Path | None = None,
    on_step: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
) -> Run:
    """Fine-tune a model by a recipe; killed at any step, the same call goes on from the last checkpoint.

    On a CPU the resumed run ends with the same weights as an uninterrupted one, bit for bit. One process, or one group
    of them, trains in a folder at a time.

    Parameters
    ----------
    recipe : Recipe
    output_dir : path of a folder for this run alone, `~` expanded
    resume : bool
        Go on with the checkpoints in `output_dir` (a finished run is loaded at once). False starts again and moves
        the old run to `previous/`, or `previous-2/` and so on.
    base : (model, tokenizer), optional
        What `load_base` returned for this recipe, to save loading it again. An adapter on it is taken off. A recipe
        with model="auto" takes the base's name, and every recipe the base's quantization: a note says so where it is
        another one. The run trains on the device where the base is.
    dataset : optional
        Rows with "prompt" and "answer", both text, or conversations with "messages": a datasets.DatasetDict or a dict
        with the split "train" (and "validation", to measure the loss on it), a datasets.Dataset, or a list of dicts.
        They are asked with the system message of `recipe.task`. Default: `load_task(recipe.task)`.
    fsdp : path of an accelerate configuration file, optional
        Shard base, adapter and optimizer over the processes as it says. Default: what `accelerate launch` was given.
        The model of the Run is then sharded too; the adapter on disk is whole.
    on_step : function, optional
        Called after every step with the history so far (see Run), for a live curve.
    progress : bool
        Print a progress bar with loss, tokens per second and time left.

    Returns
    -------
    Run

    Raises
    ------
    LabError
        The checkpoints are of another recipe, other data or another base; the recipe names another model than the
        base; another process trains in the folder, or something that is not this run's is in the way there; a row of
        the data or a weight of the base is none; the base has no embedding or no position for a token; the step would
        not fit into memory, the adapter does not move, loss or gradient are not finite, a checkpoint cannot be written,
        or the run cannot be sharded.

    Source: Dettmers et al. 2023 (QLoRA). https://arxiv.org/abs/2305.14314
    """
    check_arguments(recipe, Recipe(), output_dir, base)
    own = recipe.own_task if dataset is None else dataset
    if isinstance(own, OwnTask) and not recipe.own_task:
        raise LabError(
            f"dataset is a task of your own, {own.name!r}, and recipe.task is {recipe.task!r}, whose system message "
            "would be trained with, and be on record. Pass it as Recipe(task=…), and leave dataset out."
        )
    dataset = load_task(recipe.task) if dataset is None else dataset
    rows = training_rows(dataset, recipe.train_examples)
    held_out = training_rows(dataset, recipe.validation_examples, "validation") if recipe.validate_every else None
    device = device_for(None if fsdp or launched_sharded() else base)
    plugin = read_plugin(fsdp, device) if fsdp or launched_sharded() else None
    if plugin and recipe.keeps_best:
        raise LabError(
            f"keep_best and patience ({recipe.keep_best}, {recipe.patience}) put an earlier adapter back on the model, "
            "which is not made for a sharded one. Leave them out; validate_every alone works."
        )
    return run_training(
        _Answers(rows, held_out, own if isinstance(own, OwnTask) else None), recipe, output_dir, resume, base, device,
        plugin, on_step=on_step, progress=progress,
    )  # fmt: skip


class _Answers(Objective):
    """To give the data's answers, token by token."""

    def __init__(self, rows, held_out, own: OwnTask | None = None):
        self.rows, self.held_out, self.own = rows, held_out, own
        self.identity = {"data": data_digest(rows), "rows": len(rows)}

    def encode(self, tokenizer, recipe: Recipe) -> None:
        task = find_task(recipe.task)

        unread = []

        def encoded(row):
            if row.get("tools") and not unread and not reads_tools(tokenizer, task, row["messages"], row["tools"]):
                unread.append("tools")
                say("Note: this tokenizer's chat template does not write the tools of a conversation: the model does "
                    "not read what it may call.")  # fmt: skip
            return encode_row(tokenizer, task, row, recipe.turns)

        def examples_of(rows, split="train", name="training"):
            place = partial(self.own.place, split) if self.own else None
            return Examples(encoded, rows, recipe.max_length, split=name, place=place)

        self.examples = examples_of(self.rows)
        self.digest, self.outermost = self.examples.digest, self.examples.outermost
        if self.held_out:
            self.validation = examples_of(self.held_out, "validation", "validation")
            self.outermost = [*self.outermost, *self.validation.outermost]

    def trainer(self, recipe, device, accelerator, model, padding: int, optimizer: str | None) -> Trainer:
        return Trainer(recipe, device, accelerator, model, self.examples, padding, optimizer)
