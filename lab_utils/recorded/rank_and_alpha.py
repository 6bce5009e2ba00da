"""The recorded trainings of page 04's digit reader; `data/record_rank_and_alpha.py` ran them, see data/README.md."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np

from ..errors import LabError, choose
from ..files import read_text
from ..folders import DATA
from ..recorded_files import number, reading, restore

FOLDER = DATA / "rank_and_alpha"
CHOOSING = 297  # new images that choose a learning rate; the other 300 give the result
STUDIES = ("ranks", "scaling", "starts", "dropout", "layers")
CHOICES = {  # of a run, and what each must be; a study's arms differ in some of them
    "task": str, "layers": str, "rank": int, "alpha": float, "rule": str, "start": str, "dropout": float,
    "images": int, "learning_rate": float, "seed": int,
}  # fmt: skip


@dataclass(frozen=True)
class ReaderRun:
    """One adapter of the digit reader, after some of its training steps.

    Attributes
    ----------
    choices : dict, "task", "layers" ("first", "second" or "both"), "rank", "alpha", "rule" ("alpha / rank" or
        "alpha / √rank"), "start", "dropout", "images", "learning_rate", "seed"
    steps : int, training steps so far
    loss : float, on the training images, mean of the last 20 steps, in nats per image
    right : bool array (597,), for each new image whether its digit is read correctly
    """

    choices: dict
    steps: int
    loss: float
    right: np.ndarray = field(repr=False)

    @property
    def validation(self) -> float:
        """Share of the first 297 new images that are read correctly, in [0, 1]: it may choose a learning rate."""
        return float(self.right[:CHOOSING].mean())

    @property
    def test(self) -> np.ndarray:
        """`right` for the other 300 new images, which choose nothing."""
        return self.right[CHOOSING:]


def reader_runs(study: str, folder: str | Path = FOLDER, **choices) -> list[ReaderRun]:
    """The recorded runs of a study, one entry per run and number of steps, by steps, learning rate and seed.

    Parameters
    ----------
    study : "ranks", "scaling", "starts", "dropout" or "layers"
    folder : path, holds `<study>.jsonl`
    choices : of a run, by name: only runs with these are returned; "steps" too

    Raises
    ------
    LabError
        Unknown study or choice, no run is like that, or the file is missing or damaged.
    """
    choose("study", study, STUDIES)
    for name in choices:
        choose("choice", name, (*CHOICES, "steps"))
    found = [run for run in _read(Path(folder), study) if _is(run, choices)]
    if not found:
        raise LabError(f"The study {study!r} has no run with {choices}. data/README.md says what is recorded.")
    return found


def best_rate(runs: Sequence[ReaderRun]) -> list[ReaderRun]:
    """Of runs that differ in learning rate and seed, those of the rate that reads most of the first 297 new images.

    The other 300 have no say in it. A rate must have as many runs as the rate that has most.

    Parameters
    ----------
    runs : of one arm, all after the same number of steps

    Raises
    ------
    LabError
        The runs differ in something else.
    """
    if len({(run.steps, *(run.choices[name] for name in _FIXED)) for run in runs}) != 1:
        raise LabError("These runs differ in more than learning rate and seed: choose one arm and one number of steps.")
    by_rate: dict[float, list[ReaderRun]] = {}
    for run in runs:
        by_rate.setdefault(run.choices["learning_rate"], []).append(run)
    most = max(map(len, by_rate.values()))
    whole = [some for some in by_rate.values() if len(some) == most]
    return max(whole, key=lambda some: fmean(run.validation for run in some))


_FIXED = tuple(name for name in CHOICES if name not in ("learning_rate", "seed"))


def _is(run: ReaderRun, choices: dict) -> bool:
    return all((run.steps if name == "steps" else run.choices[name]) == value for name, value in choices.items())


@cache
def _read(folder: Path, study: str) -> tuple[ReaderRun, ...]:
    file = folder / f"{study}.jsonl"
    with reading(f"The recorded runs in {file}", restore("data/rank_and_alpha", "record_rank_and_alpha.py")):
        rows = [json.loads(line) for line in read_text(file).splitlines()]
        runs = [run for row in rows for run in _runs_of(row)]
        return tuple(sorted(runs, key=lambda run: (run.steps, run.choices["learning_rate"], run.choices["seed"])))


def _runs_of(row: dict) -> list[ReaderRun]:
    """A line's entries, one for each number of steps at which the run was measured."""
    choices = {name: kind(row["choices"][name]) for name, kind in CHOICES.items()}
    found = []
    for steps, mark in row["after"].items():
        bits = np.frombuffer(base64.b64decode(mark["right"], validate=True), dtype=np.uint8)
        right = np.unpackbits(bits)[: row["test_images"]].astype(bool)
        if len(right) != row["test_images"]:
            raise ValueError(f"{len(right)} answers for {row['test_images']} images")
        found.append(ReaderRun(choices, int(steps), number(mark["loss"], 0), right))
    return found
