"""Record where page 12's tiny painter learns a style: with adapters on its attention, its convolutions, or everything.

    python data/record_style_parts.py            # what is missing; if killed, it resumes
    python data/record_style_parts.py --list     # what is recorded
    python data/record_style_parts.py --arms "attention, r = 6" "convolutions, r = 2"    # only these

writes one line per run to `data/pictures/style_parts.jsonl`. The base is trained as on page 12. An adapter learns neon
from page 12's 96 pictures of houses, boats, cars and fish. Each arm is trained at `RATES` with seed 0, then at half or
twice the best rate until that is not at an end (`MOST_RATES` at most), then with seeds 1 and 2 at the best one. Alpha
is the same in all arms: under Adam the first step depends on it, and hardly on the rank. data/README.md says what a
line holds.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean

from lab_utils.beyond_text import painter_training
from lab_utils.beyond_text.painter import Painter, load_painter
from lab_utils.beyond_text.painter_scores import guess_errors
from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import append_text, user_path
from lab_utils.locks import wait_for_tests
from lab_utils.quiet import quiet
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.style_parts import CHOOSING, STYLE_PARTS, at_best_rate, style_parts

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "conv_in", "conv_out"]
ARMS = {  # name -> (target_modules, rank); three of nearly as many numbers, and one of ten times the first one's
    "attention, r = 6": (ATTENTION, 6), "convolutions, r = 2": (CONVOLUTIONS, 2),
    "attention, r = 60": (ATTENTION, 60), "everything, r = 1": (painter_training.PARTS, 1),
}  # fmt: skip
ALPHA = 8  # page 12's
UNSEEN = ("tree", "flower", *CHOOSING)
RATES = (2.5e-3, 1.25e-3, 5e-3)  # the last is page 12's
MOST_RATES = 6
SEEDS, STEPS = (0, 1, 2), 150


def style_losses(painter: Painter) -> dict[str, list[float]]:
    """thing -> mean square error of the guessed picture, for each of its neon drawings."""
    found = guess_errors(painter, UNSEEN)
    return {thing: [round(error, 6) for error in errors] for thing, errors in found.items()}


def missing(rows: list[dict], arm: str) -> list[tuple[float, int]]:
    """(learning rate, seed) of the runs of an arm that can be done next."""
    done = {(row["learning_rate"], row["seed"]) for row in rows if row["arm"] == arm}
    if waiting := [(rate, SEEDS[0]) for rate in RATES if (rate, SEEDS[0]) not in done]:
        return waiting
    best = at_best_rate(rows, arm)[0]["learning_rate"]
    tried = sorted(rate for rate, seed in done if seed == SEEDS[0])
    if best in (tried[0], tried[-1]) and len(tried) < MOST_RATES:
        return [(best / 2 if best == tried[0] else best * 2, SEEDS[0])]
    return [(best, seed) for seed in SEEDS if (best, seed) not in done]


def run(painter: Painter, arm: str, learning_rate: float, seed: int, steps: int, folder: Path) -> dict:
    """The results of one line."""
    import torch
    from peft import LoraConfig

    parts, rank = ARMS[arm]
    torch.manual_seed(seed)
    with quiet():
        painter.unet.add_adapter(LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=parts), adapter_name="neon")
    try:
        trained = sum(parameter.numel() for parameter in painter.unet.parameters() if parameter.requires_grad)
        recipe = painter_training.PainterRecipe(steps=steps, learning_rate=learning_rate, average=0.95, seed=seed)
        history = painter_training.train(painter, *painter_training.style_pictures(), recipe, folder)
        losses = style_losses(painter)
    finally:
        painter.unet.delete_adapters("neon")
    loss = round(fmean(row["loss"] for row in history[-20:]), 6)
    return {"trained_parameters": trained, "losses": losses, "training_loss": loss}


def add_line(file: Path, **row) -> None:
    """One more line, with where and when it was recorded."""
    append_text(file, json.dumps(row | machine("torch", "diffusers", "peft"), ensure_ascii=False) + "\n")
    print(time.strftime("%H:%M:%S"), row, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print what is recorded")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="only these")
    parser.add_argument("--base-steps", type=int, default=painter_training.PainterRecipe().steps)
    parser.add_argument("--steps", type=int, default=STEPS, help="of an adapter")
    parser.add_argument("--runs", type=user_path, default=Path("runs/style_parts"), help="where checkpoints are kept")
    parser.add_argument("--output", type=user_path, default=STYLE_PARTS)
    options = parser.parse_args(arguments)

    def rows() -> list[dict]:
        return style_parts(options.output) if options.output.exists() else []

    if options.list:
        for row in rows():
            print(f"{row['arm']}, rate {row['learning_rate']:g}, seed {row['seed']}: {row['test']:.4f}")
        return
    use_threads()
    painter = load_painter("tiny")
    painter_training.train_base(painter, painter_training.PainterRecipe(steps=options.base_steps), options.runs)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if not rows():
        add_line(options.output, arm="base", rank=0, alpha=0, learning_rate=0.0, seed=0, steps=0,
                 trained_parameters=0, losses=style_losses(painter), training_loss=None)  # fmt: skip
    while waiting := {arm: runs for arm in options.arms if (runs := missing(rows(), arm))}:
        wait_for_tests()
        arm = min(waiting, key=lambda name: sum(row["arm"] == name for row in rows()))
        rate, seed = waiting[arm][0]
        found = run(painter, arm, rate, seed, options.steps, options.runs)
        add_line(options.output, arm=arm, rank=ARMS[arm][1], alpha=ALPHA, learning_rate=rate, seed=seed,
                 steps=options.steps, **found)  # fmt: skip


if __name__ == "__main__":
    sys.exit(command_line(main)())
