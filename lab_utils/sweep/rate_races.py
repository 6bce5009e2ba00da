"""Methods compared at one learning rate, and each at its own best one: page 11's races.

A race is a table of runs that differ in variant, learning rate and seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from statistics import fmean, stdev

from ..errors import LabError
from ..recorded.variants import FILE, RACE, load_race, load_variants
from .differences import LEVEL, _quantile
from .evidence import FOLDER, read_table, table_of
from .study_results import load_study

REFERENCE = "lora"
COLUMNS = ("variant", "learning_rate", "seed", "validation_loss", "test_loss")


@dataclass(frozen=True)
class Standing:
    """One variant in a race, at one learning rate.

    Attributes
    ----------
    variant : str
    learning_rate : float; None if it was not run at the rate that is asked for, or blew up there
    losses : dict seed -> loss
    edge : bool, was no lower or no higher rate tried than this one
    clear : bool, do the seeds that it shares with LoRA show a difference, corrected for all comparisons
    """

    variant: str
    learning_rate: float | None
    losses: dict[int, float]
    edge: bool
    clear: bool

    @property
    def mean(self) -> float:
        """Mean loss over seeds; infinity without a run."""
        return fmean(self.losses.values()) if self.losses else float("inf")

    @property
    def reach(self) -> float:
        """Half width of the mean's 95 % interval over seeds; 0 with fewer than two runs, which have none."""
        values, n = list(self.losses.values()), len(self.losses)
        return _quantile(1 - LEVEL, n - 1) * stdev(values) / sqrt(n) if n > 1 else 0.0


def variant_races(file: str | Path = FILE, race: str | Path = RACE, evidence: str | Path = FOLDER) -> dict:
    """All recorded races of LoRA's variants.

    Returns
    -------
    dict title -> DataFrame with the columns variant, learning_rate, seed, validation_loss and test_loss (NaN where not
    measured). That of 100 steps on bookings is there once some of it is recorded.

    Raises
    ------
    LabError
        A file is missing or damaged.
    """
    runs, recipe = load_variants(file)
    races = {"mirrored digits": load_race(race)[0], f"bookings, {recipe['steps']} steps": runs}
    if read_table(table_of(evidence, "variants")):
        frame = load_study("variants", evidence).frame()
        races["bookings, 100 steps"] = frame.assign(variant=frame["arm"])
    return {title: found[list(COLUMNS)].reset_index(drop=True) for title, found in races.items()}


def compared_by(runs) -> str:
    """"test_loss", or "validation_loss" where some run has no test loss, though it has the other."""
    usable = runs[runs["validation_loss"].map(isfinite)]
    return "test_loss" if usable["test_loss"].map(isfinite).all() else "validation_loss"


def best_rate(runs, variant: str) -> float | None:
    """The rate with the smallest mean validation loss over the seeds that all of the variant's rates have.

    Rates at which a run blew up are left out. None without any run.
    """
    own = runs[runs["variant"] == variant]
    losses = {rate: dict(zip(some["seed"], some["validation_loss"], strict=True))
              for rate, some in own.groupby("learning_rate")}  # fmt: skip
    losses = {rate: some for rate, some in losses.items() if all(map(isfinite, some.values()))}
    if not losses:
        return None
    shared = set.intersection(*(set(some) for some in losses.values()))
    if not shared:
        raise LabError(f"The rates of {variant} share no seed: they cannot be compared.")
    return float(min(losses, key=lambda rate: fmean(losses[rate][seed] for seed in sorted(shared))))


def standings(runs, learning_rate: float | None = None) -> list[Standing]:
    """Every variant of a race at one learning rate, or each at its best.

    Parameters
    ----------
    runs : DataFrame, one of `variant_races`
    learning_rate : float; None takes each variant's `best_rate`

    Returns
    -------
    list of Standing: the smallest mean first if all variants that ran have two seeds or more; else nothing is ranked,
    and they are in the order of the table
    """
    value = compared_by(runs)
    variants = list(dict.fromkeys(runs["variant"]))
    rates = {name: best_rate(runs, name) if learning_rate is None else learning_rate for name in variants}
    losses = {name: _losses(runs, name, rate, value) for name, rate in rates.items()}
    rivals = [name for name in variants if name != REFERENCE and _shared(losses, name)]
    found = []
    for name in variants:
        tried = runs[runs["variant"] == name]["learning_rate"]
        edge = bool(losses[name]) and rates[name] in (tried.min(), tried.max())
        clear = name in rivals and _differs(losses, name, len(rivals))
        found.append(Standing(name, rates[name] if losses[name] else None, losses[name], edge, clear))
    return sorted(found, key=lambda one: one.mean) if ranked(found) else found


def ranked(found: Sequence[Standing]) -> bool:
    """May these be put in an order: has each that ran two runs or more?"""
    return all(len(one.losses) != 1 for one in found) and any(one.losses for one in found)


def _losses(runs, variant: str, rate: float | None, value: str) -> dict[int, float]:
    """seed -> loss of a variant's runs at a rate, none if one of them blew up."""
    own = runs[(runs["variant"] == variant) & (runs["learning_rate"] == rate)].sort_values("seed")
    found = {int(seed): float(loss) for seed, loss in zip(own["seed"], own[value], strict=True)}
    return found if all(map(isfinite, found.values())) else {}


def _shared(losses: dict[str, dict[int, float]], name: str) -> list[int]:
    """Two or more seeds that a variant shares with LoRA; else none."""
    shared = sorted(set(losses[name]) & set(losses.get(REFERENCE, {})))
    return shared if len(shared) > 1 else []


def _differs(losses: dict[str, dict[int, float]], name: str, comparisons: int) -> bool:
    """Does the interval of the paired differences leave zero out, at 5 % shared among all comparisons (Bonferroni)?

    Never where the runs are one run, since nothing in them is drawn: only the other side's seeds would be tested.
    """
    if len(set(losses[name].values())) == 1:
        return False
    shared = _shared(losses, name)
    gaps = [losses[name][seed] - losses[REFERENCE][seed] for seed in shared]
    return abs(fmean(gaps)) > _quantile((1 - LEVEL) / comparisons, len(gaps) - 1) * stdev(gaps) / sqrt(len(gaps))
