"""Checkpoints without a model: what one needs, with the real function that writes them."""

from pathlib import Path

import torch

from lab_utils.finetune.checkpoint import save_checkpoint
from lab_utils.finetune.recipe import Recipe


class Adapter:
    """In place of a peft model: saves one tensor through safetensors, or fails as it is told."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def save_pretrained(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({"lora_A": torch.ones(2, 3)}, folder / "adapter_model.safetensors")
        if self.error:
            raise self.error


def save(folder: Path, step: int, recipe: Recipe | None = None, model: Adapter | None = None) -> Path:
    history = [{"step": i + 1, "loss": 1.0} for i in range(step)]
    state = {"step": torch.tensor(step), "optimizer": {"state": {}, "param_groups": []}, "scaler": None}
    state |= {"random": [torch.get_rng_state()], "random_cuda": []}
    return save_checkpoint(folder, step, recipe or Recipe(), model or Adapter(), state, history)
