"""What a study found: its runs, the learning rate that each arm chose, and differences with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import LabError, choose
from .differences import Difference, compare, holm
from .evidence import FOLDER, Recorded, read_table, table_of
from .studies import STUDIES

__all__ = ["Results", "check_comparable", "difference", "holm", "load_study"]
FREE = ("learning_rate", "seed")  # what the runs of any study may differ in
VALUES = ("loss", "right")


@dataclass(frozen=True)
class Results:
    """A study's runs.

    Attributes
    ----------
    study : str
    runs : list of Recorded, in the order of the study's arms, by learning rate and seed
    """

    study: str
    runs: list[Recorded] = field(repr=False)

    @property
    def arms(self) -> list[str]:
        """The names of the arms that have runs."""
        return list(dict.fromkeys(one.arm for one in self.runs))

    def of_arm(self, arm: str) -> list[Recorded]:
        """All runs of an arm.

        Raises
        ------
        LabError
            The arm is unknown, or nothing of it is recorded.
        """
        choose("arm", arm, self.arms)
        return [one for one in self.runs if one.arm == arm]

    def rates(self, arm: str) -> dict[float, float]:
        """Learning rate -> validation loss of the first seed, ascending; infinity where a run blew up."""
        runs = self.of_arm(arm)
        first = min(one.run.recipe.seed for one in runs)
        found = {one.run.recipe.learning_rate: one.loss("validation") for one in runs if one.run.recipe.seed == first}
        return dict(sorted(found.items()))

    def best_rate(self, arm: str) -> float:
        """The learning rate with the lowest validation loss of the first seed, of those recorded."""
        rates = self.rates(arm)
        return min(rates, key=rates.get)

    def inside(self, arm: str) -> bool:
        """Are there a lower and a higher rate than the best? Else the best may lie beyond what was tried."""
        rates = list(self.rates(arm))
        return rates[0] < self.best_rate(arm) < rates[-1]

    def at(self, arm: str, learning_rate: float | None = None) -> list[Recorded]:
        """An arm's runs at one learning rate, by seed; default its best one.

        Raises
        ------
        LabError
            As `of_arm`, or nothing is recorded at that rate.
        """
        wanted = self.best_rate(arm) if learning_rate is None else learning_rate
        found = [one for one in self.of_arm(arm) if np.isclose(one.run.recipe.learning_rate, wanted, rtol=1e-6)]
        if not found:
            rates = ", ".join(f"{rate:g}" for rate in self.rates(arm))
            raise LabError(f"{self.study}: {arm} has no run at learning rate {wanted:g}. It has {rates}.")
        return sorted(found, key=lambda one: one.run.recipe.seed)

    def difference(self, first: str, second: str, value: str = "loss", split: str = "test") -> Difference:
        """Second arm minus first, each at its best learning rate: see `difference`."""
        compared = STUDIES[self.study].compared if self.study in STUDIES else ()
        return difference(self.at(first), self.at(second), value, split, compared=compared)

    def frame(self):
        """The runs as a pandas DataFrame.

        Returns
        -------
        DataFrame, a row per run: study, arm, what decides the result (see `Run.choices`), validation_loss, test_loss
        (means over messages), validation_exact, test_exact, `best` (is this the arm's best rate), problem, and the
        numbers of the table's line
        """
        import pandas

        best = {arm: self.best_rate(arm) for arm in self.arms}
        rows = []
        for one in self.runs:
            row = {"study": one.study, "arm": one.arm, **one.run.choices}
            for split in ("validation", "test"):
                row |= {f"{split}_loss": one.loss(split), f"{split}_exact": one.exact(split)}
            row["best"] = one.run.recipe.learning_rate == best[one.arm]
            row |= {name: value for name, value in one.row.items() if name not in NOT_IN_FRAME}
            rows.append(row)
        return pandas.DataFrame(rows)


NOT_IN_FRAME = ("choices", "losses", "right", "training_losses", "study", "arm")


def load_study(study: str, folder: str | Path = FOLDER) -> Results:
    """The runs of a study that are recorded.

    Parameters
    ----------
    study : str, a name in `STUDIES`
    folder : path of the tables

    Raises
    ------
    LabError
        Nothing is recorded, a line is damaged, or two runs differ in something that the study does not compare.
    """
    choose("study", study, STUDIES)
    described = STUDIES[study]
    wanted = [f"{study}: {arm.name}" for arm in described.arms]
    rows = read_table(table_of(folder, study))
    for name in described.shared:
        other, _, arm = name.partition(": ")
        rows += [row for row in read_table(table_of(folder, other)) if row["arm"] == arm]
    if not rows:
        raise LabError(
            f"Nothing of the study {study!r} is recorded in {folder}. Restore it with `git checkout -- data/evidence`, "
            f"or record it with `python data/record_evidence.py --only {study}`."
        )
    order = {name: place for place, name in enumerate([*wanted, *described.shared])}
    runs = sorted((Recorded.from_row(row) for row in rows), key=lambda one: order.get(f"{one.study}: {one.arm}", 0))
    check_comparable(runs, described.compared)
    return Results(study, runs)


def check_comparable(runs: Sequence[Recorded], compared: Sequence[str]) -> None:
    """Raise a LabError that names every choice in which runs differ, beyond `compared`, learning rate and seed.

    The messages count as a choice too: losses on other messages cannot be compared.
    """
    values: dict[str, list] = {}
    for one in runs:
        for name, value in (one.run.choices | {"messages": one.row["data"]}).items():
            if name not in (*compared, *FREE) and value not in (there := values.setdefault(name, [])):
                there.append(value)
    differing = {name: there for name, there in values.items() if len(there) > 1}
    if differing:
        said = "; ".join(f"{name}: {', '.join(map(str, there))}" for name, there in differing.items())
        raise LabError(
            f"These runs differ in what is not compared ({said}). Take the lines of the other recipe out of the table, "
            "or name that choice as compared."
        )


def difference(
    first: Sequence[Recorded], second: Sequence[Recorded], value: str = "loss", split: str = "test", *,
    compared: Sequence[str] = (),
) -> Difference:  # fmt: skip
    """Second minus first, message by message and seed by seed, with its 95 % interval over seeds and messages.

    Parameters
    ----------
    first, second : Recorded runs of one setting each, one per seed
    value : "loss", nats per answer token; or "right", the share of right answers
    split : str, a key of their `losses`: "test", "validation", …
    compared : names of choices that the two settings may differ in, apart from learning rate and seed

    Raises
    ------
    LabError
        The two differ in something else; a side mixes settings or holds a seed twice; fewer than two seeds a side; a
        run blew up; the split was not measured.
    """
    choose("value", value, VALUES)
    check_comparable([*first, *second], compared)
    sides, seeds = [], []
    for side in (first, second):
        names = [name for name in {**side[0].run.choices} if name != "seed"] if side else []
        mixed = [name for name in names if any(one.run.choices[name] != side[0].run.choices[name] for one in side)]
        if mixed:
            raise LabError(f"One side of a difference is one setting, but its runs differ in {', '.join(mixed)}.")
        if failed := next((one for one in side if one.problem), None):
            raise LabError(f"{failed.run} blew up and has no losses: {failed.problem}")
        if missing := next((one for one in side if split not in one.losses), None):
            raise LabError(f"{missing.run} was not measured on {split!r}, but on {', '.join(missing.losses)}.")
        if not side:
            raise LabError("One side of the difference has no runs.")
        sides.append(np.stack([(one.losses if value == "loss" else one.right)[split].astype(float) for one in side]))
        seeds.append([one.run.recipe.seed for one in side])
    return compare(*sides, seeds=tuple(seeds))
