"""QLoRA fine-tuning: a 4-bit base, peft adapters, only the answer's tokens in the loss, killed and resumed at will.

    python -m lab_utils.finetune --output runs/bookings --rank 16 --steps 100
    torchrun --nproc_per_node 2 -m lab_utils.finetune --output runs/two-processes

On several GPUs or machines: deploy/cluster/README.md.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..device import find_device, use_threads
from ..environment import runs_folder
from ..errors import LabError, shown
from ..files import user_path
from ..memory.free import keep_freed_memory
from ..models import default_model, load_base
from ..models.loading import ran_out
from ..models.sources import base_model, name_of
from ..models.weights import refuse_nonfinite, tensors_of
from ..tasks import TASKS, load_task
from .adapter import attach_adapter
from .checkpoint import (
    checkpoints,
    latest_record,
    model_on_record,
    refuse_in_the_way,
    save_adapter,
    set_aside,
    set_damaged_aside,
)
from .conversation import padding_token
from .fit import check_fit, check_values
from .fsdp import WholeAdapter, launched_sharded, read_plugin
from .identity import base_identity, data_digest, refuse_other, tokens_digest
from .optimizer import optimizer_of
from .processes import accelerate, on_main
from .recipe import Recipe
from .resume import load_adapter, restore, save
from .run_lock import held
from .supervision import encode_split
from .trainer import Trainer
from .training_rows import training_rows


@dataclass
class Run:
    """What a fine-tuning run leaves behind.

    Attributes
    ----------
    recipe : Recipe, with "auto" resolved
    output_dir : Path, holds `adapter/` (peft's layout) and the last checkpoints
    history : list of dict, one per step: step (1-based), loss (nats per supervised token), learning_rate, tokens
        (read), supervised_tokens, seconds
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
    def seconds(self) -> float:
        """Training time over all calls, without loading."""
        return sum(row["seconds"] for row in self.history)


def run_folder(recipe: Recipe) -> Path:
    """Where the notebooks keep a recipe's run: `runs/<task>-<fingerprint>`, or the same under `LORA_LAB_RUNS`."""
    return runs_folder() / f"{recipe.task}-{recipe.fingerprint()}"


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
        with model="auto" takes the base's name.
    dataset : optional
        Rows with "prompt" and "answer", both text: a datasets.DatasetDict or a dict with the split "train", a
        datasets.Dataset, or a list of dicts. Default: `load_task(recipe.task)`.
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
        base; another process trains in the folder, or
        something that is not this run's is in the way there; a row of the data or a weight of the base is none; the
        base has no embedding or no position for a token; the step would not fit into memory, the adapter does not move,
        loss or gradient are not finite, a checkpoint cannot be written, or the run cannot be sharded.

    Source: Dettmers et al. 2023 (QLoRA). https://arxiv.org/abs/2305.14314
    """
    from accelerate.utils import broadcast_object_list

    _check_arguments(recipe, output_dir, base)
    output_dir = user_path(output_dir)
    rows = training_rows(load_task(recipe.task) if dataset is None else dataset, recipe.train_examples)
    identity: dict = {"data": data_digest(rows)}
    device = find_device()
    use_threads()
    keep_freed_memory()
    plugin = read_plugin(fsdp, device) if fsdp or launched_sharded() else None
    with accelerate(device, plugin) as accelerator, ExitStack() as until_the_end:
        main = accelerator.is_main_process
        on_main(accelerator, lambda: until_the_end.enter_context(held(output_dir)))
        named = _model_name(recipe, base, output_dir if resume else None)
        recipe = replace(recipe, model=broadcast_object_list([named])[0])  # the first process decides
        on_main(accelerator, lambda: refuse_in_the_way(output_dir))
        if not resume:
            on_main(accelerator, lambda: set_aside(output_dir))
        found = _find(output_dir, recipe, identity, accelerator)

        model, tokenizer = base or load_base(recipe.model, recipe.quantization, device, main, sharded=bool(plugin))
        check_values(model)
        if base:
            own = ((name, one) for name, one in tensors_of(model) if "lora_" not in name)
            refuse_nonfinite(own, "base is damaged", "Load it again, or take another one.")
        examples = encode_split(tokenizer, TASKS[recipe.task], rows, recipe.max_length)
        padding = padding_token(tokenizer)
        check_fit(model, [*(example.input_ids for example in examples), [padding]], way_out="Lower max_length.")
        identity |= {"tokens": tokens_digest(examples), "base": base_identity(model, device)}
        if found:
            refuse_other(output_dir, found[1].get("identity", {}), identity)
        model = attach_adapter(model, recipe)
        if found:
            load_adapter(model, found[0])
        written_by = optimizer_of(found[2]["optimizer"]) if found else None
        trainer = Trainer(recipe, device, accelerator, model, examples, padding, written_by)
        history: list[dict] = []
        if found:
            history = restore(trainer, *found)
            if main:
                print(f"Going on from {found[0].name} of {recipe.steps} steps.")
        run = Run(recipe, output_dir, history, model, tokenizer, resumed_from=len(history))
        if len(history) < recipe.steps:
            trainer.check_memory()
            _train(trainer, run, identity, on_step, progress and main)
        elif on_step and main:
            on_step(history)
        adapter = WholeAdapter(model)
        on_main(accelerator, lambda: save_adapter(run.adapter_dir, adapter.save_pretrained))
        return run


def _check_arguments(recipe, output_dir, base) -> None:
    """Raise a LabError unless these are a recipe, a path, and None or what looks like (model, tokenizer)."""
    if not isinstance(recipe, Recipe):
        raise LabError(f"recipe={shown(recipe)} is out of range: a Recipe, as in Recipe(task='bookings', rank=8).")
    if not isinstance(output_dir, (str, Path)) or not str(output_dir):
        raise LabError(f"output_dir={shown(output_dir)} is out of range: the path of a folder for this run.")
    pair = isinstance(base, (tuple, list)) and len(base) == 2
    if base is not None and not (pair and hasattr(base[0], "named_parameters") and callable(base[1])):
        kind = f"({', '.join(type(one).__name__ for one in base)})" if pair else type(base).__name__
        raise LabError(f"base={kind} is out of range: the pair (model, tokenizer) that load_base returns.")


def _model_name(recipe: Recipe, base, output_dir: Path | None) -> str:
    """The name of the model that is trained: of the base that is given, else of the run's record, else the default.

    Raises
    ------
    LabError
        The recipe names another model than the base that is given.
    """
    if recipe.model == "auto":
        return (base and name_of(base[0])) or (output_dir and model_on_record(output_dir)) or default_model()
    loaded = getattr(base_model(base[0]), "lab_model", None) if base else None  # the name that load_base was given
    if loaded not in (None, recipe.model):
        raise LabError(
            f"recipe.model is {recipe.model!r} and base is {loaded!r}: the run's record would name a model that was "
            f"not trained. Pass load_base({recipe.model!r}, ...), or a recipe with model={loaded!r}."
        )
    return recipe.model


def _find(output_dir: Path, recipe: Recipe, identity: dict, accelerator) -> tuple[Path, dict, dict] | None:
    """The checkpoint to go on from, if there is one, after damaged ones were moved out of its way."""
    say = print if accelerator.is_main_process else lambda text: None
    found = latest_record(output_dir, recipe, say)
    if found:
        if not found[1].get("identity"):
            say(f"Note: {found[0].name} does not say which data and base it was trained with: they are not compared.")
        refuse_other(output_dir, found[1].get("identity", {}), identity)
    accelerator.wait_for_everyone()  # until all have read what is moved now
    on_main(accelerator, lambda: set_damaged_aside(output_dir, found and found[0]))
    return found


def _train(trainer: Trainer, run: Run, identity: dict, on_step, progress: bool) -> None:
    """The loop from the first missing step to the last."""
    import sys

    from tqdm import tqdm

    steps = run.recipe.steps
    bar = tqdm(total=steps, initial=len(run.history), disable=not progress, file=sys.stdout, unit="step", ncols=90)
    try:
        for step in range(len(run.history), steps):
            row = trainer.take_step(step)
            run.history.append(row)
            trainer.check_moves(row)
            if row["step"] % run.recipe.checkpoint_every == 0 or row["step"] == steps:
                save(trainer, run, identity)
            bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['tokens'] / row['seconds']:.0f} tokens/s", refresh=False)
            bar.update()
            if on_step and trainer.accelerator.is_main_process:
                on_step(run.history)
    except KeyboardInterrupt:
        saved = checkpoints(run.output_dir)
        if saved:
            done = int(saved[-1].name.removeprefix("checkpoint-"))
            print(f"\nInterrupted. Steps 1 to {done} are saved in {run.output_dir}: run the same cell again to go on.")
        else:
            print("\nInterrupted before the first checkpoint. Run the same cell again to start over.")
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise LabError(f"The memory ran out in step {len(run.history) + 1} ({error}). {trainer.save_memory}") from error
    finally:
        bar.close()


def read_command(arguments: list[str] | None = None) -> tuple[Recipe, dict]:
    """The command line, a flag for every field of Recipe: the recipe, and the other arguments of `finetune`.

    Raises
    ------
    LabError
        A value is out of its range.
    """
    import argparse

    parser = argparse.ArgumentParser(prog="python -m lab_utils.finetune", description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="folder of this run")
    parser.add_argument("--restart", action="store_true", help="start again; the old run is moved to previous/")
    parser.add_argument("--fsdp", metavar="CONFIG", help="shard the run over the processes, by this accelerate config")
    for one in fields(Recipe):
        parser.add_argument(f"--{one.name.replace('_', '-')}", help=f"default {one.default}")
    values = vars(parser.parse_args(arguments))
    options = {"output_dir": values.pop("output"), "resume": not values.pop("restart"), "fsdp": values.pop("fsdp")}
    return Recipe.from_text({name: text for name, text in values.items() if text is not None}), options


def main(arguments: list[str] | None = None) -> int:
    """Train by the command line's recipe, and say how it ended."""
    import sys

    try:
        recipe, options = read_command(arguments)
        run = finetune(recipe, **options)
    except LabError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    if int(os.environ.get("RANK", 0)) == 0:
        world = int(os.environ.get("WORLD_SIZE", 1))
        print(f"{len(run.history)} steps on {world} process(es), last loss {run.history[-1]['loss']:.4f}, "
              f"{run.seconds:.0f} s of training. Adapter: {run.adapter_dir}")
    return 0
