"""Lines of the evidence with made-up results: what `data/record_evidence.py` measures, without a model."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from lab_utils.sweep.evidence import Run, packed, packed_bits
from lab_utils.sweep.rate_search import exponent_of
from lab_utils.sweep.recording import record
from lab_utils.sweep.studies import STUDIES, Arm


def find_arm(name: str) -> Arm:
    """The arm that "study: arm" names."""
    study, _, arm = name.partition(": ")
    return next(one for one in STUDIES[study].arms if one.name == arm)


def results(run: Run, loss: float | None = None, messages: int = 20, **changes) -> dict:
    """What a measure returns: every message costs about `loss`, by default a valley over the learning rates."""
    exponent, seed = exponent_of(run.recipe.learning_rate), run.recipe.seed
    if loss is None:
        loss = 0.1 + 0.05 * abs(exponent - (1 if run.method == "full" else 4)) + 0.001 * seed
    rng = np.random.default_rng([seed, messages])
    losses = {split: loss + 0.01 * rng.random(messages) for split in ("validation", "test")}
    return {
        "problem": "", "trained_parameters": 7, "training_losses": packed([1.0, 0.5]), "cpu_seconds": 12.0,
        "losses": {split: packed(values) for split, values in losses.items()},
        "right": {split: packed_bits(values < loss + 0.005) for split, values in losses.items()},
        "data": "0123456789ab", "cpu": "made up", "threads": 1, "date": "2026-11-29", "versions": {"torch": "2.13.0"},
    } | changes  # fmt: skip


def row(run: Run, study: str = "rates", arm: str = "made up", **changes) -> dict:
    """A whole line."""
    return {"key": run.key, "study": study, "arm": arm, "choices": run.choices} | results(run, **changes)


def record_slowly(folder: str, seconds: float, *studies: str) -> None:
    """Record studies with made-up results, each after a while; notes who measured what in `measured.txt`."""

    def measure(arm: Arm, run: Run) -> dict:
        with open(Path(folder) / "measured.txt", "a") as file:
            file.write(json.dumps([os.getpid(), run.key]) + "\n")
        time.sleep(seconds)
        return results(run)

    record(folder, measure, studies=studies)


if __name__ == "__main__":
    record_slowly(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
