"""The sweep explorer: any two settings of a recorded sweep, how they differ, and whether that is clear."""

import traitlets

from .. import plots
from ..errors import LabError, choose
from ..sweep import by_name, difference, student
from .explorer import FOLDER, STYLE, Explorer, script

SPLITS = ("validation", "test")
QUALITIES = {"loss": ("loss", 1, 4), "right answers": ("exact", 100, 1)}  # name -> (value, factor, digits)
QUESTION = "Walk through all settings beside the centre. How many of them differ from it clearly?"


class SweepExplorer(Explorer):
    """Two sliders choose settings A and B; shown is B minus A, on validation, on test and over both.

    Parameters
    ----------
    runs : DataFrame of `lab_utils.sweep.load_sweep`; every setting with the seeds of the centre is there to choose
    first, second : int, A and B, from 1; 1 is the centre
    quality : "loss" or "right answers"
    question, choices : the prediction to make first

    Attributes
    ----------
    first, second, quality : as chosen, at every moment
    settings : list of dict, "name", "trained" (numbers), and per quality a row per seed, [validation, test]
    parts : dict name -> its runs, a DataFrame

    Raises
    ------
    LabError
        As `sweep.by_name`, or a value that is not there.
    """

    _esm = script("differences", "sweep_explorer")
    _css = STYLE + (FOLDER / "choosing.css").read_text(encoding="utf-8")
    _moved = ("first", "second", "quality")
    settings = traitlets.List().tag(sync=True)
    students = traitlets.Dict().tag(sync=True)
    qualities = traitlets.Dict(QUALITIES).tag(sync=True)
    first, second = (traitlets.Int(1).tag(sync=True) for _ in range(2))
    quality = traitlets.Unicode("loss").tag(sync=True)

    def __init__(
        self, runs, first: int = 1, second: int = 2, quality: str = "loss", question: str = QUESTION,
        choices=("nearly all", "about half", "a third or fewer"),
    ):  # fmt: skip
        self.parts = by_name(runs)
        settings = [self._setting(name, part) for name, part in self.parts.items()]
        freedoms = {1, len(next(iter(self.parts.values()))) - 1}
        super().__init__(
            settings=settings, students={str(one): student(one) for one in freedoms}, first=first, second=second,
            quality=quality, question=question, choices=list(choices),
        )  # fmt: skip

    @staticmethod
    def _setting(name: str, part) -> dict:
        """What the browser gets of a setting."""
        values = {
            value: part[[f"{split}_{value}" for split in SPLITS]].to_numpy(float).tolist()
            for value, _, _ in QUALITIES.values()
        }
        return {"name": name, "trained": int(part["trainable_parameters"].fillna(0).iloc[0])} | values

    @traitlets.validate("first", "second", "quality")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "quality":
            return choose(name, value, QUALITIES)
        if not 1 <= value <= len(self.settings):
            raise LabError(f"{name}={value} is out of range: the settings are 1 to {len(self.settings)}.")
        return value

    def differences(self) -> dict:
        """B minus A: "validation" and "test" over seeds alone, "both" over seeds and the two sets of messages."""
        one, other = list(self.parts.values())[self.first - 1], list(self.parts.values())[self.second - 1]
        value = QUALITIES[self.quality][0]
        found = {split: difference(one, other, f"{split}_{value}") for split in SPLITS}
        return found | {"both": difference(one, other, value)}

    def summary(self) -> str:
        _, factor, digits = QUALITIES[self.quality]

        def range_of(found) -> str:
            mean, low, high = (f"{factor * number:+.{digits}f}" for number in (found.mean, found.low, found.high))
            return f"{mean} ({low} to {high})"

        names, found = [one["name"] for one in self.settings], self.differences()
        return (
            f"Setting {self.second} ({names[self.second - 1]}) minus {self.first} ({names[self.first - 1]}), "
            f"{self.quality}: validation {range_of(found['validation'])}, test {range_of(found['test'])}; over seeds "
            f"and both sets {range_of(found['both'])}: {found['both'].verdict}."
        )

    def figure(self):
        value, factor, _ = QUALITIES[self.quality]
        found = self.differences()
        rows = {name: tuple(factor * x for x in (one.mean, one.low, one.high)) for name, one in found.items()}
        one, other = (self.settings[at - 1] for at in (self.first, self.second))
        seeds = {
            split: [factor * (b[place] - a[place]) for a, b in zip(one[value], other[value], strict=True)]
            for place, split in enumerate(SPLITS)
        }
        unit = "points of 100" if factor == 100 else "nats per token"
        return plots.differences(rows, f"{self.quality}: {other['name']} minus {one['name']}, {unit}", seeds)
