"""The recorded probes of page 14; `data/record_probes.py` measured them, see data/README.md."""

from dataclasses import dataclass
from pathlib import Path

from ..files import read_json
from ..folders import DATA
from ..recorded_files import number, reading, restore

FILE = DATA / "tickets" / "probes.json"
EXAMPLES = 640  # training messages
MESSAGES = {"test": 60, "next_month": 60}  # that are answered


@dataclass(frozen=True)
class RecordedProbe:
    """A classifier on one choice of the frozen base's states, its penalty chosen by cross-validation.

    Attributes
    ----------
    depth : int, the states are those after this block
    pooling : "last token" or "mean of all tokens"
    cross_validation : float in [0, 1], share of right answers on training messages that were left out of the fit
    right : dict "test" and "next_month" -> tuple of bool, is each of its messages answered right
    """

    depth: int
    pooling: str
    cross_validation: float
    right: dict[str, tuple[bool, ...]]


def load_probes(file: str | Path = FILE) -> list[RecordedProbe]:
    """The twelve probes, the one that cross-validation chooses first.

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    with reading(f"The recorded probes in {file}", restore("data/tickets", "record_probes.py")):
        probes = [_probe(one) for one in read_json(file)["probes"]]
        probes[0]  # an IndexError where there is none
    return sorted(probes, key=lambda one: -one.cross_validation)


def _probe(one: dict) -> RecordedProbe:
    right = {split: tuple(letter == "1" for letter in one[split]) for split in MESSAGES}
    for split, messages in MESSAGES.items():
        if len(right[split]) != messages or set(one[split]) - set("01"):
            raise ValueError(f"{split} has {one[split]!r} where {messages} digits 0 or 1 are expected")
    return RecordedProbe(int(one["depth"]), str(one["pooling"]), number(one["cross_validation"], 0), right)
