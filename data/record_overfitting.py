"""Record where many epochs of few messages of `bookings` lead: losses of training and of validation after each.

    python data/record_overfitting.py              # all that is missing; killed, it goes on from the last epoch
    python data/record_overfitting.py --list       # what is recorded, what is missing

writes a line per run to `data/forgetting/epochs.jsonl`, in the form of `runs.jsonl` (data/README.md): rank 8 on the
NF4 base, with the rate and the schedule of page 15's runs stretched over all steps. It takes one thread, and about
seven minutes of an idle core for fifty messages and twenty epochs; it pauses while `make test` runs.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from record_forgetting import PACKAGES, RECIPE, first_of, readings

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import append_text, replacing_file
from lab_utils.folders import DATA
from lab_utils.locks import wait_for_tests
from lab_utils.memory.free import keep_freed_memory
from lab_utils.recorded.forgetting import epoch_ends
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import call, missing_runs, tell
from lab_utils.retention import fixed_texts
from lab_utils.retention.arms import Arm, build, train
from lab_utils.tasks import load_task

FOLDER = DATA / "forgetting"
TEXTS = {"skill": 32, "prose": 8, "questions": 16, "style": 8}  # of "skill", the first so many validation messages
ARMS = {  # messages, planned epochs: the rate falls to zero over all of them, so a shorter plan is another run
    "50 messages, 20 epochs": (50, 20),
    "50 messages, 5 epochs": (50, 5),
    "200 messages, 20 epochs": (200, 20),
    "1000 messages, 20 epochs": (1000, 20),
}
ORDER = tuple((arm, seed) for arm, seeds in (
    ("50 messages, 20 epochs", (0, 1)), ("50 messages, 5 epochs", (0, 1)), ("200 messages, 20 epochs", (0, 1)),
    ("50 messages, 20 epochs", (2,)), ("50 messages, 5 epochs", (2,)), ("200 messages, 20 epochs", (2,)),
    ("1000 messages, 20 epochs", (0, 1, 2)),
) for seed in seeds)  # fmt: skip


def texts_to_read(examples: int | None) -> dict:
    """The fixed texts; no more than so many of a kind."""
    found = fixed_texts() | {"skill": list(load_task(RECIPE.task)["validation"])}
    return first_of(found, TEXTS, examples)


def trained(model) -> dict:
    """What is trained, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def save(path: Path, model, optimizer, losses: list, points: list) -> None:
    """Keep how far a run has come; a half-written file never takes the place of a whole one."""
    state = {"weights": trained(model), "optimizer": optimizer.state_dict(), "losses": losses, "points": points}
    with replacing_file(path) as new:
        torch.save(state, new)


@torch.no_grad()
def resume(path: Path, model, optimizer) -> tuple[list, list]:
    """The losses and readings so far; model and optimizer are as they were then."""
    if not path.exists():
        return [], []
    state = torch.load(path, weights_only=True)
    for name, one in trained(model).items():
        one.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    return state["losses"], state["points"]


def record(name: str, seed: int, folder: Path, texts: dict, epochs: int | None) -> None:
    """Train one arm with one seed, read the texts after each epoch, and add its line."""
    began, (examples, planned) = time.process_time(), ARMS[name]
    stops = epoch_ends(examples, epochs or planned, RECIPE.batch_size)
    arm = Arm(replace(RECIPE, seed=seed, steps=stops[-1], train_examples=examples))
    model, tokenizer, optimizer = build(arm)
    path = folder / f".{examples}-{planned}-{seed}.pt"
    losses, points = resume(path, model, optimizer)

    def look(step: int) -> None:
        wait_for_tests()
        points.append({"step": step} | readings(model, tokenizer, arm, texts))
        optimizer.zero_grad(set_to_none=True)
        save(path, model, optimizer, losses, points)
        skill = points[-1]["losses"]["skill"]
        tell(f"{name}, seed {seed}, step {step}: validation {sum(skill) / len(skill):.3f}")

    train(model, tokenizer, arm, optimizer, look, stops, losses)
    line = {"arm": name, "seed": seed, "recipe": arm.recipe.as_record(), "training_losses": losses}
    line |= {"checkpoints": points, "strengths": [], "random": None, "matrices": {}}
    line |= {"cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES)}
    append_text(folder / "epochs.jsonl", json.dumps(line) + "\n")
    path.unlink()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; train and read what is missing."""
    parser = call(__doc__, ARMS, FOLDER, seeds=(0, 1, 2))
    parser.add_argument("--epochs", type=int, help="instead of as many as the arm has: a quick check")
    parser.add_argument("--examples", type=int, help="read no more than so many texts of a kind: a quick check")
    chosen = parser.parse_args(arguments)
    missing = missing_runs(chosen, ORDER, chosen.output / "epochs.jsonl")
    if chosen.list:
        return
    use_threads()
    keep_freed_memory()
    chosen.output.mkdir(parents=True, exist_ok=True)
    texts = texts_to_read(chosen.examples)
    for name, seed in missing:
        record(name, seed, chosen.output, texts, chosen.epochs)


if __name__ == "__main__":
    sys.exit(command_line(main)())
