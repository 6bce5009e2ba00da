"""`make bench`: seconds per step and peak memory, ours against TRL's SFTTrainer, in turn in one run.

Every measurement is its own process: it loads the same 4-bit model, trains on the same batches in the same order
with the same schedule, and prints what it measured. The first two steps of each are not counted.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from lab_utils.folders import ROOT

SIDES = {
    "ours": "lab_utils.finetune",
    "trl": "TRL SFTTrainer, as it comes (SDPA attention, checkpointing off)",
    "trl-eager": "TRL SFTTrainer with our model's eager attention",
}


def recipe(steps: int, batch_size: int):
    from lab_utils.finetune.recipe import Recipe

    return Recipe(model="smollm2-135m", steps=steps, batch_size=batch_size, checkpoint_every=10_000)


def measure_ours(steps: int, batch_size: int) -> dict:
    """Train with lab_utils.finetune; returns losses and seconds of every step."""
    from lab_utils.finetune.run import finetune

    with tempfile.TemporaryDirectory() as folder:
        run = finetune(recipe(steps, batch_size), folder, progress=False)
    return {"losses": [r["loss"] for r in run.history], "seconds": [r["seconds"] for r in run.history]}


def measure_trl(steps: int, batch_size: int, attention: str) -> dict:
    """Train with TRL on our batches in our order."""
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from lab_utils.device import find_device
    from lab_utils.finetune.batches import plan_batches
    from lab_utils.finetune.supervision import encode_split, prompt_text
    from lab_utils.models.registry import load_base
    from lab_utils.tasks.registry import TASKS, load_task

    wanted, here = recipe(steps, batch_size), find_device()
    model, tokenizer = load_base(wanted.model, wanted.quantization, verbose=False)
    model.set_attn_implementation(attention)
    task, rows = TASKS[wanted.task], load_task(wanted.task)["train"]
    examples = encode_split(tokenizer, task, rows, wanted.max_length)
    plan = plan_batches([len(e.input_ids) for e in examples], batch_size, steps, wanted.seed)
    rows = rows.select([index for batch in plan for index in batch]).map(
        lambda row: {"prompt": prompt_text(tokenizer, task, row["prompt"]), "completion": row["answer"]},
        remove_columns=["answer"],
    )
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            self.began = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            seconds.append(time.perf_counter() - self.began)

    class SameSchedule(SFTTrainer):
        """TRL with our learning rates: its own warm-up begins at zero, one step behind."""

        def create_scheduler(self, num_training_steps, optimizer=None):
            import torch

            share = [wanted.learning_rate_at(step) / wanted.learning_rate for step in range(steps)] + [0.0]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share.__getitem__)
            return self.lr_scheduler

    with tempfile.TemporaryDirectory() as folder:
        trainer = SameSchedule(
            model=model,
            args=SFTConfig(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=batch_size,
                learning_rate=wanted.learning_rate, weight_decay=0.0, max_grad_norm=1.0,
                logging_steps=1, report_to="none", save_strategy="no", gradient_checkpointing=False,
                train_sampling_strategy="sequential", use_cpu=here.kind == "cpu", disable_tqdm=True,
                bf16=here.compute_dtype == "bfloat16", seed=wanted.seed,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=wanted.rank, lora_alpha=wanted.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    return {"losses": [row["loss"] for row in trainer.state.log_history if "loss" in row], "seconds": seconds}


def child(side: str, steps: int, batch_size: int) -> None:
    """One measurement in this process; the result is the last line printed."""
    if side == "ours":
        found = measure_ours(steps, batch_size)
    else:
        found = measure_trl(steps, batch_size, "eager" if side == "trl-eager" else "sdpa")
    scale = 1 if sys.platform == "darwin" else 1024
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    print("RESULT " + json.dumps(found))


def run_child(side: str, steps: int, batch_size: int) -> dict:
    """Start a measurement and read its result."""
    command = [sys.executable, __file__, "--child", side, "--steps", str(steps), "--batch-size", str(batch_size)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=SIDES)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.steps, options.batch_size)
        return
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    for turn in range(options.rounds):
        for side in SIDES:
            print(f"round {turn + 1} of {options.rounds}: {side} ...", flush=True)
            found[side].append(run_child(side, options.steps, options.batch_size))
    ours = statistics.median(s for one in found["ours"] for s in one["seconds"][2:])
    print(f"\nbatch of {options.batch_size}, {options.steps} steps, NF4, rank 8 on all linear layers")
    print(f"{'':62} s/step  ratio  peak GiB  last five losses")
    for side, name in SIDES.items():
        step = statistics.median(s for one in found[side] for s in one["seconds"][2:])
        peak = max(one["peak_bytes"] for one in found[side]) / 2**30
        last = statistics.mean(found[side][0]["losses"][-5:])
        print(f"{name:62} {step:6.2f}  {ours / step:5.2f}  {peak:8.2f}  {last:.3f}")
    print("ratio: ours divided by that row")


if __name__ == "__main__":
    main()
