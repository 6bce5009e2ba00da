"""The strength explorer: an adapter turned down and up, its skill and what the model forgets at each strength."""

from collections.abc import Mapping, Sequence

import traitlets

from .. import plots
from ..errors import LabError, choose
from ..retention import KINDS, by_strength
from .explorer import STYLE, Explorer, script

QUESTION = "Turned down to half its strength, how much of the skill is left?"
OTHERS = KINDS[1:]


class StrengthExplorer(Explorer):
    """A slider for the strength, and a choice of what forgetting is measured on. All numbers are measured ones.

    Parameters
    ----------
    curves : sequence of mappings of strengths to `Texts`, as of `lab_utils.retention.by_strength`, one for each run
    strength : float, one of theirs
    measured_on : "prose", "questions" or "style"
    question, choices : the prediction to make first

    Attributes
    ----------
    strength, measured_on : at every moment
    points : list of dict, as `by_strength` returns them, and "percent": `exact` as a whole number

    Raises
    ------
    LabError
        As `by_strength`, or a value that is not there.
    """

    _esm = script("strength_explorer")
    _css = STYLE
    _moved = ("strength", "measured_on")
    points = traitlets.List().tag(sync=True)
    runs = traitlets.Int(1).tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    strength = traitlets.Float().tag(sync=True)
    measured_on = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, curves: Sequence[Mapping], strength: float = 1.0, measured_on: str = "prose", question: str = QUESTION,
        choices=("nearly all", "about half", "nearly nothing"),
    ):  # fmt: skip
        points = [point | {"percent": round(100 * point["exact"])} for point in by_strength(curves)]
        first = next(iter(curves[0].values()))
        super().__init__(
            points=points, runs=len(curves), texts={kind: len(first.losses[kind]) for kind in KINDS},
            strength=strength, measured_on=measured_on, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("strength", "measured_on")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "measured_on":
            return choose(name, value, OTHERS)
        known = [point["strength"] for point in self.points]
        if value not in known:
            raise LabError(f"strength={value!r} was not measured: one of {', '.join(f'{one:g}' for one in known)}.")
        return float(value)

    def point(self) -> dict:
        """What was measured at the present strength."""
        return next(point for point in self.points if point["strength"] == self.strength)

    def summary(self) -> str:
        now, base = self.point(), self.points[0]
        mean, low, high = now["rise"][self.measured_on]
        seeds = "1 seed" if self.runs == 1 else f"{self.runs} seeds"
        return (
            f"Strength {self.strength:.2f}: the skill costs {now['skill']:.3f} nats per token (base "
            f"{base['skill']:.3f}), and {now['percent']} % of {self.texts['skill']} messages are answered letter by "
            f"letter. The loss on {self.measured_on} is {signed(mean)} nats above the base's (95 % interval "
            f"{signed(low)} to {signed(high)}, {seeds}, {self.texts[self.measured_on]} texts)."
        )

    def figure(self):
        places = [point["strength"] for point in self.points]
        return plots.lines(
            {"skill: loss": (places, [point["skill"] for point in self.points]),
             f"{self.measured_on}: loss above the base's":
                 (places, [point["rise"][self.measured_on][0] for point in self.points])},
            "strength of the adapter", "nats per token", marks=True,
        )  # fmt: skip


def signed(value: float) -> str:
    """A number with its sign and three digits; what is rounded to zero has a plus, as in the browser."""
    text = f"{value:+.3f}"
    return "+0.000" if text == "-0.000" else text
