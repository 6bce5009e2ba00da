"""The order of every run, whatever it trains for: lock, record, base, tokens, adapter, loop, the adapter saved."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..device import use_threads
from ..files import user_path
from ..memory.free import keep_freed_memory
from ..models import load_base
from ..models.registry import keep_weights_trainable
from ..models.weights import refuse_nonfinite, tensors_of
from ..printing import say
from .adapter import attach_adapter
from .checkpoint import latest_record, save_adapter
from .conversation import padding_token
from .examples import Examples
from .fit import check_fit, check_values
from .fsdp import WholeAdapter
from .identity import base_identity
from .identity_differences import refuse_other
from .loop import take_best, train
from .optimizer import optimizer_of
from .processes import accelerate, on_main
from .recipe import Recipe
from .resume import load_adapter, restore
from .run_folders import refuse_in_the_way, set_aside, set_damaged_aside
from .run_lock import held
from .runs import Run
from .starting import as_loaded, model_name
from .trainer import Trainer
from .validation import is_over


class Objective:
    """What a run trains for; `run_training` asks for its parts in the order of its methods here.

    Attributes
    ----------
    identity : dict ready for JSON, known from the start: "data", a digest of the rows, and "rows", their number
    digest : str, of the same rows as tokens, known after `encode`
    outermost : sequence of lists of token ids, known after `encode`: the longest and the highest are among them
    room : int, tokens that are sampled behind these
    validation : Examples whose loss is measured, or None
    """

    identity: dict
    digest: str
    outermost: list
    room: int = 0
    validation: Examples | None = None

    def check_processes(self, count: int) -> None:
        """Raise a LabError if so many processes cannot train for this together; any number can by default."""

    def encode(self, tokenizer, recipe: Recipe) -> None:
        """Turn the rows into tokens; raise a LabError if none fits."""
        raise NotImplementedError

    def attach(self, model, recipe: Recipe):
        """Put on a base the adapter that the run starts from: by default a fresh one."""
        return attach_adapter(model, recipe)

    def trainer(self, recipe, device, accelerator, model, padding: int, optimizer: str | None) -> Trainer:
        """The Trainer of these rows; `optimizer` is that of a resumed run."""
        raise NotImplementedError


def run_training(
    objective: Objective, recipe: Recipe, output_dir: str | Path, resume: bool, base: tuple | None, device, plugin=None,
    *, on_step=None, progress: bool = True,
) -> Run:  # fmt: skip
    """Train for an objective in a folder, from its last checkpoint on if there is one.

    Parameters
    ----------
    objective : Objective
    recipe, output_dir, resume, base, on_step, progress : as in `finetune`, arguments checked
    device : Device, as `starting.device_for` says
    plugin : accelerate's FSDP settings for a sharded run

    Returns
    -------
    Run

    Raises
    ------
    LabError
        As `finetune`.
    """
    from accelerate.utils import broadcast_object_list

    output_dir, identity = user_path(output_dir), dict(objective.identity)
    use_threads()
    keep_freed_memory()
    with accelerate(device, plugin) as accelerator, ExitStack() as until_the_end:
        main = accelerator.is_main_process
        objective.check_processes(accelerator.num_processes)
        on_main(accelerator, lambda: until_the_end.enter_context(held(output_dir)))
        named = model_name(recipe, base, output_dir if resume else None)
        recipe = replace(recipe, model=broadcast_object_list([named])[0])  # the first process decides
        recipe = as_loaded(recipe, base, main)
        on_main(accelerator, lambda: refuse_in_the_way(output_dir))
        if not resume:
            on_main(accelerator, lambda: set_aside(output_dir))
        found = _find(output_dir, recipe, identity, accelerator)

        model, tokenizer = _base(base, recipe, device, main, bool(plugin))
        objective.encode(tokenizer, recipe)
        padding = padding_token(tokenizer)
        check_fit(model, [*objective.outermost, [padding]], objective.room, way_out="Lower max_length.")
        identity |= {"tokens": objective.digest, "base": base_identity(model, device)}
        if found:
            refuse_other(output_dir, found[1].get("identity", {}), identity)
        model = objective.attach(model, recipe)
        if found:
            load_adapter(model, found[0])
        written_by = optimizer_of(found[2]["optimizer"]) if found else None
        trainer = objective.trainer(recipe, device, accelerator, model, padding, written_by)
        history: list[dict] = []
        if found:
            history = restore(trainer, *found)
            if main:
                print(f"Going on from {found[0].name} of {recipe.steps} steps.")
        run = Run(recipe, output_dir, history, model, tokenizer, resumed_from=len(history))
        if not is_over(history, recipe):
            trainer.check_memory()
            train(trainer, run, identity, objective.validation, on_step, progress and main)
        elif on_step and main:
            on_step(history)
        if recipe.keeps_best:
            take_best(run, main)
        adapter = WholeAdapter(model)
        on_main(accelerator, lambda: save_adapter(run.adapter_dir, adapter.save_pretrained))
        return run


def _find(output_dir: Path, recipe: Recipe, identity: dict, accelerator) -> tuple[Path, dict, dict] | None:
    """The checkpoint to go on from, if there is one, after damaged ones were moved out of its way."""
    tell = say if accelerator.is_main_process else lambda text: None
    found = latest_record(output_dir, recipe, tell)
    if found:
        if not found[1].get("identity"):
            tell(f"Note: {found[0].name} does not say which data and base it was trained with: they are not compared.")
        refuse_other(output_dir, found[1].get("identity", {}), identity)
    accelerator.wait_for_everyone()  # until all have read what is moved now
    on_main(accelerator, lambda: set_damaged_aside(output_dir, found and found[0]))
    return found


def _base(base: tuple | None, recipe: Recipe, device, main: bool, sharded: bool) -> tuple:
    """The (model, tokenizer) to train on: what was given, or the recipe's; a LabError for weights that are none."""
    model, tokenizer = base or load_base(recipe.model, recipe.quantization, device, main, sharded=sharded)
    check_values(model)
    if base:
        own = ((name, one) for name, one in tensors_of(model) if "lora_" not in name)
        refuse_nonfinite(own, "base is damaged", "Load it again, or take another one.")
    keep_weights_trainable(model)  # a validation loss is measured without gradients
    return model, tokenizer
