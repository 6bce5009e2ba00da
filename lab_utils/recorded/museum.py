"""The recorded cases of the museum's test; `data/record_museum.py` measured them, see data/README.md."""

from dataclasses import dataclass, field
from pathlib import Path

from ..files import read_json
from ..folders import DATA
from ..recorded_files import number, reading, restore

MUSEUM = DATA / "museum"
FILE = "cases.json"
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
