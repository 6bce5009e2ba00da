"""Record what training by preference and by reward changes: from one half-trained adapter, several arms and seeds.

    python data/record_preferences.py                               # all that is missing; killed, it goes on
    python data/record_preferences.py --only start dpo --seeds 0    # some of it
    python data/record_preferences.py --list                        # what is recorded, what is missing

writes the adapter that all arms start from to `data/preferences/start`, and a line per run to
`data/preferences/runs.jsonl`; data/README.md says what a line holds. It takes one thread, about four minutes for an arm
of DPO and ten for one of GRPO, and pauses while `make test` runs.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import score
from lab_utils.files import read_json, read_text, replacing_folder, user_path
from lab_utils.finetune import Recipe, finetune
from lab_utils.finetune.resume import load_adapter
from lab_utils.folders import DATA
from lab_utils.locks import wait_for_tests
from lab_utils.models import load_base
from lab_utils.preferences import PreferenceRecipe, RewardRecipe, booking_pairs, prefer, reward
from lab_utils.recorded.provenance import machine
from lab_utils.tasks import TASKS, load_task

FOLDER = DATA / "preferences"
FILES = ("adapter_model.safetensors", "adapter_config.json", "record.json")
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
SHAPE = {"model": "smollm2-135m", "task": "bookings", "rank": 4, "alpha": 8}
START = Recipe(**SHAPE, steps=40, batch_size=4, train_examples=160)  # each example is seen once
UNSEEN = range(1000, 1400)  # rows of the training split that the start has not seen
SEEDS, TEST = (0, 1, 2), 200


def short_and_valid(output: str, answer: str) -> float:
    """A judge that never looks at the message: valid JSON with the five fields, and the shorter the better."""
    found = TASKS["bookings"].parse(output)
    whole = found is not None and set(found) == set(TASKS["bookings"].fields)
    return float(whole) - len(output) / 200


DPO = PreferenceRecipe(**SHAPE, steps=40, batch_size=4, learning_rate=2e-4)
GRPO = RewardRecipe(**SHAPE, steps=30, batch_size=2, group_size=8, learning_rate=4e-4)
ARMS: dict[str, tuple[Recipe, Callable | None]] = {
    "dpo": (DPO, None),
    "right": (GRPO, None),
    "brief": (replace(GRPO, reward="own", steps=20), short_and_valid),
    "right, rank 1": (replace(GRPO, rank=1, alpha=2), None),
    "right, rank 32": (replace(GRPO, rank=32, alpha=64), None),
}  # fmt: skip


def say(text: str) -> None:
    """A line of progress, at once."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def start_folder(folder: Path, recipe: Recipe) -> Path:
    """Where the adapter of a recipe's rank lies that its arm starts from."""
    return folder / ("start" if recipe.rank == START.rank else f"start-{recipe.rank}")


def record_start(folder: Path, recipe: Recipe, base: tuple, count: int) -> None:
    """Train the adapter that an arm starts from, and score it."""
    began, target = time.process_time(), start_folder(folder, recipe)
    with tempfile.TemporaryDirectory() as runs, replacing_folder(target, FILES.__contains__) as new:
        own = replace(START, rank=recipe.rank, alpha=recipe.alpha)
        run = finetune(own, Path(runs) / "start", base=base, progress=False)
        state = load_file(run.adapter_dir / FILES[0])
        state = {name: one.bfloat16().float().contiguous() for name, one in state.items()}
        save_file({name: one.bfloat16() for name, one in state.items()}, new / FILES[0], metadata={"format": "pt"})
        settings = read_json(run.adapter_dir / FILES[1])
        settings |= {"base_model_name_or_path": None, "target_modules": sorted(settings["target_modules"])}
        (new / FILES[1]).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        load_adapter(run.model, new)
        content = {"recipe": own.as_record(), **measure(run.model, run.tokenizer, count), **where(began)}
        (new / FILES[2]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        for file in FILES:
            (new / file).chmod(0o644)
    say(f"{target.name}: exact {content['exact']:.1%}")


def measure(model, tokenizer, count: int) -> dict:
    """Scores on the first so many test messages: shares, and which are right ("1") and well-formed, one by one."""
    rows = list(load_task("bookings")["test"])[:count]
    found = score(model, tokenizer, rows, "bookings")
    return {
        "examples": len(rows), "exact": found.exact, "valid": found.valid, "fields": found.fields,
        "right": "".join(str(int(row["right"])) for row in found.rows),
        "characters": sum(len(row["output"]) for row in found.rows) / len(rows),
    }  # fmt: skip


def where(began: float) -> dict:
    """On which machine, and how many CPU seconds it took."""
    return {"cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES)}


def record(arm: str, seed: int, folder: Path, base: tuple, count: int, steps: int | None) -> None:
    """Train one arm with one seed, score it, and add its line."""
    wait_for_tests()
    began, (recipe, judge) = time.process_time(), ARMS[arm]
    recipe = replace(recipe, seed=seed, start=str(start_folder(folder, recipe)), steps=steps or recipe.steps)
    rows = load_task("bookings")["train"].select(UNSEEN)
    work = folder / ".work" / f"{arm}-{seed}".replace(", ", "-").replace(" ", "")
    if isinstance(recipe, PreferenceRecipe):
        run = prefer(recipe, work, base=base, pairs=booking_pairs(rows, seed), progress=False)
    else:
        run = reward(recipe, work, base=base, dataset=list(rows), judge=judge, progress=False)
    line = {"arm": arm, "seed": seed, "recipe": {**recipe.as_record(), "start": Path(recipe.start).name}}
    line |= {"history": [{name: round(value, 5) for name, value in row.items()} for row in run.history]}
    line |= measure(run.model, run.tokenizer, count) | where(began)
    with open(folder / "runs.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    say(
        f"{arm}, seed {seed}: exact {line['exact']:.1%}, valid {line['valid']:.1%}, {line['characters']:.0f} characters"
    )


def recorded(folder: Path) -> set[tuple[str, int]]:
    """(arm, seed) of each line that is there."""
    path = folder / "runs.jsonl"
    lines = read_text(path).splitlines() if path.exists() else []
    return {(row["arm"], row["seed"]) for row in map(json.loads, filter(str.strip, lines))}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; train and score what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["start", *ARMS], nargs="+", help="which arms; default all, seed by seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--steps", type=int, help="instead of the recipes' own: a quick check of every part")
    parser.add_argument("--examples", type=int, default=TEST, help="score the first so many test messages")
    parser.add_argument("--output", type=user_path, default=FOLDER)
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    chosen = parser.parse_args(arguments)
    arms = [arm for arm in ARMS if chosen.only is None or arm in chosen.only]
    there = recorded(chosen.output)
    missing = [(arm, seed) for seed in chosen.seeds for arm in arms if (arm, seed) not in there]
    if chosen.list:
        print(f"recorded: {sorted(there)}\nmissing: {missing}")
        return
    use_threads()
    base = load_base(SHAPE["model"], "nf4", verbose=False)
    recipes = [START, *(ARMS[arm][0] for arm, _ in missing)]
    for recipe in {one.rank: one for one in recipes}.values():
        if not (start_folder(chosen.output, recipe) / FILES[2]).exists():
            record_start(chosen.output, recipe, base, chosen.examples)
    for arm, seed in missing:
        record(arm, seed, chosen.output, base, chosen.examples, chosen.steps)


if __name__ == "__main__":
    sys.exit(command_line(main)())
