"""Record how likely the half-trained adapter finds both answers of some pairs, after each step of DPO on them.

    python data/record_pairs.py                 # what is missing
    python data/record_pairs.py --list          # what is recorded, what is missing

writes a line per run to `data/preferences/pairs.jsonl`; data/README.md says what a line holds. Both runs take the steps
of the arm "own pairs" of record_preferences.py with seed 0, one at its rate and one at page 16's own. It takes one
thread and about four minutes of an idle core per run, and pauses while `make test` runs.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from record_preferences import ARMS, FOLDER, START, samples, start_folder, where

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import append_text
from lab_utils.locks import wait_for_tests
from lab_utils.models import load_base
from lab_utils.preferences import begin, own_pairs, pair_logprobs, prefer
from lab_utils.recorded.recorder import call, missing_runs, tell

SEED = 0
RUNS = {"own pairs": ARMS["own pairs"], "own pairs, rate 0.0002": ARMS["own pairs"].at(2e-4)}


def first_of_each_message(pairs: list[dict]) -> list[int]:
    """Where the first pair of each message is."""
    prompts = [pair["prompt"] for pair in pairs]
    return [place for place, prompt in enumerate(prompts) if prompt not in prompts[:place]]


def record(name: str, folder: Path, base: tuple, steps: int | None) -> None:
    """Train one run, read the pairs before it and after each step, and add its line."""
    arm, began, pairs = RUNS[name], time.process_time(), own_pairs(samples(folder, SEED, base))
    start = start_folder(folder, START)
    recipe = replace(arm.recipe, seed=SEED, start=str(start), steps=steps or arm.recipe.steps)
    places = first_of_each_message(pairs)
    found = []

    def look(history: list[dict]) -> None:
        wait_for_tests()
        logprobs, _ = pair_logprobs(base[0], base[1], [pairs[place] for place in places])
        found.append([[round(one, 4) for one in two] for two in logprobs.tolist()])
        tell(f"{name}, step {len(history)}: chosen {logprobs[:, 0].mean():.2f}, rejected {logprobs[:, 1].mean():.2f}")

    begin(base[0], recipe)
    look([])
    with tempfile.TemporaryDirectory() as runs:
        run = prefer(recipe, Path(runs) / "run", base=base, pairs=pairs, on_step=look, progress=False)
    line = {"arm": name, "seed": SEED, "recipe": recipe.as_record() | {"start": start.name}}
    line |= {"history": [{key: round(value, 5) for key, value in row.items()} for row in run.history]}
    line |= {"places": places, "logprobs": found} | where(began)
    append_text(folder / "pairs.jsonl", json.dumps(line) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; train and read what is missing."""
    parser = call(__doc__, RUNS, FOLDER, [SEED])
    parser.add_argument("--steps", type=int, help="instead of the recipes' own: a quick check")
    chosen = parser.parse_args(arguments)
    missing = missing_runs(chosen, [(name, SEED) for name in RUNS], chosen.output / "pairs.jsonl")
    if chosen.list:
        return
    use_threads()
    base = load_base(ARMS["own pairs"].recipe.model, "nf4", verbose=False)
    for name, _ in missing:
        record(name, chosen.output, base, chosen.steps)


if __name__ == "__main__":
    sys.exit(command_line(main)())
