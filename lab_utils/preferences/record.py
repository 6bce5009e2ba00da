"""Recorded runs of page 16: what pairs, rewards and imitation make of one half-trained adapter (data/README.md)."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import whole
from ..files import read_json, read_json_lines
from ..folders import DATA
from ..recorded_files import number, reading, restore
from .verified import own_pairs

FOLDER = DATA / "preferences"
ARMS = (  # in the order shown, each with all its rates
    "rejection", "labels", "own pairs", "near misses", "near misses: number", "near misses: capital",
    "near misses: day", "right", "right, 8 steps", "brief", "brief, unscaled", "right, rank 1", "coin, rank 1",
    "right, rank 32",
)  # fmt: skip
WAY_OUT = restore("data/preferences", "record_preferences.py")


@dataclass(frozen=True)
class Scored:
    """What a model answers to the recorder's test messages.

    Attributes
    ----------
    right : tuple of int, 1 for each message whose answer is right as a whole, else 0; the same messages for all
    valid : float in [0, 1], share of answers that are JSON
    characters : float, mean length of an answer
    fields : dict name of a field -> share of answers in which it is right
    provenance : dict, "cpu", "threads", "date", "versions", "cpu_seconds"
    outputs : tuple of str, its answers to the first test messages; () where none were kept
    """

    right: tuple[int, ...]
    valid: float
    characters: float
    fields: dict[str, float] = field(repr=False)
    provenance: dict = field(repr=False)
    outputs: tuple[str, ...] = field(default=(), repr=False)

    @property
    def exact(self) -> float:
        """The share of right answers."""
        return sum(self.right) / len(self.right)


@dataclass(frozen=True)
class PreferenceRun(Scored):
    """One arm with one seed.

    Attributes
    ----------
    arm : str, see data/README.md
    seed : int
    learns_from : str, "rewards", "near misses" (of one kind: "near misses: day"), "own pairs", "own right answers" or
        "labels"
    rows : int, messages, pairs or answers that it was shown
    recipe : dict
    history : tuple of dict, one per step
    """

    arm: str = ""
    seed: int = 0
    learns_from: str = ""
    rows: int = 0
    recipe: dict = field(default_factory=dict, repr=False)
    history: tuple[dict, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PairCourse:
    """How likely both answers of some pairs were while DPO trained on them.

    Attributes
    ----------
    learning_rate, beta : float, the run's
    pairs : tuple of {"prompt", "chosen", "rejected", "mistake"}, the first of each message that it learned from
    logprobs : tuple, [step][pair] -> (chosen, rejected), nats; step 0 is the start, which is the reference
    history : tuple of dict, one per step, as `prefer` gives it
    """

    learning_rate: float
    beta: float
    pairs: tuple[dict, ...] = field(repr=False)
    logprobs: tuple[tuple[tuple[float, float], ...], ...] = field(repr=False)
    history: tuple[dict, ...] = field(repr=False)


def recorded_courses(folder: str | Path = FOLDER) -> list[PairCourse]:
    """What `record_pairs.py` recorded: runs of DPO on the model's own pairs, the slowest learning rate first.

    Parameters
    ----------
    folder : path, holds `pairs.jsonl`, and `samples-<seed>.jsonl`, of which the pairs are made

    Raises
    ------
    LabError
        They are missing or damaged.
    """
    with reading(f"The recorded pairs in {folder}", restore("data/preferences", "record_pairs.py")):
        found = [_course(row, folder) for row in read_json_lines(Path(folder) / "pairs.jsonl")]
        if not found:
            raise ValueError("there is no run")
        return sorted(found, key=lambda course: course.learning_rate)


def recorded_runs(folder: str | Path = FOLDER) -> dict[str, list[PreferenceRun]]:
    """Arm -> its recorded runs by seed, known arms first; an arm of which nothing is recorded is left out.

    Parameters
    ----------
    folder : path, holds `runs.jsonl`

    Raises
    ------
    LabError
        The file is missing or damaged, a run is there twice, or two were scored on different numbers of messages.
    """
    with reading(f"The recorded runs in {folder}", WAY_OUT):
        found = [_run(row) for row in read_json_lines(Path(folder) / "runs.jsonl")]
        if len({(run.arm, run.seed) for run in found}) < len(found):
            raise ValueError("a run is there twice")
        if len({len(run.right) for run in found}) > 1:
            raise ValueError("runs scored on different numbers of messages")
    order = {arm: place for place, arm in enumerate(ARMS)}
    arms = sorted({run.arm for run in found}, key=lambda arm: (order.get(arm.partition(", rate")[0], len(ARMS)), arm))
    return {arm: sorted((run for run in found if run.arm == arm), key=lambda run: run.seed) for arm in arms}


def recorded_start(rank: int = 4, folder: str | Path = FOLDER) -> tuple[Path, Scored]:
    """The half-trained adapter that the arms of a rank start from: its folder, and how it scores.

    Parameters
    ----------
    rank : int >= 1
    folder : path, holds `start`, and `start-<rank>` for ranks other than 4

    Raises
    ------
    LabError
        It is missing or damaged.
    """
    path = Path(folder) / ("start" if whole("rank", rank) == 4 else f"start-{rank}")
    with reading(f"The recorded adapter in {path}", WAY_OUT):
        return path, _scored(read_json(path / "record.json"))


def recorded_samples(seed: int = 0, folder: str | Path = FOLDER) -> list[dict]:
    """The half-trained adapter's own answers to a seed's messages: rows of {"prompt", "answer", "outputs"}.

    Parameters
    ----------
    seed : int >= 0
    folder : path, holds `samples-<seed>.jsonl`

    Raises
    ------
    LabError
        They are missing or damaged.
    """
    path = Path(folder) / f"samples-{whole('seed', seed, 0)}.jsonl"
    with reading(f"The recorded answers in {path}", WAY_OUT):
        rows = read_json_lines(path)
        for row in rows:
            texts = [row["prompt"], row["answer"], *row["outputs"]]
            if not row["outputs"] or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{str(row)[:60]} has no answers")
        return rows


def _scored(row: dict) -> Scored:
    """A record's scores, checked."""
    return Scored(**_scores(row))


def _scores(row: dict) -> dict:
    """The fields of `Scored`."""
    right = tuple(int(one) for one in row["right"])
    if not right or set(right) - {0, 1} or len(right) != row["examples"]:
        raise ValueError(f"{row['right'][:20]!r} where one digit per message is expected")
    if abs(sum(right) / len(right) - number(row["exact"], 0)) > 1e-9:
        raise ValueError(f"exact={row['exact']} where {sum(right) / len(right)} was counted")
    return {
        "right": right, "valid": number(row["valid"], 0), "characters": number(row["characters"], 0),
        "fields": {name: number(share, 0) for name, share in row["fields"].items()},
        "provenance": {name: row[name] for name in ("cpu", "threads", "date", "versions", "cpu_seconds")},
        "outputs": tuple(row.get("outputs", ())),
    }  # fmt: skip


def _run(row: dict) -> PreferenceRun:
    """A line as a run, checked."""
    for step in row["history"]:
        for value in step.values():
            number(value)
    return PreferenceRun(
        **_scores(row), arm=row["arm"], seed=whole("seed", row["seed"], 0), learns_from=row["learns_from"],
        rows=whole("rows", row["rows"]), recipe=row["recipe"], history=tuple(row["history"]),
    )  # fmt: skip


def _course(row: dict, folder: str | Path) -> PairCourse:
    """A line of `pairs.jsonl`, checked."""
    pairs = own_pairs(recorded_samples(row["seed"], folder))
    pairs = tuple(pairs[whole("place", place, 0)] for place in row["places"])
    logprobs = tuple(tuple((-number(-chosen, 0), -number(-rejected, 0)) for chosen, rejected in step)
                     for step in row["logprobs"])  # fmt: skip
    if {len(step) for step in logprobs} != {len(pairs)} or len(logprobs) != len(row["history"]) + 1:
        raise ValueError(f"{len(logprobs)} readings of {len(pairs)} pairs where {len(row['history']) + 1} are expected")
    recipe = row["recipe"]
    return PairCourse(number(recipe["learning_rate"], 0), number(recipe["beta"], 0), pairs, logprobs,
                      tuple(row["history"]))  # fmt: skip
