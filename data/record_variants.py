"""Record how LoRA and seven variants fare on `bookings` with equal budgets: 32 steps of 4 messages, all linear layers.

    python data/record_variants.py                        # about an hour of one idle core
    python data/record_variants.py --only lora dora       # some variants
    python data/record_variants.py --list                 # what would be run

writes `data/variants/variants.json`, a run at a time: killed, the same command goes on with the run that it was at.

The base is the embedded model with float32 weights and bfloat16 arithmetic (autocast): in 16 bits, the small steps by
which Delta-LoRA moves W would be rounded away, and what PiSSA leaves in W would be rounded. With seed 0 each variant
is trained at two learning rates; the one with the smaller loss on 80 validation messages is `chosen`, and trained with
seeds 1 and 2 too. Loss and exact match on 80 test messages belong to what is chosen
(and to a rate that was the better one until then). A row holds

    variant, seed, learning_rate, settings      as for `variants.inject` and `variants.optimizer_groups`
    trainable_parameters, optimizer_bytes       of the whole model; AdamW's two moments
    saved_activation_bytes                      kept for the backward pass of one batch of 4 × 80 tokens, in float32
    cpu_seconds_a_step                          median, one thread; compare ratios to the rows of "lora" only
    training_losses                             nats per answer token, one per step
    relative_update                             ‖W' − W‖ / ‖W‖ over all adapted matrices together
    validation_loss, validation_exact           80 messages
    test_loss, test_exact                       80 other messages, or null; *_exact as `evaluate.answer_losses` has it
    cpu, threads, date, versions
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from lab_utils.device import use_threads
from lab_utils.errors import choose, command_line
from lab_utils.evaluate import answer_losses
from lab_utils.files import read_json, user_path, write_text
from lab_utils.finetune import Recipe
from lab_utils.finetune.full import training_steps
from lab_utils.folders import DATA
from lab_utils.lora import take_off, trainable_parameters
from lab_utils.memory.free import keep_freed_memory
from lab_utils.models import load_base
from lab_utils.quiet import quiet
from lab_utils.recorded.provenance import machine
from lab_utils.sweep.recorded_training import batch_bytes, relative_update
from lab_utils.tasks import load_task
from lab_utils.variants import VARIANTS, after_step, before_step, inject, optimizer_groups

FILE = DATA / "variants" / "variants.json"
RANK, ALPHA, STEPS, BATCH, MESSAGES, EVALUATED, SEEDS = 8, 16.0, 32, 4, 128, 80, (0, 1, 2)
LEARNING_RATES = {  # the likelier one first: the other is measured on the test messages only if it is better
    "lora": (2e-3, 4e-3), "lora-fa": (4e-3, 2e-3), "delta-lora": (2e-3, 1e-3), "vera": (1e-2, 3e-2),
    "rslora": (1e-3, 2e-3), "dora": (2e-3, 4e-3), "lora+": (5e-4, 2.5e-4), "pissa": (1e-3, 5e-4),
}  # fmt: skip
SETTINGS = {
    "delta-lora": {"strength": 2.0}, "pissa": {"iterations": 16}, "vera": {"rank": 256}, "lora+": {"ratio": 16.0},
}  # fmt: skip


def recipe_of(learning_rate: float, seed: int) -> Recipe:
    """The settings that all variants share."""
    return Recipe(
        model="smollm2-135m", quantization="none", rank=RANK, alpha=ALPHA, steps=STEPS, batch_size=BATCH,
        train_examples=MESSAGES, learning_rate=learning_rate, seed=seed,
    )  # fmt: skip


def put_on(model, variant: str, seed: int):
    """Fresh adapters of a variant on the bare model, drawn from the seed."""
    settings = {"rank": RANK, "alpha": ALPHA} | SETTINGS.get(variant, {})
    settings.pop("ratio", None)  # the optimizer's
    torch.manual_seed(seed)
    return inject(model, variant, "all-linear", **settings).train()


def train(model, tokenizer, variant: str, recipe: Recipe, rows) -> dict:
    """Train the adapters that are on `model`; returns what a row says about training."""
    ratio = {"ratio": SETTINGS["lora+"]["ratio"]} if variant == "lora+" else {}
    groups = optimizer_groups(model, variant, recipe.learning_rate, **ratio)
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    losses, seconds, began = [], [], time.process_time()
    for loss in training_steps(
        model, tokenizer, recipe, rows, optimizer, autocast=torch.bfloat16, before_step=before_step,
        after_step=after_step,
    ):  # fmt: skip
        seconds.append(time.process_time() - began)
        losses.append(round(loss, 5))
        began = time.process_time()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    return {
        "trainable_parameters": sum(parameter.numel() for parameter in trainable_parameters(model)),
        "optimizer_bytes": sum(moment.numel() * moment.element_size() for moment in moments),
        "cpu_seconds_a_step": round(statistics.median(seconds[2:]), 3),  # the first steps set things up
        "training_losses": losses,
    }


def measured(model, tokenizer, rows, split: str) -> dict:
    """Loss and share of right answers on some messages."""
    with torch.autocast("cpu", torch.bfloat16):
        found = answer_losses(model, tokenizer, rows)
    return {f"{split}_loss": round(found.loss, 5), f"{split}_exact": round(found.exact, 4)}


def best(rows: list[dict], variant: str) -> dict | None:
    """The row of seed 0 with the smallest validation loss, if there is one."""
    scanned = [row for row in rows if row["variant"] == variant and row["seed"] == 0]
    return min(scanned, key=lambda row: row["validation_loss"], default=None)


def missing(rows: list[dict], variants: list[str]) -> list[tuple[str, float | None, int]]:
    """(variant, learning rate, seed) of the runs to come; the rate is None where a scan has to decide it first."""
    done = {(row["variant"], row["learning_rate"], row["seed"]) for row in rows}
    runs = []
    for seed in SEEDS:
        for variant in variants:
            rates = LEARNING_RATES[variant]
            if seed and all((variant, rate, 0) in done for rate in rates):
                rates = (best(rows, variant)["learning_rate"],)
            elif seed:
                rates = (None,)
            runs += [(variant, rate, seed) for rate in rates if (variant, rate, seed) not in done]
    return runs


def run(model, tokenizer, data, rows: list[dict], variant: str, learning_rate: float, seed: int) -> dict:
    """One row."""
    recipe = recipe_of(learning_rate, seed)
    put_on(model, variant, seed)
    try:
        kept = batch_bytes(model, BATCH)
        found = train(model, tokenizer, variant, recipe, data["train"].shuffle(seed=seed).select(range(MESSAGES)))
        row = dict.fromkeys(f"{split}_{what}" for split in ("validation", "test") for what in ("loss", "exact"))
        row |= measured(model, tokenizer, data["validation"].select(range(EVALUATED)), "validation")
        leader = best(rows, variant)
        if seed or leader is None or row["validation_loss"] < leader["validation_loss"]:
            row |= measured(model, tokenizer, data["test"].select(range(EVALUATED)), "test")
        update = relative_update(model)
    finally:
        take_off(model)
    return {
        "variant": variant, "seed": seed, "learning_rate": learning_rate, "settings": SETTINGS.get(variant, {}),
        **found, "saved_activation_bytes": kept, "relative_update": round(update, 7), **row,
        **machine("torch", "transformers"),
    }  # fmt: skip


def read(file: Path) -> list[dict]:
    """The rows that are there already."""
    return read_json(file)["rows"] if file.exists() else []


def write(file: Path, rows: list[dict]) -> None:
    """All rows, the whole file or nothing; a row is on one line."""
    head = {
        "command": "python data/record_variants.py",
        "recipe": {
            "model": "smollm2-135m", "task": "bookings", "weights": "float32", "arithmetic": "bfloat16 (autocast)",
            "rank": RANK, "alpha": ALPHA, "target_modules": "all-linear", "steps": STEPS, "batch_size": BATCH,
            "train_examples": MESSAGES, "evaluated_examples": EVALUATED, "learning_rates": LEARNING_RATES,
        },
        "chosen": {
            variant: best(rows, variant)["learning_rate"] for variant in VARIANTS if best(rows, variant) is not None
        },
    }  # fmt: skip
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    text = json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n'
    write_text(file, text)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--output", type=user_path, default=FILE)
    parser.add_argument("--list", action="store_true", help="print what would be run")
    chosen = parser.parse_args(arguments)
    for variant in chosen.only:
        choose("variant", variant, VARIANTS)
    rows = read(chosen.output)
    if chosen.list:
        for variant, rate, seed in missing(rows, chosen.only):
            print(f"{variant}, seed {seed}, learning rate {'the better one' if rate is None else f'{rate:g}'}")
        return
    use_threads()
    keep_freed_memory()
    with quiet():
        data = load_task("bookings")
    model, tokenizer = load_base("smollm2-135m", "none", verbose=False)
    model.float()
    while waiting := missing(rows, chosen.only):
        began = time.process_time()
        row = run(model, tokenizer, data, rows, *waiting[0])
        rows.append(row)
        write(chosen.output, rows)
        results = ("validation_loss", "test_loss", "test_exact")
        shown = " ".join(f"{key}={row[key]}" for key in results)
        print(f"{time.strftime('%H:%M:%S')} {row['variant']} lr={row['learning_rate']:g} seed={row['seed']} {shown} "
              f"{row['cpu_seconds_a_step']} s per step, {time.process_time() - began:.0f} CPU s", flush=True)


if __name__ == "__main__":
    sys.exit(command_line(main)())
