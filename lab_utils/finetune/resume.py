"""What a run keeps of its state in a checkpoint, and how it goes on from there."""

from itertools import takewhile
from pathlib import Path

from ..errors import LabError
from .checkpoint import save_checkpoint
from .checkpoint_files import STATE
from .fsdp import WholeAdapter, share_out, whole
from .processes import on_main


def save(trainer, run, identity: dict) -> None:
    """Write a checkpoint from the main process, every process's random state in it."""
    import torch
    from accelerate.utils import gather_object

    state = {
        "optimizer": whole(trainer.optimizer.optimizer.state_dict()),
        "random": gather_object([torch.get_rng_state()]),
        "random_cuda": gather_object([torch.cuda.get_rng_state()]) if trainer.device.kind == "cuda" else [],
        "scaler": trainer.accelerator.scaler.state_dict() if trainer.accelerator.scaler else None,
    }
    adapter, step = WholeAdapter(trainer.model), len(run.history)
    on_main(
        trainer.accelerator,
        lambda: save_checkpoint(run.output_dir, step, trainer.recipe, adapter, state, run.history, identity),
    )


def restore(trainer, folder: Path, record: dict, state: dict) -> list[dict]:
    """Put a checkpoint's optimizer and random state in place; returns its history."""
    if len(state["random"]) != trainer.world:
        raise LabError(
            f"{folder} was written by {len(state['random'])} processes and this run has {trainer.world}. "
            "Start as many, or take another output_dir."
        )
    if bool(state["random_cuda"]) != (trainer.device.kind == "cuda"):
        raise LabError(
            f"{folder} was written on a {'GPU' if state['random_cuda'] else 'CPU'} and this run is on a "
            f"{trainer.device.kind.upper()}: they draw other random numbers. Go on there, or take another "
            "output_dir."
        )
    history = record["history"]
    trainer.moved = any(not row.get("skipped") for row in history)
    trainer.skipped_in_a_row = len(list(takewhile(lambda row: row.get("skipped"), reversed(history))))
    try:
        _put(trainer, state)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise LabError(
            f"{folder / STATE} does not fit this run ({type(error).__name__}: {error}). Delete {folder.name}: the "
            "run then goes on from the checkpoint before it."
        ) from error
    return history


def _put(trainer, state: dict) -> None:
    """Put optimizer and random state in place."""
    import torch

    trainer.optimizer.optimizer.load_state_dict(share_out(state["optimizer"], trainer.parameters))
    torch.set_rng_state(state["random"][trainer.rank])
    if state["random_cuda"]:
        torch.cuda.set_rng_state(state["random_cuda"][trainer.rank])
    if state["scaler"] and trainer.accelerator.scaler:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])


def load_adapter(model, folder: Path, way_out: str = "Take another output_dir, or pass resume=False.") -> None:
    """Put a checkpoint's adapter on a model; every tensor of either has its counterpart, or nothing is loaded.

    Raises
    ------
    LabError
        They do not fit: the first tensor that does not is named.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    saved = load_peft_weights(str(folder), device="cpu")
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    there, here = ({name: tuple(one.shape) for name, one in tensors.items()} for tensors in (saved, wanted))
    wrong = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if wrong:
        name = wrong[0]
        raise LabError(
            f"{folder} has {len(there)} tensors and this model's adapter {len(here)}; {name} is {there.get(name)} "
            f"there and {here.get(name)} here. It is another model's. {way_out}"
        )
    set_peft_model_state_dict(model, saved)
