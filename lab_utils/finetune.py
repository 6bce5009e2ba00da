"""QLoRA fine-tuning: a 4-bit base, peft adapters, only the answer's tokens in the loss, killed and resumed at will.

    python -m lab_utils.finetune --output runs/bookings --rank 16 --steps 100
    torchrun --nproc_per_node 2 -m lab_utils.finetune --output runs/two-processes

On several GPUs or machines: deploy/cluster/README.md.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from .adapter import attach_adapter
from .checkpoint import checkpoints, latest_record, save_checkpoint, set_aside
from .device import (
    Device,
    find_device,
    free_memory_bytes,
    keep_freed_memory,
    runs_folder,
    use_threads,
)
from .errors import LabError
from .fsdp import (
    WholeAdapter,
    check_shardable,
    launched_sharded,
    mark_layers,
    own_part,
    put_in_place,
    read_plugin,
    share_out,
    whole,
)
from .memory import training_step_bytes
from .models import default_model, load_base
from .optimizer import build_optimizer
from .recipe import Recipe
from .supervision import IGNORED, build_supervised, collate, encode_split, plan_batches
from .tasks import TASKS, load_task


@dataclass
class Run:
    """What a fine-tuning run leaves behind.

    Attributes
    ----------
    recipe : Recipe, with "auto" resolved
    output_dir : Path, holds `adapter/` (peft's layout) and the last checkpoints
    history : list of dict, one a step: step (1-based), loss (nats a supervised token), learning_rate, tokens
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

    On a CPU the resumed run ends with the same weights as an uninterrupted one, bit for bit.

    Parameters
    ----------
    recipe : Recipe
    output_dir : path of a folder for this run alone
    resume : bool
        Go on with the checkpoints in `output_dir` (a finished run is loaded at once). False starts anew and moves
        the old run to `previous/`.
    base : (model, tokenizer), optional
        What `load_base` returned for this recipe, to save loading it again. An adapter on it is taken off.
    dataset : datasets.DatasetDict, optional
        Default: `load_task(recipe.task)`.
    fsdp : path of an accelerate configuration file, optional
        Shard base, adapter and optimizer over the processes as it says. Default: what `accelerate launch` was given.
        The model of the Run is then sharded too; the adapter on disk is whole.
    on_step : function, optional
        Called after every step with the history so far (see Run), for a live curve.
    progress : bool
        Print a progress bar with loss, tokens a second and time left.

    Returns
    -------
    Run

    Raises
    ------
    LabError
        The checkpoints are another recipe's, the step would not fit into memory, the adapter does not move,
        the loss is not finite, a checkpoint cannot be written, or the run cannot be sharded.

    Source: Dettmers et al. 2023 (QLoRA). https://arxiv.org/abs/2305.14314
    """
    from accelerate.utils import broadcast_object_list
    from peft import load_peft_weights, set_peft_model_state_dict

    output_dir = Path(output_dir)
    device = find_device()
    use_threads()
    keep_freed_memory()
    plugin = read_plugin(fsdp, device) if fsdp or launched_sharded() else None
    with _accelerator(device, plugin) as accelerator:
        main = accelerator.is_main_process
        if recipe.model == "auto":  # by free memory, which may differ between GPUs: the first process decides
            recipe = replace(recipe, model=broadcast_object_list([default_model(device)])[0])
        if not resume and main:
            set_aside(output_dir)
        accelerator.wait_for_everyone()
        found = latest_record(output_dir, recipe)

        task = TASKS[recipe.task]
        model, tokenizer = base or load_base(recipe.model, recipe.quantization, device, main, sharded=bool(plugin))
        rows = (dataset or load_task(recipe.task))["train"]
        if recipe.train_examples is not None:
            rows = rows.select(range(min(recipe.train_examples, len(rows))))
        examples = encode_split(tokenizer, task, rows, recipe.max_length)
        model = attach_adapter(model, recipe)
        if found:
            set_peft_model_state_dict(model, load_peft_weights(str(found[0]), device="cpu"))
        trainer = _Trainer(recipe, device, accelerator, model, examples, tokenizer.pad_token_id)
        history: list[dict] = []
        if found:
            history = trainer.restore(*found)
            if main:
                print(f"Going on from {found[0].name} of {recipe.steps} steps.")
        run = Run(recipe, output_dir, history, model, tokenizer, resumed_from=len(history))
        if len(history) < recipe.steps:
            trainer.check_memory()
            _train(trainer, run, on_step, progress and main)
        elif on_step and main:
            on_step(history)
        adapter = WholeAdapter(model)
        if main:
            adapter.save_pretrained(run.adapter_dir)
        accelerator.wait_for_everyone()
        return run


@contextmanager
def _accelerator(device: Device, plugin=None) -> Iterator:
    """accelerate's view of this process: alone, or one of several under torchrun; with FSDP's `plugin`, sharded.

    Its state is shared in a process, precision included: another trainer (TRL's, say) may have left its own, and gets
    an error where ours is left behind.
    """
    if device.kind == "cpu":
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    launched = os.environ.get("ACCELERATE_USE_FSDP")
    try:
        accelerator = Accelerator(cpu=device.kind == "cpu", mixed_precision=device.mixed_precision, fsdp_plugin=plugin)
        if plugin:
            put_in_place(accelerator, plugin)
        yield accelerator
    finally:
        AcceleratorState._reset_state()
        if launched is None:  # accelerate sets it
            os.environ.pop("ACCELERATE_USE_FSDP", None)


class _Trainer:
    """One process's share of a run: the wrapped model, the optimizer, the plan of batches."""

    def __init__(self, recipe, device, accelerator, model, examples, pad_token_id):
        import torch

        from .fourbit import speed_up

        self.recipe, self.device, self.accelerator, self.model = recipe, device, accelerator, model
        self.examples, self.pad_token_id = examples, pad_token_id
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        if recipe.batch_size < self.world:
            raise LabError(f"batch_size={recipe.batch_size} cannot be shared by {self.world} processes: raise it.")
        lengths = [len(example.input_ids) for example in examples]
        self.plan = plan_batches(lengths, recipe.batch_size, recipe.steps, recipe.seed)
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

    def batch(self, step: int) -> list:
        """The whole batch of `step`, all processes' shares together."""
        return [self.examples[index] for index in self.plan[step]]

    def take_step(self, step: int) -> dict:
        """Forward, backward, update; returns the step's row of the history."""
        import torch

        began = time.perf_counter()
        whole = self.batch(step)
        share = collate(whole[self.rank :: self.world], self.pad_token_id, self.recipe.supervise_end)
        share = {name: tensor.to(self.accelerator.device) for name, tensor in share.items()}
        supervised = sum(sum(label != IGNORED for label in e.labels(self.recipe.supervise_end)) for e in whole)
        # DDP averages gradients over processes: times world, so that every token of the whole batch counts the same.
        loss = self.loss(**share) * (self.world / supervised)
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.parameters, self.recipe.max_grad_norm)
        rate = self.recipe.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        mean_loss = float(self.accelerator.reduce(loss.detach().float(), "mean"))
        if not math.isfinite(mean_loss):
            raise LabError(
                f"The loss is {mean_loss} at step {step + 1}: training has blown up. Lower learning_rate "
                f"({self.recipe.learning_rate:g}); the last checkpoint is from before."
            )
        if self.device.kind == "cuda":
            torch.cuda.synchronize()
        return {
            "step": step + 1,
            "loss": mean_loss,
            "learning_rate": rate,
            "tokens": sum(len(example.input_ids) for example in whole),
            "supervised_tokens": supervised,
            "seconds": time.perf_counter() - began,
        }

    def check_memory(self) -> None:
        """Stop with advice if the largest batch would not fit, instead of being killed half-way."""
        config = self.model.get_base_model().config
        shares = [[self.examples[index] for index in batch[self.rank :: self.world]] for batch in self.plan]
        need = training_step_bytes(
            tokens=max(len(share) * max(len(e.input_ids) for e in share) for share in shares),
            longest=max(len(example.input_ids) for share in shares for example in share),
            supervised_tokens=max(sum(len(e.input_ids) - e.prompt_length for e in share) for share in shares),
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            vocabulary=config.vocab_size,
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
                f"{need[largest] / 2**30:.2f}; {free / 2**30:.2f} GiB are free. Make batch_size "
                f"({self.recipe.batch_size}) or max_length ({self.recipe.max_length}) smaller, set "
                "gradient_checkpointing=True, or close other programs and notebooks."
            )

    def check_moves(self) -> None:
        """After the first step some B must have left zero: else the adapter is not being trained."""
        parts = [own_part(p.detach()) for name, p in self.model.named_parameters() if "lora_B" in name]
        if not any(bool(part.any()) for part in parts):
            raise LabError(
                "The adapter did not move in step 1: every lora_B is still zero. No gradient reaches it; "
                "reload the base model (it may have been used under no_grad before) and run again."
            )

    def save(self, run: Run) -> None:
        """Write a checkpoint from the main process, every process's random state in it."""
        import torch
        from accelerate.utils import gather_object

        state = {
            "optimizer": whole(self.optimizer.optimizer.state_dict()),
            "random": gather_object([torch.get_rng_state()]),
            "random_cuda": gather_object([torch.cuda.get_rng_state()]) if self.device.kind == "cuda" else [],
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }
        adapter = WholeAdapter(self.model)
        if self.accelerator.is_main_process:
            save_checkpoint(run.output_dir, len(run.history), self.recipe, adapter, state, run.history)
        self.accelerator.wait_for_everyone()

    def restore(self, folder: Path, record: dict, state: dict) -> list[dict]:
        """Put a checkpoint's optimizer and random state in place; returns its history."""
        import torch

        if len(state["random"]) != self.world:
            raise LabError(
                f"{folder} was written by {len(state['random'])} processes and this run has {self.world}. "
                "Start as many, or take another output_dir."
            )
        self.optimizer.optimizer.load_state_dict(share_out(state["optimizer"], self.parameters))
        torch.set_rng_state(state["random"][self.rank])
        if state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][self.rank])
        if state["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return record["history"]


def _train(trainer: _Trainer, run: Run, on_step, progress: bool) -> None:
    """The loop from the first missing step to the last."""
    import sys

    from tqdm import tqdm

    steps = run.recipe.steps
    bar = tqdm(total=steps, initial=len(run.history), disable=not progress, file=sys.stdout, unit="step", ncols=90)
    try:
        for step in range(len(run.history), steps):
            row = trainer.take_step(step)
            run.history.append(row)
            if step == 0:
                trainer.check_moves()
            if row["step"] % run.recipe.checkpoint_every == 0 or row["step"] == steps:
                trainer.save(run)
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
    parser.add_argument("--restart", action="store_true", help="start anew; the old run is moved to previous/")
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


if __name__ == "__main__":
    raise SystemExit(main())
