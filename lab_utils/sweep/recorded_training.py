"""Training for a record: an interrupted run goes on from its checkpoint, and what it took is measured."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..files import replacing_file
from ..finetune import build_supervised
from ..finetune.full import training_steps
from ..lora import adapted_layers
from ..memory import saved_bytes
from ..variants import learned_update
from .evidence import Run, packed


class Checkpoint:
    """Where an interrupted run goes on: the trained tensors, the optimizer, the losses so far.

    Parameters
    ----------
    path : Path of a file
    every : int >= 1, steps between two saves; there is none after the last step
    """

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every

    def save(self, parameters, optimizer, losses: list[float], seconds: list[float]) -> None:
        """Written whole or not at all."""
        state = {"parameters": [one.detach() for one in parameters], "optimizer": optimizer.state_dict()}
        with replacing_file(self.path) as new:
            torch.save(state | {"losses": losses, "seconds": seconds}, new)

    def restore(self, parameters, optimizer) -> tuple[list[float], list[float]]:
        """Put everything in place; returns (losses, seconds), empty if there is nothing that can be read."""
        try:
            state = torch.load(self.path, weights_only=True)
        except Exception:  # no file, or a damaged one, on which torch raises what it likes
            return [], []
        with torch.no_grad():
            for parameter, value in zip(parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        return state["losses"], state["seconds"]

    def drop(self) -> None:
        """The run is done."""
        self.path.unlink(missing_ok=True)


def train(
    model, tokenizer, run: Run, rows, optimizer, checkpoint: Checkpoint | None = None,
    wait: Callable[[], object] = lambda: None, **options,
) -> dict:  # fmt: skip
    """Train what the optimizer holds, from where the checkpoint is.

    Parameters
    ----------
    model, tokenizer, rows, optimizer, options : as for `full_finetune.training_steps`
    run : Run
    checkpoint : Checkpoint, optional
    wait : function, called after each step; its time is not counted

    Returns
    -------
    dict, what a line of the evidence says about training: trained_parameters, optimizer_bytes, cpu_seconds_a_step
    (median), training_cpu_seconds (of all calls), training_losses (packed)

    Raises
    ------
    LabError
        The loss is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses, seconds = checkpoint.restore(parameters, optimizer) if checkpoint else ([], [])
    began = time.process_time()
    for loss in training_steps(model, tokenizer, run.recipe, rows, optimizer, done=len(losses), **options):
        seconds.append(time.process_time() - began)
        losses.append(loss)
        if checkpoint and len(losses) % checkpoint.every == 0 and len(losses) < run.recipe.steps:
            checkpoint.save(parameters, optimizer, losses, seconds)
        wait()
        began = time.process_time()
    model.eval()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    return {
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "optimizer_bytes": sum(moment.numel() * moment.element_size() for moment in moments),
        "cpu_seconds_a_step": round(statistics.median(seconds), 3),
        "training_cpu_seconds": round(sum(seconds), 1),
        "training_losses": packed(losses),
    }


def batch_bytes(model, batch_size: int) -> int:
    """Bytes that a forward pass of a batch × 80 tokens keeps for the backward pass, in float32, weights not counted."""
    shape = (batch_size, 80)
    ids = torch.randint(3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    labels, supervised = ids.where(torch.arange(80) >= 48, -100), build_supervised(model)
    return saved_bytes(model, lambda: supervised(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels))


@torch.no_grad()
def relative_update(model) -> float:
    """‖W' − W‖ / ‖W‖ over all adapted matrices together."""
    change = weight = 0.0
    for layer in adapted_layers(model).values():
        change += float(learned_update(layer).double().square().sum())
        weight += float(getattr(layer, "original", layer.base_layer.weight).double().square().sum())
    return (change / weight) ** 0.5
