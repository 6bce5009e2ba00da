"""The recorded seeds of page 08's run; `data/record_seeds.py` trained them, see data/README.md."""

from dataclasses import dataclass, field
from pathlib import Path

from ..files import read_json_lines
from ..folders import DATA
from ..recorded_files import number, reading, restore

SEED_RUNS = DATA / "seeds" / "bookings.jsonl"
SPLITS = ("test", "handwritten")


@dataclass(frozen=True)
class SeedRun:
    """Page 08's run with one seed.

    Attributes
    ----------
    seed : int, of the adapter's start and of the order of the examples
    right : dict split -> tuple of 0.0 and 1.0, was each message answered exactly right, from the first of the split on
    valid : dict split -> int, how many of these answers are well-formed
    fields : dict split -> dict of field -> int, how many have the field right
    prose : dict of "off" and "on", float, nats per token of `data/prose` without and with the adapter
    recipe : dict, every field of the recipe
    training_loss : tuple of float, of every step
    provenance : dict, "cpu", "threads", "date", "versions", "compute_dtype", "training_seconds", "cpu_seconds"
    """

    seed: int
    right: dict[str, tuple[float, ...]]
    valid: dict[str, int]
    fields: dict[str, dict[str, int]]
    prose: dict[str, float]
    recipe: dict = field(repr=False)
    training_loss: tuple[float, ...] = field(repr=False)
    provenance: dict = field(repr=False)


def seed_runs(file: str | Path = SEED_RUNS) -> list[SeedRun]:
    """Every recorded seed, the lowest first; all were asked the same messages.

    Parameters
    ----------
    file : path of the JSON Lines file, a line per seed

    Raises
    ------
    LabError
        The file is missing or damaged, a seed is there twice, or two seeds differ in more than the seed.
    """
    with reading(f"The recorded seeds in {file}", restore("data/seeds", "record_seeds.py")):
        runs = sorted((_run(row) for row in read_json_lines(file)), key=lambda run: run.seed)
        if len({run.seed for run in runs}) < len(runs):
            raise ValueError("a seed is there twice")
        shared = [(run.recipe | {"seed": None}, {split: len(run.right[split]) for split in SPLITS}) for run in runs]
        if any(one != shared[0] for one in shared):
            raise ValueError("the seeds differ in more than the seed: in recipe, or in how many messages they read")
        return runs


def _run(row: dict) -> SeedRun:
    """A line as a run, if it is whole."""
    right = {split: _digits(row["scores"][split]["right"]) for split in SPLITS}
    for split in SPLITS:
        counts = {"valid": row["scores"][split]["valid"], **row["scores"][split]["fields"]}
        if not all(sum(right[split]) <= number(count) <= len(right[split]) for count in counts.values()):
            raise ValueError(f"counts that do not fit to the {split} messages")
    return SeedRun(
        seed=row["recipe"]["seed"], recipe=row["recipe"], right=right, provenance=row["provenance"],
        valid={split: row["scores"][split]["valid"] for split in SPLITS},
        fields={split: row["scores"][split]["fields"] for split in SPLITS},
        prose={name: number(row["prose"][name], 0) for name in ("off", "on")},
        training_loss=tuple(number(loss, 0) for loss in row["training_loss"]),
    )  # fmt: skip


def _digits(text: str) -> tuple[float, ...]:
    """A text of 0 and 1 as numbers."""
    if not text or set(text) - {"0", "1"}:
        raise ValueError(f"{text!r} where a digit 0 or 1 per message is expected")
    return tuple(map(float, text))
