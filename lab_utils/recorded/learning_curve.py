"""The recorded learning curve of page 14; `data/record_learning_curve.py` measured it, see data/README.md."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from ..errors import choose
from ..files import read_json_lines
from ..folders import DATA
from ..recorded_files import number, reading, restore

FOLDER = DATA / "learning_curve"
TASKS = ("tickets", "chats")
RATE = 4e-3  # of the curve: of LIVE_RATES the one with the lowest validation loss after LIVE examples
SIZES, SEEDS = (8, 32, 128, 512, 2000), (0, 1, 2)  # what is to be recorded
LIVE, LIVE_RATES = 640, (2e-3, 4e-3, 8e-3)  # examples and learning rates of the runs that page 14's own is one of
MESSAGES = {"validation": 100, "test": 200, "next_month": 60}  # that are answered


@dataclass(frozen=True)
class CurveRun:
    """One adapter, trained on so many examples.

    Attributes
    ----------
    task : "tickets" or "chats"
    examples, steps, seed : int
    learning_rate : float
    validation_loss, test_loss : float, mean over the examples, in nats per answer token
    test_exact : float in [0, 1], share of the 200 test examples whose (last) answer would be written as it should be
    next_month_exact : float or None, the same share of the 60 tickets written by hand; None for chats
    right : dict, "validation", "test" (and for tickets "next_month") -> tuple of bool, is each of its examples answered
        right
    losses : dict, the same keys -> tuple of float, each example's loss (float16: about three digits)
    provenance : dict, "cpu", "threads", "date", "versions", "cpu_seconds"
    """

    task: str
    examples: int
    steps: int
    seed: int
    learning_rate: float
    validation_loss: float
    test_loss: float
    test_exact: float
    next_month_exact: float | None
    right: Mapping[str, tuple[bool, ...]]
    losses: Mapping[str, tuple[float, ...]]
    provenance: dict


@dataclass(frozen=True)
class CurvePoint:
    """What is recorded of one size.

    Attributes
    ----------
    examples : int
    runs : tuple of CurveRun, one per seed, in their order
    """

    examples: int
    runs: tuple[CurveRun, ...]

    def wrong(self, split: str = "test") -> np.ndarray:
        """Which answers are wrong: bool (seeds, messages of the split)."""
        return ~np.array([run.right[split] for run in self.runs])


def load_learning_curve(task: str, folder: str | Path = FOLDER) -> list[CurveRun]:
    """The recorded runs of a task, by size, rate and seed; an empty list where none is recorded yet.

    Parameters
    ----------
    task : "tickets" or "chats"
    folder : path, holds `<task>.jsonl`

    Raises
    ------
    LabError
        The task is unknown, or a line is damaged.
    """
    path = Path(folder) / f"{choose('task', task, TASKS)}.jsonl"
    if not path.exists():
        return []
    with reading(f"The recorded learning curve in {path}", restore("data/learning_curve", "record_learning_curve.py")):
        rows = read_json_lines(path)
        runs = {row["key"]: _run(task, row) for row in rows}
    return sorted(runs.values(), key=lambda run: (run.examples, run.learning_rate, run.seed))


def _run(task: str, row: dict) -> CurveRun:
    choices, measured = row["choices"], ("validation_loss", "test_loss", "test_exact")
    splits = [split for split in MESSAGES if split != "next_month" or task == "tickets"]
    return CurveRun(
        task=task, learning_rate=number(choices["learning_rate"], 0),
        **{name: choices[name] for name in ("examples", "steps", "seed")},
        **{name: number(row[name], 0) for name in measured},
        next_month_exact=number(row["next_month_exact"], 0) if task == "tickets" else None,
        right={split: _right(row, split) for split in splits},
        losses={split: _losses(row, split) for split in splits},
        provenance={name: row[name] for name in ("cpu", "threads", "date", "versions", "cpu_seconds")},
    )


def _right(row: dict, split: str) -> tuple[bool, ...]:
    """Which examples of a split are answered right, eight to a byte in the file."""
    packed = np.frombuffer(base64.b64decode(row[f"{split}_right"]), dtype=np.uint8)
    found = tuple(np.unpackbits(packed)[: MESSAGES[split]].astype(bool).tolist())
    if len(found) != MESSAGES[split] or round(fmean(found), 4) != row[f"{split}_exact"]:
        raise ValueError(f"{split}_right holds {sum(found)} right answers of {len(found)}, not {row[f'{split}_exact']}")
    return found


def _losses(row: dict, split: str) -> tuple[float, ...]:
    """The loss of each example of a split, float16 in the file."""
    found = np.frombuffer(base64.b64decode(row[f"{split}_losses"]), dtype="<f2").astype(float)
    if len(found) != MESSAGES[split] or not abs(found.mean() - row[f"{split}_loss"]) < 1e-3 * (1 + found.mean()):
        raise ValueError(f"{split}_losses holds {len(found)} losses, not of a mean of {row[f'{split}_loss']}")
    return tuple(found.tolist())


def curve_points(runs: Sequence[CurveRun], learning_rate: float = RATE) -> list[CurvePoint]:
    """The runs of the curve's sizes at one learning rate, size by size.

    Parameters
    ----------
    runs : of one task, as `load_learning_curve` returns them
    learning_rate : float
    """
    sizes = {size: tuple(run for run in runs if (run.examples, run.learning_rate) == (size, learning_rate))
             for size in SIZES}  # fmt: skip
    return [CurvePoint(size, found) for size, found in sizes.items() if found]


def missing(runs: Sequence[CurveRun]) -> int:
    """How many of a task's fifteen runs at the curve's rate are not recorded yet."""
    there = {(run.examples, run.seed) for run in runs if run.learning_rate == RATE}
    return sum((size, seed) not in there for size in SIZES for seed in SEEDS)
