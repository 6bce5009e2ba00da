"""The variant explorer: loss against learning rate for LoRA and its variants, and who leads at which rate."""

from math import isfinite

import traitlets

from .. import plots
from ..errors import LabError, choose
from ..plots.choosing import SPAN
from ..sweep import standings, variant_races
from ..sweep.rate_races import REFERENCE, Standing, compared_by, ranked
from ..variants import VARIANTS
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Word

QUESTION = "Move one learning rate for all eight. How many different variants can you bring to the top?"
MODES = ("all at one learning rate", "each at its own best")
TASKS = {"mirrored digits": "nats per image"}  # else nats per token


class VariantExplorer(Explorer):
    """A choice of recorded races, a slider for one common learning rate, and a switch to each variant's own best.

    Every recorded run is a dot. What is compared is `lab_utils.sweep.standings`.

    Parameters
    ----------
    races : dict title -> DataFrame, as `lab_utils.sweep.variant_races` gives them, which is the default
    race : str, a title; default the first
    mode : one of `MODES`

    Attributes
    ----------
    race, mode : as chosen, at every moment
    rate : float, the common learning rate, one of those that the race has; another race begins at the one at which
        most variants were run, and of those at the smallest

    Raises
    ------
    LabError
        There is no race, or a value is not there.
    """

    _esm = script("variant_explorer")
    _css = STYLE + (FOLDER / "race.css").read_text(encoding="utf-8")
    _moved = ("race", "mode", "rate")
    records = traitlets.Dict().tag(sync=True)
    modes = traitlets.List(list(MODES)).tag(sync=True)
    race = traitlets.Unicode().tag(sync=True)
    mode = Word(MODES[0], allowed=MODES).tag(sync=True)
    rate = traitlets.Float().tag(sync=True)

    def __init__(
        self, races: dict | None = None, race: str | None = None, mode: str = MODES[0], question: str = QUESTION,
        choices=("always the same one", "two", "four or more"),
    ):  # fmt: skip
        races = variant_races() if races is None else races
        if not races:
            raise LabError("The variant explorer needs one race or more: variant_races() reads those recorded.")
        records = {title: _record(title, runs) for title, runs in races.items()}
        race = choose("race", next(iter(records)) if race is None else race, records)
        start = records[race]["start"]
        super().__init__(
            records=records, race=race, mode=mode, rate=start, question=question, choices=list(choices)
        )

    @traitlets.validate("race", "rate")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        return choose(name, value, self.records if name == "race" else self.records[self.race]["rates"])

    @traitlets.observe("race")
    def _other_rates(self, change) -> None:
        if change["old"]:
            self.rate = self.records[change["new"]]["start"]

    def _now(self) -> dict:
        """What is on screen: "rows" and "sentence"."""
        record = self.records[self.race]
        return record["best"] if self.mode == MODES[1] else record["at"][record["rates"].index(self.rate)]

    def summary(self) -> str:
        return self._now()["sentence"]

    def figure(self):
        record, now = self.records[self.race], self._now()
        runs = {VARIANTS[name].title: [(rate, loss) for rate, loss in dots] for name, dots in record["dots"].items()}
        used = {VARIANTS[row["variant"]].title: (row["rate"], row["losses"], row["mean"], row["reach"])
                for row in now["rows"]}  # fmt: skip
        return plots.rate_race(runs, used, f"{record['value']}, {record['unit']}", f"{self.race}, {self.mode}")


def _record(title: str, runs) -> dict:
    """What the browser needs of a race: its runs, and the standings at each rate and at each variant's best."""
    value = compared_by(runs)
    rates = sorted({float(rate) for rate in runs["learning_rate"]})
    counts = [runs[runs["learning_rate"] == rate]["variant"].nunique() for rate in rates]
    finite = runs[runs[value].map(isfinite)]
    if finite.empty:
        raise LabError(f"The race {title!r} has no run with a {value}.")
    dots = {
        name: finite[finite["variant"] == name][["learning_rate", value]].to_numpy(float).tolist()
        for name in dict.fromkeys(runs["variant"])
    }
    named, low, high = value.replace("_", " "), float(finite[value].min()), float(finite[value].max())
    return {
        "rates": rates, "start": rates[counts.index(max(counts))], "value": named,
        "unit": TASKS.get(title, "nats per token"), "titles": {name: VARIANTS[name].title for name in dots},
        "dots": dots, "low": low, "high": min(high, SPAN * low),
        "at": [_stand(title, named, standings(runs, rate), rate) for rate in rates],
        "best": _stand(title, named, standings(runs), None),
    }  # fmt: skip


def _stand(title: str, value: str, found: list[Standing], rate: float | None) -> dict:
    """Standings as plain numbers, and in words."""
    rows = [
        {"variant": one.variant, "rate": one.learning_rate, "losses": list(one.losses.values()),
         "mean": one.mean if one.losses else None, "reach": one.reach, "clear": one.clear,
         "edge": one.edge and rate is None}
        for one in found
    ]  # fmt: skip
    return {"rows": rows, "sentence": _sentence(title, value, found, rate)}


def _sentence(title: str, value: str, found: list[Standing], rate: float | None) -> str:
    """Who leads, by how much, whether that is clear, and what the numbers do not say."""
    where = "each at its own best rate" if rate is None else f"all at the learning rate {rate!r}"
    ran = [one for one in found if one.losses]
    text = f"{title[0].upper()}{title[1:]}, {where}: {_order(ran, value) if ran else 'nothing was run.'}"
    if absent := [_title(one) for one in found if not one.losses]:
        text += f" Not run at this rate: {', '.join(absent)}."
    edges = [_title(one) for one in ran if one.edge and rate is None]
    if edges:
        who = "all of them" if len(edges) == len(ran) > 1 else ", ".join(edges)
        text += f" Best rate at the edge of those tried, so the optimum may lie outside: {who}."
    return text


def _order(ran: list[Standing], value: str) -> str:
    """From which loss to which, or that the runs are too few to rank."""
    runs = sorted({len(one.losses) for one in ran})
    many = f"n = {runs[0]}" if len(runs) == 1 else f"n = {runs[0]} to {runs[-1]}"
    first, last = (pick(ran, key=lambda one: one.mean) for pick in (min, max))
    span = f"{first.mean:.3f} ({_title(first)})"
    if first is not last:
        span = f"from {span} to {last.mean:.3f} ({_title(last)})"
    if not ranked(ran):
        return f"{value} {span}, {many}: a single run ranks nobody."
    rivals = [one for one in ran if one.variant != REFERENCE]
    judged = f"; {sum(one.clear for one in rivals)} of {len(rivals)} differ clearly from LoRA" if rivals != ran else ""
    return f"mean {value} {span}, {many} seeds each{judged}."


def _title(one: Standing) -> str:
    return VARIANTS[one.variant].title
