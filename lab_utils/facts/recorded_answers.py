"""The recorded answers of page 15; `data/record_facts.py` asked for them, see data/README.md."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from ..errors import LabError, choose, real
from ..files import read_json, read_json_lines
from ..recorded_files import number, reading, restore
from .grading import UNKNOWN, VERDICTS, verdicts
from .house import FOLDER, WORDINGS, load_facts

ASKED = (*WORDINGS, "practice", "unstated")  # the three wordings of each fact, and what no fact answers
NAMES = ("nothing", "all facts", "1 note", "3 notes", "the right note", "adapter", "refusals", "reader")
RESTORE = restore("data/facts", "record_facts.py")


@dataclass(frozen=True)
class Answers:
    """What one arm answered.

    Attributes
    ----------
    name : str, "nothing", "1 note", "3 notes", "all facts", "the right note", "adapter", "refusals" or "reader"
    notes : "none", "all", "right", or how many retrieved notes were above each question
    trained : "", or what the adapter learned: "facts", "refusals" or "reader"
    rate : float, the learning rate; 0 without training
    seed : int
    outputs : dict, a name in `ASKED` -> list of str, in the order of the questions
    cpu_seconds : float, training included
    training_cpu_seconds : float
    """

    name: str
    notes: str | int
    trained: str
    rate: float
    seed: int
    outputs: dict = field(repr=False)
    cpu_seconds: float
    training_cpu_seconds: float

    def verdicts(self, asked: str, outputs: Sequence[str] | None = None) -> list[str]:
        """Is each answer right, wrong or "unknown"? By default of the recorded outputs."""
        choose("set of questions", asked, self.outputs)
        found = self.outputs[asked] if outputs is None else outputs
        return verdicts(found, [fact.answer for fact in load_facts()] if asked in WORDINGS else [None] * len(found))

    def learned(self, place: int, asked: str) -> bool:
        """Was a reader trained to read this very fact? Its answer says nothing about facts that are new to it."""
        return self.trained == "reader" and asked in WORDINGS and place in learned_half(self.seed)


def learned_half(seed: int) -> range:
    """Which facts a reader of this seed is trained on: every other one; it is tested on the rest."""
    return range(seed % 2, len(load_facts()), 2)


def load_answers(folder: str | Path = FOLDER) -> list[Answers]:
    """The recorded arms, in the order of their recording.

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    path = Path(folder) / "answers.jsonl"
    with reading(f"The recorded answers in {path}", RESTORE):
        return [_answers(row) for row in read_json_lines(path)]


def _answers(row: dict) -> Answers:
    """A line of the file as Answers, refused where a set of outputs is not complete."""
    sizes = {asked: len(load_facts()) if asked in WORDINGS else 20 for asked in ASKED}
    for asked, outputs in row["outputs"].items():
        if len(outputs) != sizes[asked] or not all(isinstance(one, str) for one in outputs):
            raise LabError(f"{row['name']!r} has {len(outputs)} outputs to {asked!r}, not {sizes[asked]} texts")
    numbers = {name: number(row[name], 0) for name in ("rate", "cpu_seconds", "training_cpu_seconds")}
    return Answers(**{name: row[name] for name in ("name", "notes", "trained", "seed", "outputs")}, **numbers)


def load_retrieved(folder: str | Path = FOLDER) -> dict[str, dict[str, list]]:
    """What the retriever found when it was recorded.

    Returns
    -------
    dict, a name in `ASKED` -> {"places": list of 5 facts' places for each question, the most alike first,
    "similarity": their cosines}

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    path = Path(folder) / "retrieved.json"
    with reading(f"The recorded search in {path}", RESTORE):
        found = read_json(path)
        return {asked: {name: found[asked][name] for name in ("places", "similarity")} for asked in ASKED}


def shares(arms: Sequence[Answers], asked: str, kind: str = "right") -> list[float]:
    """For each question the share of an arm's seeds whose answer is of one kind.

    Parameters
    ----------
    arms : the same arm with several seeds
    asked : a name in `ASKED`
    kind : "right", "wrong" or "unknown"

    Returns
    -------
    list of float in [0, 1], one per question; of readers, a question counts for the seed only that did not learn it
    """
    choose("kind of answer", kind, VERDICTS)
    if not arms:
        raise LabError("There are no recorded answers to count: give at least one.")
    judged = [arm.verdicts(asked) for arm in arms]
    counted = [
        [one[place] == kind for arm, one in zip(arms, judged, strict=True) if not arm.learned(place, asked)]
        for place in range(len(judged[0]))
    ]
    return [fmean(each) for each in counted if each]


def by_name(arms: Sequence[Answers]) -> dict[str, list[Answers]]:
    """The arms of all seeds by name; of one with several rates, those of the rate that the validation questions chose.

    Returns
    -------
    dict name -> list of Answers, in the order of `NAMES`

    Raises
    ------
    LabError
        A rate is to be chosen and nothing was asked in the validation questions' words.
    """
    return {name: _at_one_rate(found) for name in NAMES if (found := [arm for arm in arms if arm.name == name])}


def _at_one_rate(arms: list[Answers]) -> list[Answers]:
    """Those of the rate with most right answers to validation questions; the lower of equal ones."""
    rates = sorted({arm.rate for arm in arms})
    if len(rates) == 1:
        return arms
    seed = min(arm.seed for arm in arms)
    first = {arm.rate: arm.verdicts("validation").count("right") for arm in arms if arm.seed == seed}
    best = max(rates, key=lambda rate: first.get(rate, -1))
    return [arm for arm in arms if arm.rate == best]


def with_floor(outputs: Sequence[str], similarity: Sequence[Sequence[float]], floor: float) -> list[str]:
    """Answers with a floor under the search: where the best note is less alike than that, "I do not know."

    Parameters
    ----------
    outputs : list of str
    similarity : for each of them the cosines of its notes, the most alike first
    floor : float > 0

    Raises
    ------
    LabError
        The floor is not above 0, or there are more of the one than of the other.
    """
    floor = real("floor", floor)
    if len(outputs) != len(similarity):
        raise LabError(f"There are {len(outputs)} outputs and {len(similarity)} searches: give one search per output.")
    return [output if best[0] >= floor else UNKNOWN for output, best in zip(outputs, similarity, strict=True)]


def best_floor(found: dict[str, dict[str, list]]) -> float:
    """The floor that keeps most of the validation questions whose fact comes first, and stops most practice questions.

    Parameters
    ----------
    found : as `load_retrieved` gives it; neither the test questions nor the unstated ones are looked at

    Returns
    -------
    float, halfway between two similarities; the lowest of equally good ones
    """
    stated = [(row[0], places[0] == place) for place, (row, places) in enumerate(
        zip(found["validation"]["similarity"], found["validation"]["places"], strict=True))]  # fmt: skip
    unstated = [row[0] for row in found["practice"]["similarity"]]
    levels = sorted({one for one, _ in stated} | set(unstated))
    floors = [(low + high) / 2 for low, high in pairwise(levels)]

    def gain(floor: float) -> float:
        kept = fmean(hit and alike >= floor for alike, hit in stated)
        return kept + fmean(alike < floor for alike in unstated)

    return max(floors, key=gain)
