"""One process's share of a run: its part of every batch, the optimizer, one step after the other."""

import math
import time

from ..errors import LabError
from ..memory.free import free_memory_bytes
from ..printing import say
from .answer_loss import build_supervised
from .batches import collate, plan_batches
from .fsdp import check_shardable, mark_layers, own_part, whole
from .optimizer import build_optimizer, set_rate
from .step_memory import step_memory

SMALLEST_SCALE = 2**-14  # of the loss in float16: from 2**16, after thirty steps in a row that overflowed
MANY_SKIPPED = 10  # steps in a row; at the start one or two are usual, until the scale of the loss is found


class Trainer:
    """One process's share of a run: the wrapped model, the optimizer, the plan of batches.

    Parameters
    ----------
    recipe : Recipe
    device : Device
    accelerator : of `processes.accelerate`
    model : peft model
    examples : Examples
    pad_token_id : int
    optimizer : str, the name in `OPTIMIZERS` of a resumed run's; default as `decide_optimizer` says

    Attributes
    ----------
    need : dict part -> int, bytes that the largest step takes, as `step_need` says before the model is shared out
    """

    def __init__(self, recipe, device, accelerator, model, examples, pad_token_id, optimizer: str | None = None):
        import torch

        from .fourbit import speed_up

        self.recipe, self.device, self.accelerator, self.model = recipe, device, accelerator, model
        self.examples, self.pad_token_id = examples, pad_token_id
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        if recipe.batch_size < self.world:
            raise LabError(f"batch_size={recipe.batch_size} cannot be shared by {self.world} processes: raise it.")
        self.moved, self.gradient_norm, self.skipped_in_a_row = False, 0.0, 0
        self.plan = plan_batches(examples.lengths, recipe.batch_size, recipe.steps, recipe.seed)
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
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.need = self.step_need()
        optimizer = build_optimizer(
            model, recipe.learning_rate, device, weight_decay=recipe.weight_decay, sharded=sharded,
            fits=sum(self.need.values()) <= free_memory_bytes(device.kind), name=optimizer,
        )  # fmt: skip
        self.loss, self.optimizer = accelerator.prepare(loss, optimizer, device_placement=[False, True])
        self.parameters = [p for p in model.parameters() if p.requires_grad]  # cut up, if the run is sharded
        torch.manual_seed(recipe.seed + 1 + self.rank)  # dropout differs from process to process

    def _check_plan(self) -> None:
        """Raise a LabError if a step would have no token to learn: without the end of turn, empty answers have none."""
        for step in range(len(self.plan)):
            if not self.supervised(self.plan[step]):
                raise LabError(f"Step {step + 1} has no token to learn: all its answers are empty. Leave them out.")

    def supervised(self, indices: list[int]) -> int:
        """Tokens of some examples that have a label."""
        return self.examples.supervised(indices, self.recipe.supervise_end)

    def batch(self, examples: list) -> dict:
        """Examples as one batch on this process's device."""
        batch = collate(examples, self.pad_token_id, self.recipe.supervise_end)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def take_step(self, step: int) -> dict:
        """Forward, backward, update; returns the step's row of the history."""
        import torch

        began = time.perf_counter()
        batch = self.plan[step]
        share = self.batch([self.examples[index] for index in batch[self.rank :: self.world]])
        supervised = self.supervised(batch)
        # DDP averages gradients over processes: times world, so that every token of the whole batch counts the same.
        loss = self.loss(**share) * (self.world / supervised)
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.recipe.max_grad_norm)
        rate = self.recipe.learning_rate_at(step)
        set_rate(self.optimizer, rate)
        skipped = self._update()
        self.optimizer.zero_grad()
        mean_loss = float(self.accelerator.reduce(loss.detach().float(), "mean"))
        self.gradient_norm = float(whole(norm))
        self._check_finite(step, mean_loss)
        if self.device.kind == "cuda":
            torch.cuda.synchronize()
        row = {
            "step": step + 1,
            "loss": mean_loss,
            "learning_rate": rate,
            "tokens": sum(self.examples.lengths[index] for index in batch),
            "supervised_tokens": supervised,
            "seconds": time.perf_counter() - began,
        }
        return row | ({"skipped": int(skipped)} if self.accelerator.scaler else {})

    def validation_loss(self, examples) -> float:
        """Mean loss of a validation split, in nats per supervised token: without dropout, nothing is learned.

        Parameters
        ----------
        examples : Examples, the same in every process
        """
        import torch

        size, total = 4 * self.recipe.batch_size, 0.0  # without gradients there is room for more
        order = sorted(range(len(examples)), key=lambda index: examples.lengths[index])
        self.model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(order), size):
                    share = order[start : start + size][self.rank :: self.world]
                    # a process without a share still takes part: a sharded model is put together by all
                    loss = self.loss(**self.batch([examples[index] for index in share or order[:1]]))
                    total += float(loss) if share else 0.0
        finally:
            self.model.train()
        sums = self.accelerator.reduce(torch.tensor(total, device=self.accelerator.device), "sum")
        return float(sums) / examples.supervised(range(len(examples)), self.recipe.supervise_end)

    def _update(self) -> bool:
        """The optimizer's step; True if GradScaler left it out, because a gradient overflowed in float16.

        Its scale tells: it is lowered after such a step and no other. A fused optimizer is called even then.
        """
        scaler = self.accelerator.scaler
        before = scaler.get_scale() if scaler else 0.0
        self.optimizer.step()
        skipped = bool(scaler) and scaler.get_scale() < before
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row == MANY_SKIPPED and self.accelerator.is_main_process:
            say(
                f"Note: {MANY_SKIPPED} steps in a row were left out, because a gradient overflowed in float16. If that "
                f"goes on, lower the learning rate ({self.recipe.learning_rate:g}), take another base, or a GPU with "
                "bfloat16."
            )
        return skipped

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

    def step_need(self) -> dict[str, int]:
        """Bytes that the largest batch takes on top of the loaded model, part by part; moments in float32."""
        sizes = self.examples
        shares = [batch[self.rank :: self.world] for batch in self.plan]
        one = step_memory(
            self.model,
            [(len(share), max(sizes.lengths[i] for i in share), sizes.supervised(share)) for share in shares],
            inner_size=self.device.torch_dtype.itemsize, checkpointing=self.recipe.gradient_checkpointing,
            fused=self.fused,
        )  # fmt: skip
        return {part: size for part, size in one.parts().items() if size}

    def check_memory(self) -> None:
        """Stop with advice if the largest batch would not fit, instead of being killed half-way."""
        need = self.need
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

    def check_moves(self, row: dict) -> None:
        """After the first step that was applied some B must have left zero: else the adapter is not being trained.

        Parameters
        ----------
        row : of the history, as `take_step` returned it
        """
        if self.moved or row.get("skipped"):
            return
        parts = [own_part(p.detach()) for name, p in self.model.named_parameters() if "lora_B" in name]
        if any(bool(part.any()) for part in parts):
            self.moved = True
            return
        what = f"The adapter did not move in step {row['step']}: every lora_B is still zero."
        if self.gradient_norm > 0:
            raise LabError(
                f"{what} A gradient of {self.gradient_norm:.3g} reached it, so the step was too small: raise "
                f"learning_rate ({self.recipe.learning_rate:g})."
            )
        raise LabError(
            f"{what} No gradient reaches it; "
            "reload the base model (it may have been used under no_grad before) and run again."
        )
