"""QLoRA fine-tuning: a 4-bit base, peft adapters, only the answer's tokens in the loss, killed and resumed at will."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..device import KINDS, find_device, use_threads
from ..environment import runs_folder
from ..errors import LabError, shown
from ..files import user_path
from ..memory.free import keep_freed_memory
from ..models import default_model, load_base
from ..models.loading import ran_out
from ..models.registry import keep_weights_trainable
from ..models.sources import base_model, name_of
from ..models.weights import refuse_nonfinite, tensors_of
from ..tasks import Task, load_task
from ..tasks.registry import find_task
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
from .examples import Examples
from .fit import check_fit, check_values
from .fsdp import WholeAdapter, launched_sharded, read_plugin
from .identity import base_identity, data_digest, refuse_other
from .optimizer import optimizer_of
from .processes import accelerate, on_main
from .recipe import Recipe
from .resume import load_adapter, restore, save
from .run_lock import held
from .supervision import encode_row
from .trainer import Trainer
from .training_rows import training_rows
from .validation import best_step, is_due, is_over


@dataclass
class Run:
    """What a fine-tuning run leaves behind.

    Attributes
    ----------
    recipe : Recipe, with "auto" resolved
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
        with model="auto" takes the base's name. The run trains on the device where the base is.
    dataset : optional
        Rows with "prompt" and "answer", both text, or conversations with "messages": a datasets.DatasetDict or a dict
        with the split "train" (and "validation", to measure the loss on it), a datasets.Dataset, or a list of dicts.
        Default: `load_task(recipe.task)`.
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
    dataset = load_task(recipe.task) if dataset is None else dataset
    rows = training_rows(dataset, recipe.train_examples)
    held_out = training_rows(dataset, recipe.validation_examples, "validation") if recipe.validate_every else None
    identity: dict = {"data": data_digest(rows), "rows": len(rows)}
    device = _device_for(None if fsdp or launched_sharded() else base)
    use_threads()
    keep_freed_memory()
    plugin = read_plugin(fsdp, device) if fsdp or launched_sharded() else None
    if plugin and recipe.keeps_best:
        raise LabError(
            f"keep_best and patience ({recipe.keep_best}, {recipe.patience}) put an earlier adapter back on the model, "
            "which is not made for a sharded one. Leave them out; validate_every alone works."
        )
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
        keep_weights_trainable(model)  # a validation loss is measured without gradients
        task = find_task(recipe.task)

        def encoded(some):
            return Examples(lambda row: encode_row(tokenizer, task, row, recipe.turns), some, recipe.max_length)

        examples, validation = encoded(rows), held_out and encoded(held_out)
        padding = padding_token(tokenizer)
        outermost = [*examples.outermost, *(validation.outermost if validation else []), [padding]]
        check_fit(model, outermost, way_out="Lower max_length.")
        identity |= {"tokens": examples.digest, "base": base_identity(model, device)}
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
        if not is_over(history, recipe):
            trainer.check_memory()
            _train(trainer, run, identity, validation, on_step, progress and main)
        elif on_step and main:
            on_step(history)
        if recipe.keeps_best:
            _take_best(run, main)
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


def _device_for(base):
    """Where a run trains: where the base is that was given, else this machine's device."""
    device = find_device()
    first = next(base[0].parameters(), None) if base else None
    elsewhere = first is not None and first.device.type in KINDS and first.device.type != device.kind
    return find_device(first.device.type) if elsewhere else device


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


def _take_best(run: Run, main: bool) -> None:
    """Put the adapter with the lowest validation loss on the model, from its checkpoint."""
    found = [path for path in checkpoints(run.output_dir) if int(path.name.rpartition("-")[2]) == run.best_step]
    if not found:
        raise LabError(
            f"checkpoint-{run.best_step:06d}, of the lowest validation loss, is no longer in {run.output_dir}. Put it "
            "back, or pass resume=False to train again (the old run is kept in `previous/`)."
        )
    load_adapter(run.model, found[0])
    if main and run.best_step < len(run.history):
        loss = run.history[run.best_step - 1]["validation_loss"]
        print(f"The adapter of step {run.best_step} is kept, of the lowest validation loss ({loss:.3f}).")


def _train(trainer: Trainer, run: Run, identity: dict, validation, on_step, progress: bool) -> None:
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
            if due := is_due(row["step"], run.recipe):
                row["validation_loss"] = trainer.validation_loss(validation)
            over = is_over(run.history, run.recipe)
            if over or row["step"] % run.recipe.checkpoint_every == 0 or (due and run.recipe.keeps_best):
                save(trainer, run, identity)
            held_out = f" (validation {row['validation_loss']:.3f})" if due else ""
            speed = f"{row['tokens'] / row['seconds']:.0f} tokens/s"
            bar.set_postfix_str(f"loss {row['loss']:.3f}{held_out}, {speed}", refresh=False)
            bar.update()
            if on_step and trainer.accelerator.is_main_process:
                on_step(run.history)
            if over:
                if row["step"] < steps and trainer.accelerator.is_main_process:
                    print(f"\nStopped after step {row['step']}: {run.recipe.patience} times in a row the validation "
                          "loss was not lower than before.")
                break
    except KeyboardInterrupt:
        saved = checkpoints(run.output_dir)
        if saved:
            done = int(saved[-1].name.removeprefix("checkpoint-"))
            print(f"\nInterrupted. Steps 1 to {done} are saved in {run.output_dir}: run the same cell again, or the "
                  "same command, to go on.")
        else:
            print("\nInterrupted before the first checkpoint. Run the same cell again, or the same command, to "
                  "start over.")
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise LabError(f"The memory ran out in step {len(run.history) + 1} ({error}). {trainer.save_memory}") from error
    finally:
        bar.close()
