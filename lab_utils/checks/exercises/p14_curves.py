"""Exercises of page 14 on curves: when to stop, and how many examples it takes."""

import math
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake


def keep_and_stop_spec(losses: Tensor, patience: int) -> tuple[int, int]:
    """Read one measurement after the other, as training does; stop after `patience` of them without a new lowest."""
    values = losses.tolist()
    best, waited = 0, 0
    for place in range(1, len(values)):
        if values[place] < values[best]:
            best, waited = place, 0
        else:
            waited += 1
        if waited == patience:
            return best, place
    return best, len(values) - 1


def keep_and_stop(losses: Tensor, patience: int) -> tuple[int, int]:
    best = 0
    for place, loss in enumerate(losses):
        if loss < losses[best]:
            best = place
        if place - best == patience:
            return best, place
    return best, len(losses) - 1


def examples_needed_spec(examples: Tensor, errors: Tensor, target: float) -> float:
    """Fit log error = slope · log examples + start by least squares, and read off where it reaches the target."""
    xs = [math.log(float(value)) for value in examples]
    ys = [math.log(float(value)) for value in errors]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope = above / sum((x - mean_x) ** 2 for x in xs)
    return math.exp(mean_x + (math.log(target) - mean_y) / slope)


def examples_needed(examples: Tensor, errors: Tensor, target: float) -> float:
    x, y = examples.double().log(), errors.double().log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return math.exp(x.mean() + (math.log(target) - y.mean()) / slope)


def _walk(better=lambda loss, best, before: loss < best, after=0, reset=True, keep="best"):
    """keep_and_stop with another sense of better, more patience, a count that never begins again, or the last kept."""

    def wrong(losses, patience):
        values, best, waited = losses.tolist(), 0, 0
        for place in range(1, len(values)):
            improved = better(values[place], values[best], values[place - 1])
            if values[place] < values[best]:
                best = place
            waited = (0 if reset else waited) if improved else waited + 1
            if waited == patience + after:
                return (best if keep == "best" else place), place
        return (best if keep == "best" else len(values) - 1), len(values) - 1

    return wrong


def _ties(losses, patience):
    values, best = losses.tolist(), 0
    for place, loss in enumerate(values):
        if loss <= values[best]:
            best = place
        if place - best == patience:
            return best, place
    return best, len(values) - 1


def _line(x, y, at, back):
    """A straight line between other scales: `back` is the inverse of x."""

    def wrong(examples, errors, target):
        across, up = x(examples.double()), y(errors.double())
        slope = ((across - across.mean()) * (up - up.mean())).sum() / ((across - across.mean()) ** 2).sum()
        return float(back(across.mean() + (at(target) - up.mean()) / slope))

    return wrong


def _two_points(first, second):
    def wrong(examples, errors, target):
        return examples_needed(examples[[first, second]], errors[[first, second]], target)

    return wrong


def _same(value):
    return value


@st.composite
def _validation(draw):
    """3 to 8 validation losses in hundredths, and a patience of 1 to 3."""
    losses = draw(st.lists(st.integers(10, 40), min_size=3, max_size=8))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(losses, dtype=dtype) / 100, draw(st.integers(1, 3))


@st.composite
def _curve(draw):
    """Errors that fall about as a power of the number of examples, and a target below all of them."""
    sizes = draw(st.sampled_from([[8, 32, 128], [8, 32, 128, 512], [10, 100, 1000], [50, 200, 800]]))
    power = draw(st.sampled_from([0.3, 0.4, 0.5, 0.7]))
    bends = [draw(st.sampled_from([0.85, 0.95, 1.0, 1.1, 1.2])) for _ in sizes]
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    errors = [round(0.8 * (size / sizes[0]) ** -power * bend, 3) for size, bend in zip(sizes, bends, strict=True)]
    target = round(min(errors) * draw(st.sampled_from([0.5, 0.8])), 4)
    return torch.tensor(sizes), torch.tensor(errors, dtype=dtype), target


def _bent(curve) -> bool:
    """Do the errors fall, and do the points not lie on one line?"""
    errors = curve[1].tolist()
    logs = [math.log(value) for value in errors]
    steps = [second - first for first, second in pairwise(logs)]
    return errors == sorted(errors, reverse=True) and max(steps) - min(steps) > 0.05 and max(steps) < -0.05


EXERCISES = (
    Exercise(
        name="keep_and_stop", page=14, title="Read a validation curve: what to keep, when to stop",
        spec=keep_and_stop_spec, solution=keep_and_stop, inputs=_validation(),
        demo=(torch.tensor([0.90, 0.60, 0.62, 0.55, 0.58, 0.57, 0.40]), 2),
        mistakes=(
            Mistake(
                "looked into the future",
                "Training had stopped by then: nobody measured what comes later. Read from left to right.",
                wrong=(
                    lambda losses, patience: (int(losses.argmin()), len(losses) - 1),
                    lambda losses, patience: (int(losses.argmin()), min(int(losses.argmin()) + patience,
                                                                        len(losses) - 1)),
                ),
            ),
            Mistake("the last one kept", "The last measurement is no better than some before it: keep the best.",
                    wrong=(_walk(keep="last"),)),
            Mistake("compared with the one before", "A dip after a rise is not progress: compare with the lowest.",
                    wrong=(_walk(lambda loss, best, before: loss < before),)),
            Mistake("the first rise ends it", "One rise may be noise: wait for `patience` measurements.",
                    wrong=(lambda losses, patience: keep_and_stop(losses, 1),)),
            Mistake("waits one too long", "Stop at the measurement that is the `patience`-th without a new lowest.",
                    wrong=(_walk(after=1),)),
            Mistake("waiting never begins again", "A new lowest loss starts the waiting from zero.",
                    wrong=(_walk(reset=False),)),
            Mistake("just as low taken as better", "Equal is not progress: a new lowest is below the old one.",
                    wrong=(_ties,)),
        ),
        hints=(
            "At each measurement you know those before it and nothing else. Which two things must you remember?",
            "Remember the place of the lowest loss so far. How far are you past it?",
            "for place, loss in enumerate(losses): if loss < losses[best], best = place; if place - best is the "
            "patience, it is over.",
        ),
        reward="Patience buys a second chance with time. In the first example it still missed the 0.40: nobody knew.",
    ),
    Exercise(
        name="examples_needed", page=14, title="How many examples in all?",
        spec=examples_needed_spec, solution=examples_needed, inputs=_curve().filter(_bent),
        demo=(torch.tensor([8, 32, 128, 512]), torch.tensor([0.80, 0.45, 0.20, 0.11]), 0.05),
        mistakes=(
            Mistake(
                "a straight line",
                "The first hundred examples help more than the tenth hundred. Take logarithms of both sides.",
                wrong=(_line(_same, _same, _same, _same),),
            ),
            Mistake(
                "one logarithm of two",
                "An error that falls as a power is a line only if both axes are logarithmic.",
                wrong=(_line(torch.log, _same, _same, torch.exp), _line(_same, torch.log, math.log, _same)),
            ),
            Mistake("two points only", "Each point is noisy: use all of them.",
                    wrong=(_two_points(0, -1), _two_points(-2, -1), _two_points(0, 1))),
            Mistake("the logarithm returned", "The fit gives the logarithm of the number. Take exp of it.",
                    wrong=(lambda *a: math.log(examples_needed(*a)),)),
            Mistake("how many more", "The question is how many in all.",
                    wrong=(lambda examples, errors, target: examples_needed(examples, errors, target)
                           - examples.max().item(),)),
        ),
        hints=(
            "Halving the error takes a fixed *factor* of examples. On which axes is that a straight line?",
            "Fit log(error) against log(examples): slope, and one point that the line goes through (the two means).",
            "log n = mean of log examples + (log target - mean of log errors) / slope; then exp.",
        ),
        reward="An extrapolation is a guess: the curve ends at the label noise, which no number of examples removes.",
    ),
)  # fmt: skip
