"""QLoRA fine-tuning: a 4-bit base, peft adapters, only the answer's tokens in the loss, killed and resumed at will."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..device import use_threads
from ..errors import LabError
from ..files import user_path
from ..memory.free import keep_freed_memory
from ..models import load_base
from ..models.registry import keep_weights_trainable
from ..models.weights import refuse_nonfinite, tensors_of
from ..tasks import load_task
from ..tasks.registry import find_task
from .adapter import attach_adapter
from .checkpoint import latest_record, save_adapter
from .conversation import padding_token
from .examples import Examples
from .fit import check_fit, check_values
from .fsdp import WholeAdapter, launched_sharded, read_plugin
from .identity import base_identity, data_digest
from .identity_differences import refuse_other
from .loop import take_best, train
from .optimizer import optimizer_of
from .processes import accelerate, on_main
from .recipe import Recipe
from .resume import load_adapter, restore
from .run_folders import refuse_in_the_way, set_aside, set_damaged_aside
from .run_lock import held
from .runs import Run
from .starting import check_arguments, device_for, model_name
from .supervision import encode_row
from .trainer import Trainer
from .training_rows import training_rows
from .validation import is_over


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

    check_arguments(recipe, Recipe(), output_dir, base)
    output_dir = user_path(output_dir)
    dataset = load_task(recipe.task) if dataset is None else dataset
    rows = training_rows(dataset, recipe.train_examples)
    held_out = training_rows(dataset, recipe.validation_examples, "validation") if recipe.validate_every else None
    identity: dict = {"data": data_digest(rows), "rows": len(rows)}
    device = device_for(None if fsdp or launched_sharded() else base)
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
        named = model_name(recipe, base, output_dir if resume else None)
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
            train(trainer, run, identity, validation, on_step, progress and main)
        elif on_step and main:
            on_step(history)
        if recipe.keeps_best:
            take_best(run, main)
        adapter = WholeAdapter(model)
        on_main(accelerator, lambda: save_adapter(run.adapter_dir, adapter.save_pretrained))
        return run


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
