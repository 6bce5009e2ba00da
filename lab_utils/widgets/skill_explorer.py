"""The skill explorer: arms compared where they have learned equally much, at any common loss on the skill."""

from collections.abc import Mapping, Sequence

import traitlets

from .. import plots
from ..errors import LabError, choose
from ..recorded.forgetting import ForgettingRun
from ..retention import KINDS, Paid, paid_at, paths, stops
from ..sweep import student
from .explorer import FOLDER, STYLE, Explorer, script
from .strength_explorer import OTHERS, signed

QUESTION = "At equal skill, has a higher rank paid more?"


class SkillExplorer(Explorer):
    """A slider for the common loss, and choices of the kind of text and of two arms. The browser does the arithmetic.

    Parameters
    ----------
    arms : dict name -> runs of that arm, two seeds or more
    loss : float, one of `retention.stops(arms)`
    measured_on : "prose", "questions" or "style"
    arm, against : names in `arms`; by default the first and the second
    question, choices : the prediction to make first

    Attributes
    ----------
    loss, measured_on, arm, against : at every moment
    losses : list of float, the slider's stops

    Raises
    ------
    LabError
        An arm has one seed, or a value is not there.
    """

    _esm = script("differences", "skill_explorer")
    _css = STYLE + (FOLDER / "skill.css").read_text(encoding="utf-8")
    _moved = ("loss", "measured_on", "arm", "against")
    arms = traitlets.List().tag(sync=True)
    losses = traitlets.List().tag(sync=True)
    students = traitlets.Dict().tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    loss = traitlets.Float().tag(sync=True)
    measured_on, arm, against = (traitlets.Unicode().tag(sync=True) for _ in range(3))

    def __init__(
        self, arms: Mapping[str, Sequence[ForgettingRun]], loss: float = 1.0, measured_on: str = "questions",
        arm: str = "", against: str = "", question: str = QUESTION,
        choices: Sequence[str] = ("yes, rank by rank", "some have", "no"),
    ):  # fmt: skip
        few = [name for name, runs in arms.items() if len(runs) < 2]
        if len(arms) < 2 or few:
            raise LabError(f"{len(arms)} arms, with one seed: {', '.join(few) or 'none'}. Give two arms of two seeds.")
        self._runs = dict(arms)
        names, first = list(arms), next(iter(arms.values()))[0].before.losses
        sizes = {len(some) - 1 for some in first.values()} | {len(runs) - 1 for runs in arms.values()}
        super().__init__(
            arms=[{"name": name, "runs": [_plain(run) for run in runs]} for name, runs in arms.items()],
            losses=stops(arms), students={str(one): student(one) for one in sorted(sizes)},
            texts={kind: len(first[kind]) for kind in OTHERS}, loss=loss, measured_on=measured_on,
            arm=arm or names[0], against=against or names[1], question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("loss", "measured_on", "arm", "against")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name != "loss":
            return choose(name, value, OTHERS if name == "measured_on" else self._runs)
        if value not in self.losses:
            raise LabError(f"loss={value!r} is not a stop: one of {', '.join(f'{one:g}' for one in self.losses)}.")
        return float(value)

    def found(self) -> dict[str, Paid]:
        """What each arm has paid at the present settings."""
        return paid_at(self._runs, self.loss, self.measured_on, self.against)

    def summary(self) -> str:
        found, kind = self.found(), self.measured_on
        less = found[self.arm].less if self.arm != self.against else None
        apart = f" Difference {_with_interval(less)}: {less.verdict}." if less else ""
        missing = sum(one.rise is None for one in found.values())
        return (
            f"Loss {self.loss:.3f}, {self.texts[kind]} texts of {kind}, nats with 95 % intervals: "
            f"{self._paid(found, self.arm)}; {self._paid(found, self.against)}.{apart} {missing} of {len(found)} arms "
            "are not there with all seeds."
        )

    def _paid(self, found: Mapping[str, Paid], name: str) -> str:
        """What an arm has paid, in words."""
        if found[name].rise is None:
            return f"{name} is not there with {found[name].above} of its {len(self._runs[name])} seeds"
        return f"{name} has paid {_with_interval(found[name].rise)}"

    def figure(self):
        found = self.found()
        rows = {name: one.rise and (one.rise.mean, one.rise.low, one.rise.high) for name, one in found.items()}
        return plots.paths(
            {name: paths(self._runs[name], self.measured_on) for name in dict.fromkeys((self.arm, self.against))},
            "loss on the skill, nats", f"paid on {self.measured_on}, nats",
            mark=(f"{self.loss:.3f}", self.loss), beside=rows,
        )  # fmt: skip


def _plain(run: ForgettingRun) -> dict:
    """A run as the browser takes it: for each checkpoint the mean loss on the skill, and every other text's loss."""
    texts = [run.at[step] for step in sorted(run.at)]
    return {"seed": run.seed, "skill": [one.mean("skill") for one in texts],
            "losses": {kind: [list(one.losses[kind]) for one in texts] for kind in KINDS[1:]}}  # fmt: skip


def _with_interval(change) -> str:
    """A change with its interval, three digits each."""
    return f"{signed(change.mean)} ({signed(change.low)} to {signed(change.high)})"
