"""Record what the embedded model pays for the skill of `bookings`: losses on the skill and on what was not trained.

    python data/record_forgetting.py                               # all that is missing; killed, it goes on
    python data/record_forgetting.py --only "LoRA r=8" --seeds 0   # some of it
    python data/record_forgetting.py --list                        # what is recorded, what is missing

writes a line per run to `data/forgetting/runs.jsonl`; data/README.md says what a line holds. Every run takes 32 steps
of four messages, and at some of them the fixed texts of `lab_utils.retention` are read.
It takes one thread, about two minutes a run on an idle core, and pauses while `make test` runs.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import append_text
from lab_utils.finetune import Recipe
from lab_utils.folders import DATA
from lab_utils.locks import wait_for_tests
from lab_utils.memory.free import keep_freed_memory
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import call, missing_runs, tell
from lab_utils.retention import (
    adapter_matrices,
    at_strength,
    fixed_texts,
    left_vectors,
    likeness,
    random_like,
    read_all,
    swapped,
)  # fmt: skip
from lab_utils.retention.arms import Arm, build, train
from lab_utils.sweep.base_weights import weights_of

FOLDER = DATA / "forgetting"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
RECIPE = Recipe(model="smollm2-135m", task="bookings", rank=8, alpha=16, steps=32, batch_size=4, learning_rate=2e-3)
CHECKPOINTS = (0, 8, 16, 32)
TEXTS = {"skill": 32, "prose": 16, "questions": 24, "style": 12}  # the first so many are read
STRENGTHS = (0.25, 0.5, 0.75, 1.25, 1.5)
LAYERS = (0, 9, 19, 29)  # whose matrices are compared with those before, singular vector by singular vector
# The rates. LoRA: 2e-3 was best of 5e-4, 2e-3 and 8e-3 for rank 8 after 32 steps of four (data/sweep); the other ranks
# take it over. Full: 1e-4 was best of five after 100 steps (data/evidence/rates.jsonl); at 32 none was searched. Each
# but rank 32 has a second rate, in the arm's name.
ARMS = {
    "LoRA r=8": Arm(RECIPE, strengths=True),
    "LoRA r=1": Arm(replace(RECIPE, rank=1, alpha=2)),
    "LoRA r=64": Arm(replace(RECIPE, rank=64, alpha=128)),
    "full": Arm(replace(RECIPE, quantization="none", learning_rate=1e-4), full=True),
    "random labels": Arm(RECIPE, shuffled=True),
    "a quarter of the rate": Arm(replace(RECIPE, learning_rate=5e-4)),
    "replay": Arm(RECIPE, replay=True),
    "KL": Arm(RECIPE, anchor=1.0),
    "LoRA r=1, twice the rate": Arm(replace(RECIPE, rank=1, alpha=2, learning_rate=4e-3)),
    "LoRA r=64, half the rate": Arm(replace(RECIPE, rank=64, alpha=128, learning_rate=1e-3)),
    "full, twice the rate": Arm(replace(RECIPE, quantization="none", learning_rate=2e-4), full=True),
    "LoRA r=8, bfloat16": Arm(replace(RECIPE, quantization="none")),  # the base that full fine-tuning starts from
    "LoRA r=128": Arm(replace(RECIPE, rank=128, alpha=256)),
    "LoRA r=32": Arm(replace(RECIPE, rank=32, alpha=64)),
    "LoRA r=128, half the rate": Arm(replace(RECIPE, rank=128, alpha=256, learning_rate=1e-3)),
}
RANKS, CONTROLS, CURES = (tuple(ARMS)[part] for part in (slice(4), slice(4, 5), slice(5, 8)))
RATES, BASES, MORE, LAST = (tuple(ARMS)[part] for part in (slice(8, 11), slice(11, 12), slice(12, 14), slice(14, 15)))
ORDER = tuple((arm, seed) for arms, seeds in (
    (RANKS + CONTROLS, (0,)), (RANKS, (1,)), (CURES, (0,)), (RANKS, (2,)), (BASES, (0, 1, 2)), (CURES, (1,)),
    (RATES, (0,)), (CONTROLS, (1,)), (CONTROLS + CURES, (2,)), (MORE[:1], (0, 1, 2)), (MORE[1:], (0, 1, 2)),
    (RATES[::-1], (1,)), (RATES[::-1], (2,)), (LAST, (0, 1, 2)),
) for seed in seeds for arm in arms)  # fmt: skip


def first_of(texts: dict, counts: dict[str, int], most: int | None) -> dict:
    """Of each kind the first so many texts, and no more than `most` of any."""
    return {kind: some[: min(counts[kind], most or counts[kind])] for kind, some in texts.items()}


def readings(model, tokenizer, arm: Arm, texts: dict) -> dict:
    """The loss of every fixed text, and which messages are answered letter by letter."""
    wait_for_tests()
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=arm.full):
        found = read_all(model, tokenizer, texts)
    losses = {kind: [round(one, 4) for one in reading.losses] for kind, reading in found.items()}
    right = "".join(str(int(one)) for one in found["skill"].right)
    return {"losses": losses, "tokens": {kind: list(one.tokens) for kind, one in found.items()}, "right": right}


def final_weights(model, arm: Arm, name: str):
    """A matrix of the model after training: float32 Tensor."""
    if arm.full:
        return model.get_submodule(name).weight.data
    layer = model.get_submodule(f"base_model.model.{name}")
    return layer.base_layer.weight.float() + layer.get_delta_weight("default").float()


@torch.no_grad()
def compared(model, arm: Arm) -> dict:
    """Of some matrices: how like the old singular vectors the ten leading new ones are, and the size of the update."""
    found, before = {}, weights_of(arm.recipe.model, arm.recipe.quantization)
    for name, weight in before.items():
        if int(name.split(".layers.")[1].split(".")[0]) in LAYERS:
            wait_for_tests()
            after, weight = final_weights(model, arm, name), weight.float()
            one = likeness(left_vectors(weight), after)
            found[name] = {
                "cosines": [round(value, 4) for value in one.cosines],
                "relative_update": round(float((after - weight).norm() / weight.norm()), 6),
            }
    return found


BEFORE: dict[tuple, dict] = {}  # base -> its readings: an adapter whose B is 0 changes nothing, so one will do


def record(name: str, seed: int, folder: Path, texts: dict, steps: int | None) -> None:
    """Train one arm with one seed, read the fixed texts on the way, and add its line."""
    began, arm = time.process_time(), ARMS[name]
    arm = replace(arm, recipe=replace(arm.recipe, seed=seed, steps=steps or arm.recipe.steps))
    model, tokenizer, optimizer = build(arm)
    points = []

    def look(step: int) -> None:
        key = arm.recipe.quantization, arm.full
        if step == 0 and key not in BEFORE:
            BEFORE[key] = readings(model, tokenizer, arm, texts)
        points.append({"step": step} | (readings(model, tokenizer, arm, texts) if step else BEFORE[key]))

    line = {"arm": name, "seed": seed, "recipe": arm.recipe.as_record()}
    line["training_losses"] = train(model, tokenizer, arm, optimizer, look, CHECKPOINTS)
    optimizer.zero_grad(set_to_none=True)
    del optimizer
    line |= {"checkpoints": points, "strengths": [], "random": None}
    for strength in STRENGTHS if arm.strengths else ():
        with at_strength(model, strength):
            line["strengths"].append({"strength": strength} | readings(model, tokenizer, arm, texts))
    if arm.strengths:
        weights = adapter_matrices(model)
        with swapped(weights, random_like(weights, seed)):
            line["random"] = readings(model, tokenizer, arm, texts)
    line["matrices"] = compared(model, arm)
    line |= {"cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES)}
    append_text(folder / "runs.jsonl", json.dumps(line) + "\n")
    means = {kind: sum(some) / len(some) for kind, some in points[-1]["losses"].items()}
    said = ", ".join(f"{kind} {value:.3f}" for kind, value in means.items())
    tell(f"{name}, seed {seed}: {said}; {line['cpu_seconds']} CPU seconds")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; train and read what is missing."""
    parser = call(__doc__, ARMS, FOLDER, seeds=(0, 1, 2))
    parser.add_argument("--steps", type=int, help="instead of 32: a quick check of every part")
    parser.add_argument("--examples", type=int, help="read no more than so many texts of a kind: a quick check")
    chosen = parser.parse_args(arguments)
    missing = missing_runs(chosen, ORDER, chosen.output / "runs.jsonl")
    if chosen.list:
        return
    use_threads()
    keep_freed_memory()
    chosen.output.mkdir(parents=True, exist_ok=True)
    texts = first_of(fixed_texts(), TEXTS, chosen.examples)
    for name, seed in missing:
        record(name, seed, chosen.output, texts, chosen.steps)


if __name__ == "__main__":
    sys.exit(command_line(main)())
