"""One process's share of a run: its part of every batch, the optimizer, checkpoints out and in."""

import math
import time
from pathlib import Path

from ..errors import LabError
from ..memory.free import free_memory_bytes
from ..memory.step import training_step_bytes
from .checkpoint import save_checkpoint
from .checkpoint_files import STATE
from .fsdp import WholeAdapter, check_shardable, mark_layers, own_part, share_out, whole
from .model_sizes import model_sizes
from .optimizer import build_optimizer
from .processes import on_main
from .supervision import IGNORED, build_supervised, collate, plan_batches

SMALLEST_SCALE = 2**-14  # of the loss in float16: from 2**16, after thirty steps in a row that overflowed


class Trainer:
    """One process's share of a run: the wrapped model, the optimizer, the plan of batches."""

    def __init__(self, recipe, device, accelerator, model, examples, pad_token_id):
        import torch

        from .fourbit import speed_up

        self.recipe, self.device, self.accelerator, self.model = recipe, device, accelerator, model
        self.examples, self.pad_token_id = examples, pad_token_id
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        if recipe.batch_size < self.world:
            raise LabError(f"batch_size={recipe.batch_size} cannot be shared by {self.world} processes: raise it.")
        self.moved, self.gradient_norm = False, 0.0
        lengths = [len(example.input_ids) for example in examples]
        self.plan = plan_batches(lengths, recipe.batch_size, recipe.steps, recipe.seed)
        self._check_plan()
        if recipe.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            model.activation_checkpointing_disable()
        loss = build_supervised(model)
        if sharded := accelerator.is_fsdp2:
            check_shardable(model, device.torch_dtype)
            mark_layers(loss, model)
        self.fused = not sharded and speed_up(model) > 0  # the fast way holds on to whole weights
        optimizer = build_optimizer(
            model, recipe.learning_rate, device, weight_decay=recipe.weight_decay, sharded=sharded
        )
        self.loss, self.optimizer = accelerator.prepare(loss, optimizer, device_placement=[False, True])
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        torch.manual_seed(recipe.seed + 1 + self.rank)  # dropout differs from process to process

    def _check_plan(self) -> None:
        """Raise a LabError if a step would have no token to learn: without the end of turn, empty answers have none."""
        for step in range(len(self.plan)):
            if not self.supervised(self.batch(step)):
                raise LabError(f"Step {step + 1} has no token to learn: all its answers are empty. Leave them out.")

    def supervised(self, batch: list) -> int:
        """Tokens of a batch that have a label."""
        return sum(sum(label != IGNORED for label in e.labels(self.recipe.supervise_end)) for e in batch)

    def batch(self, step: int) -> list:
        """The whole batch of `step`, all processes' shares together."""
        return [self.examples[index] for index in self.plan[step]]

    def take_step(self, step: int) -> dict:
        """Forward, backward, update; returns the step's row of the history."""
        import torch

        began = time.perf_counter()
        batch = self.batch(step)
        share = collate(batch[self.rank :: self.world], self.pad_token_id, self.recipe.supervise_end)
        share = {name: tensor.to(self.accelerator.device) for name, tensor in share.items()}
        supervised = self.supervised(batch)
        # DDP averages gradients over processes: times world, so that every token of the whole batch counts the same.
        loss = self.loss(**share) * (self.world / supervised)
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.recipe.max_grad_norm)
        rate = self.recipe.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        mean_loss = float(self.accelerator.reduce(loss.detach().float(), "mean"))
        self.gradient_norm = float(whole(norm))
        self._check_finite(step, mean_loss)
        if self.device.kind == "cuda":
            torch.cuda.synchronize()
        return {
            "step": step + 1,
            "loss": mean_loss,
            "learning_rate": rate,
            "tokens": sum(len(example.input_ids) for example in batch),
            "supervised_tokens": supervised,
            "seconds": time.perf_counter() - began,
        }

    def _check_finite(self, step: int, loss: float) -> None:
        """Raise a LabError if a step's loss or gradient is NaN or infinite: its update has spoilt the adapter."""
        scaler = self.accelerator.scaler  # in float16: leaves a step out that overflows, and tries a smaller scale
        if not math.isfinite(loss):
            what = f"The loss is {loss} at step {step + 1}"
        elif not math.isfinite(self.gradient_norm) and (scaler is None or scaler.get_scale() < SMALLEST_SCALE):
            what = f"The gradient is {self.gradient_norm} at step {step + 1}, with a loss of {loss:.4g}"
        else:
            return
        rate = f"learning_rate ({self.recipe.learning_rate:g})"
        if step == 0:
            raise LabError(
                f"{what}, before {rate} has had any effect: this base cannot be trained in {self.device.compute_dtype} "
                "here. Take another base, or a device that computes in bfloat16 or float32."
            )
        raise LabError(f"{what}: training has blown up. Lower {rate}; the last checkpoint is from before.")

    def check_memory(self) -> None:
        """Stop with advice if the largest batch would not fit, instead of being killed half-way."""
        shares = [[self.examples[index] for index in batch[self.rank :: self.world]] for batch in self.plan]
        need = training_step_bytes(
            tokens=max(len(share) * max(len(e.input_ids) for e in share) for share in shares),
            longest=max(len(example.input_ids) for share in shares for example in share),
            supervised_tokens=max(sum(len(e.input_ids) - e.prompt_length for e in share) for share in shares),
            **model_sizes(self.model),
            trainable_parameters=sum(p.numel() for p in self.parameters),
            dtype_bytes=self.device.torch_dtype.itemsize,
            checkpointing=self.recipe.gradient_checkpointing,
            fused=self.fused,
        )
        free = free_memory_bytes(self.device.kind)
        if sum(need.values()) > free:
            largest = max(need, key=need.get)
            raise LabError(
                f"A training step needs about {sum(need.values()) / 2**30:.2f} GiB more, of which {largest} "
                f"{need[largest] / 2**30:.2f}; {free / 2**30:.2f} GiB are free. {self.save_memory}"
            )

    @property
    def save_memory(self) -> str:
        """What takes less memory."""
        return (
            f"Make batch_size ({self.recipe.batch_size}) or max_length ({self.recipe.max_length}) smaller, set "
            "gradient_checkpointing=True, or close other programs and notebooks."
        )

    def check_moves(self) -> None:
        """After the first step some B must have left zero: else the adapter is not being trained."""
        if self.moved or self.accelerator.optimizer_step_was_skipped:  # an overflow in float16: the next step tells
            return
        parts = [own_part(p.detach()) for name, p in self.model.named_parameters() if "lora_B" in name]
        if any(bool(part.any()) for part in parts):
            self.moved = True
            return
        what = "The adapter did not move in step 1: every lora_B is still zero."
        if self.gradient_norm > 0:
            raise LabError(
                f"{what} A gradient of {self.gradient_norm:.3g} reached it, so the step was too small: raise "
                f"learning_rate ({self.recipe.learning_rate:g})."
            )
        raise LabError(
            f"{what} No gradient reaches it; "
            "reload the base model (it may have been used under no_grad before) and run again."
        )

    def save(self, run, identity: dict) -> None:
        """Write a checkpoint from the main process, every process's random state in it."""
        import torch
        from accelerate.utils import gather_object

        state = {
            "optimizer": whole(self.optimizer.optimizer.state_dict()),
            "random": gather_object([torch.get_rng_state()]),
            "random_cuda": gather_object([torch.cuda.get_rng_state()]) if self.device.kind == "cuda" else [],
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }
        adapter, step = WholeAdapter(self.model), len(run.history)
        on_main(
            self.accelerator,
            lambda: save_checkpoint(run.output_dir, step, self.recipe, adapter, state, run.history, identity),
        )

    def restore(self, folder: Path, record: dict, state: dict) -> list[dict]:
        """Put a checkpoint's optimizer and random state in place; returns its history."""
        if len(state["random"]) != self.world:
            raise LabError(
                f"{folder} was written by {len(state['random'])} processes and this run has {self.world}. "
                "Start as many, or take another output_dir."
            )
        if bool(state["random_cuda"]) != (self.device.kind == "cuda"):
            raise LabError(
                f"{folder} was written on a {'GPU' if state['random_cuda'] else 'CPU'} and this run is on a "
                f"{self.device.kind.upper()}: their optimizers keep other numbers. Go on there, or take another "
                "output_dir."
            )
        self.moved = True
        try:
            self._put(state)
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise LabError(
                f"{folder / STATE} does not fit this run ({type(error).__name__}: {error}). Delete {folder.name}: the "
                "run then goes on from the checkpoint before it."
            ) from error
        return record["history"]

    def _put(self, state: dict) -> None:
        """Put optimizer and random state in place."""
        import torch

        self.optimizer.optimizer.load_state_dict(share_out(state["optimizer"], self.parameters))
        torch.set_rng_state(state["random"][self.rank])
        if state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][self.rank])
        if state["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def load_adapter(model, folder: Path) -> None:
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
            f"there and {here.get(name)} here. It is another model's: take another output_dir, or pass resume=False."
        )
    set_peft_model_state_dict(model, saved)
