"""The pair explorer: both answers of a pair while DPO trains on it, recorded, and what margin, loss and weight say."""

import math
import re
from collections.abc import Sequence

import traitlets

from .. import plots
from ..errors import LabError, choose, whole
from ..preferences import PairCourse, recorded_courses
from .explorer import FOLDER, STYLE, Explorer, script
from .values import fixed

QUESTION = "At a learning rate of 0.001, after 12 steps: what has become of this pair's chosen answer?"
BETAS = (0.01, 0.03, 0.1, 0.3, 1.0)


class PairExplorer(Explorer):
    """Sliders for the step, the pair, the learning rate and beta; the log-probabilities were recorded.

    Parameters
    ----------
    step : int, 0 (the start) to the last one
    pair : int, from 1
    learning_rate : float, that of a recorded run; default is the largest
    beta : one of `BETAS`, for margin, loss and weight; the runs were trained with one beta
    question, choices : the prediction to make first
    courses : sequence of PairCourse of the same pairs and as many steps, default `recorded_courses()`

    Attributes
    ----------
    step, pair, learning_rate, beta : at every moment

    Raises
    ------
    LabError
        A value that is not there, or the record cannot be read.
    """

    _esm = script("pair_explorer")
    _css = STYLE + (FOLDER / "pair.css").read_text(encoding="utf-8")
    _moved = ("step", "pair", "learning_rate", "beta")
    courses, pairs, betas = (traitlets.List().tag(sync=True) for _ in range(3))
    trained = traitlets.Float().tag(sync=True)
    step, pair = (traitlets.Int().tag(sync=True) for _ in range(2))
    learning_rate, beta = (traitlets.Float().tag(sync=True) for _ in range(2))

    def __init__(
        self, step: int = 0, pair: int = 1, learning_rate: float | None = None, beta: float = 0.1,
        question: str = QUESTION, choices=("likelier", "as likely as before", "rarer"),
        courses: Sequence[PairCourse] | None = None,
    ):  # fmt: skip
        courses = recorded_courses() if courses is None else list(courses)
        first = courses[0]
        if any((one.pairs, len(one.logprobs), one.beta) != (first.pairs, len(first.logprobs), first.beta)
               for one in courses):  # fmt: skip
            raise LabError("courses differ in their pairs, steps or beta: one explorer shows runs of the same pairs.")
        super().__init__(
            courses=[{"rate": one.learning_rate, "logprobs": [list(map(list, step)) for step in one.logprobs]}
                     for one in courses],
            pairs=[{"prompt": pair["prompt"], "parts": parts(pair["chosen"], pair["rejected"])}
                   for pair in first.pairs],
            betas=list(BETAS), trained=first.beta, step=step, pair=pair,
            learning_rate=courses[-1].learning_rate if learning_rate is None else learning_rate, beta=beta,
            question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("step", "pair", "learning_rate", "beta")
    def _recorded(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "step":
            return whole(name, value, 0, len(self.courses[0]["logprobs"]) - 1)
        if name == "pair":
            return whole(name, value, 1, len(self.pairs))
        return choose(name, value, BETAS if name == "beta" else [one["rate"] for one in self.courses])

    def lines(self) -> tuple[list[float], list[float]]:
        """The log-probability of the chosen answer, and that of the rejected one, at every step."""
        course = next(one for one in self.courses if one["rate"] == self.learning_rate)
        return tuple([step[self.pair - 1][side] for step in course["logprobs"]] for side in (0, 1))

    def summary(self) -> str:
        chosen, rejected = (line[self.step] - line[0] for line in self.lines())
        margin = self.beta * (chosen - rejected)
        loss = math.log1p(math.exp(-abs(margin))) + max(-margin, 0)
        return (
            f"Step {self.step} at learning rate {self.learning_rate:g}, pair {self.pair} of {len(self.pairs)}: since "
            f"the start the chosen answer {_changed(chosen)}, the rejected one {_changed(rejected)}. With beta "
            f"{self.beta:g} the rewards are {fixed(self.beta * chosen, 2)} and {fixed(self.beta * rejected, 2)}: the "
            f"margin is {fixed(margin, 2)}, the loss {fixed(loss, 3)}, the weight "
            f"{fixed(1 / (1 + math.exp(margin)), 3)}."
        )

    def figure(self):
        chosen, rejected = self.lines()
        steps = list(range(len(chosen)))
        return plots.lines(
            {"chosen": (steps, chosen), "rejected": (steps, rejected)}, "step", "log-probability, nats per answer"
        )


def parts(chosen: str, rejected: str) -> tuple[str, str]:
    """What is not the same in two answers: without the fields that both begin with, and those that both end with.

    >>> parts('{"qty":3,"day":"Friday","time":"noon"}', '{"qty":3,"day":"Monday","time":"noon"}')
    ('"day":"Friday"', '"day":"Monday"')
    """
    one, other = (re.split(r'(?<=[{,])(?=")', text) for text in (chosen, rejected))  # a piece is a field and its comma
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    return tuple("".join(pieces[start : len(pieces) - end]).removesuffix(",") for pieces in (one, other))


def _changed(nats: float) -> str:
    """How a log-probability has changed, in words."""
    shown = fixed(abs(nats), 2)
    if float(shown) == 0:
        return "is as likely as it was"
    return f"has become {'likelier' if nats > 0 else 'rarer'} by {shown} nats"
