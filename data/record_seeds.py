"""Record page 08's run with several seeds: what the same recipe answers when only its random numbers differ.

    python data/record_seeds.py                     # what is missing, about eight minutes of one core per seed
    python data/record_seeds.py --seeds 3 4         # these too
    python data/record_seeds.py --list              # what is recorded
    python data/record_seeds.py --steps 2 --messages 2 --characters 500 --output FILE    # quick, every part

adds a line per seed to `data/seeds/bookings.jsonl`; a seed that is there is skipped. A run that was stopped continues
at its last checkpoint. `lab_utils.recorded.seed_runs` reads it; data/README.md says what a line holds.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from lab_utils.device import find_device, use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import Scores, score, token_losses
from lab_utils.files import append_text, read_text, user_path
from lab_utils.finetune import Recipe, finetune, run_folder
from lab_utils.folders import DATA
from lab_utils.locks import locked
from lab_utils.models import learning_rate, load_base
from lab_utils.quiet import quiet
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import tell
from lab_utils.recorded.seeds import SEED_RUNS, SPLITS, seed_runs
from lab_utils.tasks import load_task

BASE = "smollm2-135m"
RECIPE = Recipe(model=BASE, learning_rate=learning_rate(BASE))  # as page 08 has it
SEEDS = (0, 1, 2)
MESSAGES = 100  # of each split, from its beginning
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets")


def counted(found: Scores) -> dict:
    """What a line keeps of the scores of a split."""
    count = len(found.rows)
    return {
        "right": "".join(str(int(row["right"])) for row in found.rows),
        "valid": sum(bool(row["valid"]) for row in found.rows),
        "fields": {name: round(share * count) for name, share in found.fields.items()},
    }


def prose_losses(run, characters: int | None) -> dict[str, float]:
    """Nats per token of ordinary text, with the adapter off and on."""
    text = read_text(DATA / "prose" / "prose.txt")[:characters]
    found = {"on": float(token_losses(run.model, run.tokenizer, text).mean())}
    with run.model.disable_adapter():
        found["off"] = float(token_losses(run.model, run.tokenizer, text).mean())
    return {name: round(loss, 4) for name, loss in found.items()}


def measure(recipe: Recipe, messages: int, characters: int | None = None) -> dict:
    """Train one adapter, or finish it, and let it answer."""
    began = time.process_time()
    with quiet():
        data = load_task(recipe.task)
    base = load_base(recipe.model, recipe.quantization, verbose=False)
    run = finetune(recipe, run_folder(recipe), base=base, dataset=data, progress=False)
    tell(f"seed {recipe.seed}: {recipe.steps} steps in {run.seconds:.0f} s, last loss {run.history[-1]['loss']:.3f}")
    scores = {}
    for split in SPLITS:
        found = score(run.model, run.tokenizer, data[split].select(range(messages)), recipe.task, batch_size=25)
        tell(f"seed {recipe.seed}, {split}: {found}")
        scores[split] = counted(found)
    prose = prose_losses(run, characters)
    tell(f"seed {recipe.seed}, prose: {prose}")
    return {
        "recipe": asdict(recipe), "scores": scores, "prose": prose,
        "training_loss": [round(row["loss"], 4) for row in run.history],
        "provenance": {
            "compute_dtype": find_device().compute_dtype, "training_seconds": round(run.seconds),
            "cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES),
        },
    }  # fmt: skip


def record(file: Path, seeds: list[int], recipe: Recipe, messages: int, characters: int | None = None) -> None:
    """Train every seed that `file` lacks, and add its line."""
    for seed in seeds:
        with locked(file.parent / ".locks" / f"seed-{seed}.lock"):
            if seed not in {run.seed for run in (seed_runs(file) if file.exists() else [])}:
                append_text(file, json.dumps(measure(replace(recipe, seed=seed), messages, characters)) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="to score on, of each split")
    parser.add_argument("--characters", type=int, help="of the prose, from its beginning; default all")
    parser.add_argument("--output", type=user_path, default=SEED_RUNS, help="the file")
    parser.add_argument("--list", action="store_true", help="print what is recorded")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for run in seed_runs(chosen.output) if chosen.output.exists() else []:
            told = ", ".join(f"{split} {sum(run.right[split]):.0f} of {len(run.right[split])}" for split in SPLITS)
            print(f"seed {run.seed}: {told}")
        return
    use_threads()
    record(chosen.output, chosen.seeds, replace(RECIPE, steps=chosen.steps), chosen.messages, chosen.characters)


if __name__ == "__main__":
    sys.exit(command_line(main)())
