"""Record the trainings that page 04 rests on: the digit reader with many ranks, rates, scalings, starts and seeds.

    python data/record_rank_and_alpha.py            # what is missing; if killed, it resumes
    python data/record_rank_and_alpha.py --list     # what is recorded, what is missing

writes one line per run to `data/rank_and_alpha/<study>.jsonl`; data/README.md says what a line holds. A run takes
seconds on one thread, all of them a quarter of an hour of processor time. Losses and accuracies are those that the page
gets with the same settings.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import read_text, user_path
from lab_utils.locks import locked, wait_for_tests
from lab_utils.lora import digits
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.rank_and_alpha import CHOICES, FOLDER, STUDIES

STEPS = 400  # of a run, unless its study says otherwise
MARKS = (50, 100, 200, 400, 800)  # steps after which a run is measured
LAST = 20  # steps whose mean loss a mark has
RULES = {"alpha / rank": False, "alpha / √rank": True}
LAYERS = {"first": ("first",), "second": ("second",), "both": ("first", "second")}
CENTRE = {
    "task": "turned", "layers": "both", "rank": 8, "alpha": 16.0, "rule": "alpha / rank", "start": "A uniform",
    "dropout": 0.0, "images": 1200, "learning_rate": 5e-3, "seed": 1,
}  # fmt: skip
TASKS = ("mirrored", "turned")


def _ranks() -> Iterator[dict]:
    """Every rank with alpha at twice the rank: on the first layer alone at four rates, on both at one and at four."""
    for seed, task, rank in product((1, 2, 3), TASKS, (1, 2, 4, 8, 16, 32)):
        arm = {"seed": seed, "task": task, "rank": rank, "alpha": 2.0 * rank}
        for rate in (0.005, 0.01, 0.02, 0.04):
            yield arm | {"layers": "first", "learning_rate": rate, "steps": 800}
        for rate in (0.005, 0.01, 0.02, 0.04) if (task, rank) in (("turned", 4), ("turned", 32)) else (0.005,):
            yield arm | {"learning_rate": rate}


def _scaling() -> Iterator[dict]:
    """Alpha at 16 under both rules, and at twice the rank, each at seven rates."""
    arms = (*((rule, 16.0) for rule in RULES), ("alpha at 2 × rank", 0.0))
    for seed, rank, (rule, alpha) in product((1, 2, 3), (1, 4, 16, 64), arms):
        for power in range(7):
            arm = {"rule": rule, "alpha": alpha} if alpha else {"alpha": 2.0 * rank}
            yield arm | {"seed": seed, "rank": rank, "learning_rate": 0.00125 * 2**power, "steps": 100}


def _starts() -> Iterator[dict]:
    """Which of A and B is random, and how, each at five rates."""
    for seed, task, start in product((1, 2, 3, 4, 5), TASKS, STARTS):
        for power in range(5):
            yield {"seed": seed, "task": task, "start": start, "learning_rate": 0.005 * 2**power, "steps": 100}


def _dropout() -> Iterator[dict]:
    """Few images and many steps, with and without dropout."""
    for seed, dropout, rate in product((1, 2, 3, 4, 5), (0.0, 0.1, 0.3), (0.0025, 0.005, 0.01)):
        yield {"seed": seed, "dropout": dropout, "learning_rate": rate, "rank": 16, "alpha": 32.0, "images": 300}


def _layers() -> Iterator[dict]:
    """The same number of trained numbers on one layer or on both, each at five rates."""
    places = (("first", 16), ("second", 16), ("both", 8))
    for seed, task, (layers, rank) in product((1, 2, 3), TASKS, places):
        for rate in (0.005, 0.01, 0.02, 0.04, 0.08):
            yield {"seed": seed, "task": task, "layers": layers, "rank": rank, "alpha": 2.0 * rank,
                   "learning_rate": rate}  # fmt: skip


def _random(A: torch.Tensor, B: torch.Tensor, first, second) -> None:
    """Set A to `first` and B to `second`, each a function of the matrix or None for zeros."""
    for matrix, fill in ((A, first), (B, second)):
        if fill is None:
            matrix.zero_()
        else:
            fill(matrix)


def _uniform(bound):
    return lambda matrix: matrix.uniform_(-bound(matrix), bound(matrix))


STARTS = {  # peft draws A from ± 1/√in; ± 1/√rank is the same rule for B, whose input has `rank` numbers
    "A uniform": None,
    "A Gaussian": lambda A, B: _random(A, B, lambda a: a.normal_(0, (3 * a.shape[1]) ** -0.5), None),
    "B uniform": lambda A, B: _random(A, B, None, _uniform(lambda b: b.shape[0] ** -0.5)),
    "B uniform, larger": lambda A, B: _random(A, B, None, _uniform(lambda b: b.shape[1] ** -0.5)),
}


def planned(study: str) -> list[tuple[dict, int]]:
    """(choices, steps) of a study's runs, in the order in which they are recorded."""
    arms = {"ranks": _ranks, "scaling": _scaling, "starts": _starts, "dropout": _dropout, "layers": _layers}
    found = []
    for arm in arms[study]():
        steps = arm.pop("steps", STEPS)
        found.append(({name: kind((CENTRE | arm)[name]) for name, kind in CHOICES.items()}, steps))
    return [run for index, run in enumerate(found) if run not in found[:index]]


def model_of(choices: dict) -> torch.nn.Module:
    """The adapter as a run starts with it."""
    model = digits.adapted(
        choices["rank"], choices["alpha"], dropout=choices["dropout"], use_rslora=RULES[choices["rule"]],
        layers=LAYERS[choices["layers"]], seed=choices["seed"],
    )  # fmt: skip
    torch.manual_seed(choices["seed"])  # the entries that are dropped, and other starts than the usual one
    start = STARTS[choices["start"]]
    with torch.no_grad():
        for name in LAYERS[choices["layers"]] if start else ():
            layer = getattr(model, name)
            start(layer.lora_A, layer.lora_B)
    return model


def packed(right: np.ndarray) -> str:
    """Bools as base64 of bits."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def measure(choices: dict, steps: int) -> dict:
    """Train, and say after each mark how far it is: {steps: {"loss", "right"}}."""
    x, y, new_x, new_y = digits.split(choices["task"])
    x, y = x[: choices["images"]], y[: choices["images"]]
    model = model_of(choices).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses, after = [], {}
    for loss in digits.training(model, trained, x, y, steps=steps, learning_rate=choices["learning_rate"]):
        losses.append(loss)
        if len(losses) in (*MARKS, steps):
            with torch.no_grad():
                right = (model.eval()(new_x).argmax(-1) == new_y).numpy()
            model.train()
            after[str(len(losses))] = {"loss": round(fmean(losses[-LAST:]), 6), "right": packed(right)}
    return after


def done(file: Path) -> list[dict]:
    """The choices of the runs that have a line."""
    return [json.loads(line)["choices"] for line in read_text(file).splitlines()] if file.exists() else []


def record(study: str, folder: Path, most: int | None, steps: int | None) -> None:
    """Add a line for every planned run without one."""
    file = folder / f"{study}.jsonl"
    missing = [run for run in planned(study) if run[0] not in done(file)][:most]
    for count, (choices, planned_steps) in enumerate(missing, 1):
        wait_for_tests()
        began = time.process_time()
        row = {"choices": choices, "test_images": 597, "after": measure(choices, steps or planned_steps)}
        row |= {"cpu_seconds": round(time.process_time() - began, 2), **machine("torch")}
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{study} {count} of {len(missing)}: {row['cpu_seconds']} s", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; list or record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say what is recorded, and what is missing")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument("--most", type=int, help="at most so many runs of each study")
    parser.add_argument("--steps", type=int, help="instead of the planned ones, for a quick try in another folder")
    parser.add_argument("--output", type=user_path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    use_threads()
    for study in chosen.studies:
        if chosen.list:
            recorded = done(chosen.output / f"{study}.jsonl")
            left = sum(choices not in recorded for choices, _ in planned(study))
            print(f"{study}: {len(recorded)} runs recorded, {left} missing")
        else:
            with locked(chosen.output / ".locks" / f"{study}.lock"):
                record(study, chosen.output, chosen.most, chosen.steps)


if __name__ == "__main__":
    sys.exit(command_line(main)())
