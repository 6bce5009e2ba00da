"""The recorded runs of page 15: what the model pays for a skill, and where many epochs of few messages lead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from ..errors import LabError, choose
from ..files import read_json_lines
from ..folders import DATA
from ..recorded_files import number, reading, restore

FORGETTING = DATA / "forgetting"
PROVENANCE = ("cpu", "threads", "date", "versions", "cpu_seconds")
KINDS = ("skill", "prose", "questions", "style")


@dataclass(frozen=True)
class Texts:
    """What the fixed texts cost a model.

    Attributes
    ----------
    losses : dict kind -> tuple of float, mean loss of each text in nats per token; the kinds are `KINDS`
    right : tuple of bool, of each text of "skill": would greedy decoding write the answer letter by letter
    """

    losses: dict[str, tuple[float, ...]] = field(repr=False)
    right: tuple[bool, ...] = field(repr=False)

    def mean(self, kind: str) -> float:
        """Mean over the texts of a kind, each counted once."""
        return fmean(self.losses[choose("kind", kind, KINDS)])

    @property
    def exact(self) -> float:
        """Share of messages that are answered letter by letter."""
        return fmean(self.right)


@dataclass(frozen=True)
class ForgettingRun:
    """One run.

    Attributes
    ----------
    arm : str, how it was trained
    seed, rank, steps : int
    learning_rate : float
    at : dict step -> Texts, at the checkpoints; step 0 is the base
    strengths : dict strength -> Texts, with the adapter turned up or down, 0 and 1 among them; {} where not recorded
    random : Texts or None, with a random adapter whose updates are as large, matrix by matrix
    cosines : dict matrix -> tuple of float, how like the old singular vectors its ten leading new ones are
    relative_updates : dict matrix -> float, ‖ΔW‖ / ‖W‖
    provenance : dict, "cpu", "threads", "date", "versions", "cpu_seconds"
    training_losses : tuple of float, each step's loss on its batch's answers, before the step
    examples : int or None, it was trained on the first so many messages, again and again; None: on all of them
    """

    arm: str
    seed: int
    rank: int
    steps: int
    learning_rate: float
    at: dict[int, Texts] = field(repr=False)
    strengths: dict[float, Texts] = field(repr=False)
    random: Texts | None = field(repr=False)
    cosines: dict[str, tuple[float, ...]] = field(repr=False)
    relative_updates: dict[str, float] = field(repr=False)
    provenance: dict = field(repr=False)
    training_losses: tuple[float, ...] = field(default=(), repr=False)
    examples: int | None = None

    @property
    def before(self) -> Texts:
        """The base."""
        return self.at[0]

    @property
    def after(self) -> Texts:
        """After the last step."""
        return self.at[self.steps]


def load_forgetting(folder: str | Path = FORGETTING) -> dict[str, list[ForgettingRun]]:
    """The recorded runs of each arm, by seed.

    Parameters
    ----------
    folder : path, holds `runs.jsonl`

    Raises
    ------
    LabError
        The file is missing, a line is damaged, or a run read other texts than the first one.
    """
    return _load(Path(folder) / "runs.jsonl", "record_forgetting.py")


def load_epochs(folder: str | Path = FORGETTING) -> dict[str, list[ForgettingRun]]:
    """The recorded runs of many epochs of few messages, by seed: read before the first and after each.

    In these the texts of "skill" are validation messages.

    Parameters
    ----------
    folder : path, holds `epochs.jsonl`

    Raises
    ------
    LabError
        As for `load_forgetting`.
    """
    return _load(Path(folder) / "epochs.jsonl", "record_overfitting.py")


def epoch_ends(examples: int, epochs: int, batch_size: int = 4) -> list[int]:
    """The number of steps after which each epoch is over, but for less than a batch of it: a list of `epochs` ints."""
    return [examples * count // batch_size for count in range(1, epochs + 1)]


def by_epoch(run: ForgettingRun, batch_size: int = 4) -> list[dict]:
    """A point per epoch of a run of `load_epochs`.

    Parameters
    ----------
    run : ForgettingRun, with `examples`
    batch_size : int >= 1, messages per step

    Returns
    -------
    list of dict: "epoch", from 1; "step", the last of it; "training", the mean loss of its steps; "validation", the
    mean loss on the skill's texts after it; "exact", share of these that are answered letter by letter
    """
    points, last = [], 0
    epochs = round(run.steps * batch_size / run.examples)
    for epoch, step in enumerate(epoch_ends(run.examples, epochs, batch_size), 1):
        training, texts = fmean(run.training_losses[last:step]), run.at[step]
        points.append({"epoch": epoch, "step": step, "training": training, "validation": texts.mean("skill")})
        points[-1]["exact"], last = texts.exact, step
    return points


def _load(path: Path, script: str) -> dict[str, list[ForgettingRun]]:
    """The runs of a file, checked, by arm and seed."""
    with reading(f"The recorded runs in {path}", restore("data/forgetting", script)):
        lines = read_json_lines(path)
        shape = lines[0]["checkpoints"][0]["tokens"] if lines else {}
        runs = {(row["arm"], row["seed"]): _run(row, shape) for row in lines}
    found: dict[str, list[ForgettingRun]] = {}
    for run in sorted(runs.values(), key=lambda run: run.seed):
        found.setdefault(run.arm, []).append(run)
    return found


def at_skill(run: ForgettingRun, loss: float) -> dict[str, tuple[float, ...]] | None:
    """Every text's loss at the moment when the mean loss on the skill was `loss`; None if it never came so low.

    Between two checkpoints everything is taken to move in a straight line.

    Parameters
    ----------
    run : ForgettingRun
    loss : float, in nats per token, mean over the texts of "skill"

    Returns
    -------
    dict kind -> tuple of float, or None
    """
    steps = sorted(run.at)
    for earlier, later in pairwise(steps):
        high, low = run.at[earlier].mean("skill"), run.at[later].mean("skill")
        if high >= loss >= low:
            part = (high - loss) / (high - low) if high > low else 0.0
            return {kind: _between(run.at[earlier].losses[kind], run.at[later].losses[kind], part) for kind in KINDS}
    return None


def _between(first, second, part: float) -> tuple[float, ...]:
    return tuple(a + part * (b - a) for a, b in zip(first, second, strict=True))


def _texts(row: Mapping, shape: Mapping) -> Texts:
    """One reading, checked."""
    if row["tokens"] != shape or set(row["losses"]) != set(KINDS):
        raise LabError("A run read other texts than the first run")
    losses = {kind: tuple(float(number(one, least=0)) for one in row["losses"][kind]) for kind in KINDS}
    if any(len(losses[kind]) != len(shape[kind]) for kind in KINDS) or len(row["right"]) != len(losses["skill"]):
        raise LabError("A text has no loss")
    if set(row["right"]) - {"0", "1"}:
        raise ValueError(f"{row['right']!r} where zeros and ones are expected")
    return Texts(losses, tuple(letter == "1" for letter in row["right"]))


def _run(row: Mapping, shape: Mapping) -> ForgettingRun:
    """One line, checked."""
    recipe = row["recipe"]
    at = {point["step"]: _texts(point, shape) for point in row["checkpoints"]}
    if 0 not in at or recipe["steps"] not in at:
        raise LabError("A run lacks its first or its last checkpoint")
    strengths = {float(number(point["strength"])): _texts(point, shape) for point in row["strengths"]}
    if strengths:
        strengths = dict(sorted((strengths | {0.0: at[0], 1.0: at[recipe["steps"]]}).items()))
    matrices = row["matrices"]
    return ForgettingRun(
        row["arm"], row["seed"], recipe["rank"], recipe["steps"], float(number(recipe["learning_rate"], least=0)), at,
        strengths, _texts(row["random"], shape) if row["random"] else None,
        {name: tuple(float(number(one, least=0)) for one in some["cosines"]) for name, some in matrices.items()},
        {name: float(number(some["relative_update"], least=0)) for name, some in matrices.items()},
        {name: row[name] for name in PROVENANCE}, tuple(float(number(one, least=0)) for one in row["training_losses"]),
        recipe["train_examples"],
    )  # fmt: skip
