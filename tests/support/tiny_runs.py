"""Training runs of a tiny random float32 Llama in nf4, in a process alone or by torchrun in two.

    torchrun --nproc_per_node 2 tests/support/tiny_runs.py FOLDER

FOLDER holds `tiny`, the model. Two processes leave four runs there: `ddp`, and with FSDP `sharded`, `resumed` after an
interruption, and `plain`, whose base is not quantized. What each process held goes to `held-<rank>.json`.
"""

import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from lab_utils.device import Device
from lab_utils.finetune import run as module
from lab_utils.finetune import starting, training
from lab_utils.finetune.recipe import Recipe
from lab_utils.folders import ROOT
from lab_utils.quiet import quiet

CONFIG = ROOT / "deploy" / "cluster" / "fsdp_qlora.yaml"
EXACT = Device("cpu", "any", "float32", "so that runs agree to rounding")
RECIPE = Recipe(
    model="smollm2-135m", steps=3, batch_size=4, train_examples=16, checkpoint_every=1, rank=4, alpha=8,
    gradient_checkpointing=True,
)  # fmt: skip


def save_tiny(folder: Path) -> None:
    """Write the model that all runs begin with."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def load_tiny(folder: Path, quantization: str = "nf4", sharded: bool = False):
    """(model, tokenizer) as `load_base` gives them: the tiny model, and the embedded one's tokenizer."""
    from transformers import AutoModelForCausalLM

    from lab_utils.models.registry import keep_weights_trainable, load_tokenizer, quantization_config

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=quantization_config(quantization, EXACT, sharded), dtype=torch.float32,
            device_map={"": "cpu"}, attn_implementation="eager",
        )  # fmt: skip
    keep_weights_trainable(model)
    return model, load_tokenizer()


@contextlib.contextmanager
def as_tiny(folder: Path):
    """A context in which `finetune` finds the tiny model in `folder` for the embedded one, and float32."""

    def load(name, quantization, device, verbose, *, sharded):
        return load_tiny(folder / "tiny", quantization, sharded)

    with mock.patch.object(starting, "find_device", lambda: EXACT), mock.patch.object(training, "load_base", load):
        yield


def train(folder: Path, name: str, fsdp: Path | None = None, quantization: str = "nf4"):
    """`finetune` of the tiny model in `folder`, into its subfolder `name`."""
    with as_tiny(folder):
        return module.finetune(replace(RECIPE, quantization=quantization), folder / name, fsdp=fsdp, progress=False)


def stopping_after(steps: int):
    """A context in which training stops there, in every process, as Ctrl-C does."""
    take_step = module.Trainer.take_step

    def take_or_stop(self, step):
        if step == steps:
            raise KeyboardInterrupt
        return take_step(self, step)

    return mock.patch.object(module.Trainer, "take_step", take_or_stop)


def held(model) -> dict:
    """{name: (bytes here, bytes of the whole)} of a model's parameters."""
    parts = {name: one.to_local() if hasattr(one, "to_local") else one for name, one in model.named_parameters()}
    return {name: (parts[name].nbytes, one.numel() * one.element_size()) for name, one in model.named_parameters()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train(folder, "ddp")
    run = train(folder, "sharded", CONFIG)
    (folder / f"held-{os.environ['RANK']}.json").write_text(json.dumps(held(run.model)))
    with contextlib.suppress(KeyboardInterrupt), stopping_after(2):
        train(folder, "resumed", CONFIG)
    assert train(folder, "resumed", CONFIG).resumed_from == 2
    train(folder, "plain", CONFIG, "none")
