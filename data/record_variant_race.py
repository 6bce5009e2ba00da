"""Record page 11's race: LoRA and seven variants on mirrored digits, each with eleven learning rates and five seeds.

    python data/record_variant_race.py            # about four minutes of one core
    python data/record_variant_race.py --list     # what would be run

writes `data/variants/race.json`, at the very end. A run is one of page 11's section 5 with the same settings: the digit
reader of page 04, an adapter on its two inner layers (rank 4; VeRA, which trains two vectors alone, 64), 60 steps on
1,000 images. A row holds

    variant, learning_rate, seed
    validation_loss, validation_exact      on 200 training images that were kept aside; nats per image, share right
    test_loss, test_exact                  on the 597 test images

A loss that is not finite is null.
"""

import argparse
import json
import math
import sys
import time
from itertools import product
from pathlib import Path

import torch

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import user_path, write_text
from lab_utils.locks import wait_for_tests
from lab_utils.lora import digits
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.variants import RACE
from lab_utils.variants import VARIANTS, after_step, inject, optimizer_groups

STEPS, ASIDE, TASK = 60, 200, "mirrored"
RANKS = {variant: 64 if variant == "vera" else 4 for variant in VARIANTS}
RATES = tuple(5e-4 * 2**power for power in range(11))
SEEDS = range(5)


def scored(reader, x, y, split: str) -> dict:
    """Mean loss and share of right answers."""
    with torch.no_grad():
        loss = float(torch.nn.functional.cross_entropy(reader(x), y))
    right = round(digits.accuracy(reader, x, y), 6)
    return {f"{split}_loss": round(loss, 6) if math.isfinite(loss) else None, f"{split}_exact": right}


def run(variant: str, learning_rate: float, seed: int, steps: int = STEPS) -> dict:
    """One row."""
    train_x, train_y, test_x, test_y = digits.split(TASK)
    torch.manual_seed(seed)
    settings = {"seed": seed} if variant == "vera" else {}  # VeRA draws its shared matrices from its own seed
    rank = RANKS[variant]
    reader = inject(digits.pretrained(), variant, list(digits.LAYERS), rank, 2.0 * rank, **settings)
    groups = optimizer_groups(reader, variant, learning_rate)
    digits.fit(reader, groups, train_x[ASIDE:], train_y[ASIDE:], steps=steps, after_step=after_step)
    row = {"variant": variant, "learning_rate": learning_rate, "seed": seed}
    return row | scored(reader, train_x[:ASIDE], train_y[:ASIDE], "validation") | scored(reader, test_x, test_y, "test")


def write(file: Path, rows: list[dict], seconds: float) -> None:
    """All rows, one per line, and how they were made."""
    head = {
        "command": "python data/record_variant_race.py",
        "recipe": {"task": TASK, "rank": RANKS, "steps": STEPS, "kept_aside": ASIDE},
        "cpu_seconds": round(seconds, 1), **machine("torch"),
    }  # fmt: skip
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(file, json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n')


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=user_path, default=RACE)
    parser.add_argument("--list", action="store_true", help="print what would be run")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print(f"{len(VARIANTS)} variants, rates {', '.join(f'{rate:g}' for rate in RATES)}, {len(SEEDS)} seeds")
        return
    use_threads()
    rows, began = [], time.process_time()
    for variant, rate, seed in product(VARIANTS, RATES, SEEDS):
        wait_for_tests()
        rows.append(run(variant, rate, seed))
        if seed == SEEDS[-1]:
            print(f"{variant} {rate:g}: {[row['validation_loss'] for row in rows[-len(SEEDS):]]}", flush=True)
    write(chosen.output, rows, time.process_time() - began)


if __name__ == "__main__":
    sys.exit(command_line(main)())
