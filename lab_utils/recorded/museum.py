"""The recorded cases of the museum's test, and its exhibits with several seeds; see data/README.md.

`data/record_museum.py` measured the cases, `data/record_museum_seeds.py` trained the exhibits.
"""

import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ..files import read_json, read_json_lines
from ..folders import DATA
from ..recorded_files import number, reading, restore

MUSEUM = DATA / "museum"
FILE = "cases.json"
SEEDS = MUSEUM / "seeds.jsonl"
LISTS = ("losses", "norms", "lengths", "held_out")  # by step, and by message
PARTS = ("prompt", "prompt_pull", "answer", "answer_pull")  # of the loss on all tokens, and of its gradient
DIGITS = 4  # behind the point, or of a number below 1: what a line of SEEDS keeps
MEASUREMENTS = (
    "ends of turn among the labels of two examples",
    "tokens of two examples that are in the loss",
    "largest entry of B",
    "highest gradient norm",
    "second example's loss in a pack: change with another first",
    "served logits: largest difference from those after training",
    "how many times ΔW is in a served weight",
    "ids of a prompt: served against training's",
    "parameters that the count finds",
)
CASES = (
    "twice", "prompt in the loss", "template", "nothing", "learning rate", "half-counted", "does nothing", "merge",
    "packing", "never stops",
)  # fmt: skip
SERVING = ("twice", "template", "half-counted", "merge")  # with the recorded adapter; the others train
SERVED_RIGHTLY = "served rightly"  # the recorded adapter without a fault: what SERVING is compared with


@dataclass(frozen=True)
class MuseumCase:
    """One run with a fault, or without.

    Attributes
    ----------
    name : str, of `CASES`, or `SERVED_RIGHTLY`; that and "nothing" have no fault
    readings : dict, what each of `MEASUREMENTS` says, as text
    first_loss, last_loss : float or None, nats per token in the loss; None where the training was another's
    """

    name: str
    readings: dict[str, str] = field(repr=False)
    first_loss: float | None = None
    last_loss: float | None = None


def load_cases(folder: str | Path = MUSEUM) -> dict[str, MuseumCase]:
    """The cases by name, in the order of `CASES`, and last `SERVED_RIGHTLY`.

    Parameters
    ----------
    folder : path, holds `cases.json`

    Raises
    ------
    LabError
        The file is missing or damaged, or a case or a measurement is missing.
    """
    with reading(f"The museum's cases in {folder}", restore("data/museum", "record_museum.py")):
        data = read_json(Path(folder) / FILE)["cases"]
        found = {name: MuseumCase(name, **data[name]) for name in (*CASES, SERVED_RIGHTLY)}
        for name, case in found.items():
            if tuple(case.readings) != MEASUREMENTS or not all(isinstance(one, str) for one in case.readings.values()):
                raise ValueError(f"case {name!r} does not have the nine measurements")
            for loss in (case.first_loss, case.last_loss):
                number(0 if loss is None else loss, least=0)
        return found


def as_line(row: dict) -> str:
    """A run as a line of `SEEDS`; its numbers have four digits."""
    return json.dumps({name: _short(value) for name, value in row.items()}, ensure_ascii=False) + "\n"


def _short(value):
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    if isinstance(value, float):
        return round(value, DIGITS) if abs(value) >= 1 else float(f"{value:.{DIGITS}g}")
    return value


def museum_runs(exhibit: int, file: str | Path = SEEDS) -> dict[str, list[dict]]:
    """The recorded runs of one exhibit of the museum, by arm; those of an arm differ in their seed only.

    Parameters
    ----------
    exhibit : int, 2, 6, 8 or 12
    file : path of the JSON Lines file, a line per run

    Returns
    -------
    dict arm -> list of dict, by seed from 0 on: "seed", and what data/README.md says that the exhibit keeps

    Raises
    ------
    LabError
        The file is missing or damaged, nothing is recorded for the exhibit, or a seed is missing or there twice.
    """
    with reading(f"The museum's seeds in {file}", restore("data/museum", "record_museum_seeds.py")):
        arms: dict[str, list[dict]] = {}
        for row in read_json_lines(file):
            for value in chain([row["seed"]], *(row.get(name, ()) for name in LISTS)):
                number(value, least=0)
            for name in ("first", "lowest", "last", "right", "cosine", *PARTS):
                number(row.get(name, 0.0))
            if row["exhibit"] == exhibit:
                arms.setdefault(str(row["arm"]), []).append(row)
        for arm, rows in arms.items():
            rows.sort(key=lambda row: row["seed"])
            if [row["seed"] for row in rows] != list(range(len(rows))):
                raise ValueError(f"arm {arm!r} has a seed twice, or lacks one")
        if not arms:
            raise ValueError(f"no run of exhibit {exhibit} is there")
        return arms
