"""Exercises of page 09: what a few seeds can say about a setting, and about two."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # seeds -> factor of a 95 % interval


def standard_error_spec(scores: Tensor) -> float:
    """Square how far each seed is from the mean, share the sum among all but one, and once more among all."""
    values = scores.tolist()
    mean = sum(values) / len(values)
    squares = 0.0
    for value in values:
        squares += (value - mean) ** 2
    variance_of_one = squares / (len(values) - 1)
    variance_of_the_mean = variance_of_one / len(values)
    return variance_of_the_mean**0.5


def standard_error(scores: Tensor) -> float:
    return (scores.std(correction=1) / len(scores) ** 0.5).item()


def paired_interval_spec(first: Tensor, second: Tensor, t: float) -> tuple[float, float]:
    """Subtract seed by seed; then the mean of these differences, and t standard errors to either side."""
    differences = [float(second[n]) - float(first[n]) for n in range(len(first))]
    mean = sum(differences) / len(differences)
    variance = sum((difference - mean) ** 2 for difference in differences) / (len(differences) - 1)
    error = (variance / len(differences)) ** 0.5
    return mean - t * error, mean + t * error


def paired_interval(first: Tensor, second: Tensor, t: float) -> tuple[float, float]:
    differences = second - first
    half = t * differences.std().item() / len(differences) ** 0.5
    return differences.mean().item() - half, differences.mean().item() + half


def deviation(values: list[float], correction: int = 1) -> float:
    """The standard deviation."""
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - correction)) ** 0.5


def _spread(correction: int, power: float):
    """The standard deviation, divided by n**power."""
    return lambda scores: (scores.std(correction=correction) / len(scores) ** power).item()


def _paired(half):
    """paired_interval with another half width."""

    def wrong(first, second, t):
        mean, width = (second - first).mean().item(), float(half(first, second, t))
        return mean - width, mean + width

    return wrong


def _error(scores: Tensor, correction: int = 1) -> float:
    """The standard error, or with correction 0 the one of n instead of n − 1."""
    return _spread(correction, 0.5)(scores)


HALVES = {  # wrong half widths of paired_interval
    "normal": lambda first, second, t: 1.96 * _error(first - second),
    "unpaired": lambda first, second, t: t * (_error(first) ** 2 + _error(second) ** 2) ** 0.5,
    "added": lambda first, second, t: t * (_error(first) + _error(second)),
    "biased": lambda first, second, t: t * _error(first - second, 0),
    "of one": lambda first, second, t: t * (first - second).std(),
    "no t": lambda first, second, t: _error(first - second),
    "whole": lambda first, second, t: t * _error(first - second) / 2,
    "variance": lambda first, second, t: t * (first - second).var() / len(first),
    "over n": lambda first, second, t: t * _spread(1, 1)(first - second),
}
SINGLE = [  # half widths that hold single differences, not their mean
    lambda first, second, t: 1.96 * (first - second).std(),
    lambda first, second, t: 1.96 * (first - second).std(correction=0),
    lambda first, second, t: 2 * (first - second).std(),
    lambda first, second, t: (first - second).std(),
]
OF_THREE = [  # half widths that are right for three seeds alone
    lambda first, second, t: t * (first - second).std() / 3**0.5,
    lambda first, second, t: STUDENT[3] * _error(first - second),
    lambda first, second, t: STUDENT[3] * (first - second).std() / 3**0.5,
    lambda first, second, t: 1.96 * (first - second).std() / 3**0.5,
]


@st.composite
def _scores(draw) -> Tensor:
    """Scores of 2 to 6 seeds in hundredths, not all alike."""
    hundredths = draw(st.lists(st.integers(0, 100), min_size=2, max_size=6).filter(lambda s: max(s) > min(s) + 1))
    return torch.tensor(hundredths, dtype=draw(st.sampled_from([torch.float32, torch.float64]))) / 100


@st.composite
def _two_settings(draw):
    """Two settings on the same seeds; the second follows the first, more or less. No end lies near zero."""
    first = draw(_scores())
    offset, n = draw(st.integers(-40, 40)), len(first)
    own = torch.tensor(draw(st.lists(st.integers(-10, 10), min_size=n, max_size=n)), dtype=first.dtype)
    return first, first + (own + offset) / 100, STUDENT[n]


def _clear(settings) -> bool:
    """Do the seeds differ, and do ends stay clear of zero, where float32 has few digits left?"""
    (first, second), t, n = (scores.tolist() for scores in settings[:2]), settings[2], len(settings[0])
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean, error = sum(differences) / n, deviation(differences) / n**0.5
    own = [deviation(scores) / n**0.5 for scores in (first, second)]
    halves = [error * factor for factor in (t, t / 2, t * n**0.5, t * (1 - 1 / n) ** 0.5, 1.96, 2, 1)]
    halves += [t * sum(own), t * (own[0] ** 2 + own[1] ** 2) ** 0.5]
    return error > 0.004 and all(abs(abs(mean) - half) > 0.01 for half in halves)


def _half(first, second, t):
    return t * _error(first - second)


EXERCISES = (
    Exercise(
        name="standard_error", page=9, title="How sure is a mean of three seeds?",
        spec=standard_error_spec, solution=standard_error, inputs=st.tuples(_scores()),
        demo=(torch.tensor([0.82, 0.85, 0.80]),),
        mistakes=(
            Mistake(
                "n instead of n − 1",
                "The mean was made from these very scores, so they lie closer to it than to the true one. Divide the "
                "squares by n - 1, as torch's std does; numpy's divides by n unless told ddof=1.",
                wrong=(_spread(0, 0.5),),
            ),
            Mistake(
                "the spread of one run",
                "A mean of n runs is surer than one run: divide the standard deviation by √n.",
                wrong=(_spread(1, 0), _spread(0, 0)),
            ),
            Mistake(
                "divided by n instead of √n",
                "Variances are divided by n, standard deviations by √n: four times the seeds for half the error.",
                wrong=(_spread(1, 1), _spread(0, 1)),
            ),
            Mistake(
                "√3 for any number of seeds",
                "Three seeds is this example. Divide by the root of how many scores there are: len(scores).",
                wrong=(lambda s: s.std().item() / 3**0.5, lambda s: s.std(correction=0).item() / 3**0.5),
            ),
            Mistake(
                "the root forgotten",
                "A variance is in squared units. Take its root.",
                wrong=(lambda s: s.var().item(), lambda s: s.var().item() / len(s), lambda s: _spread(0, 0)(s) ** 2),
            ),
            Mistake(
                "n − 1 twice",
                "n - 1 belongs to the squares only. What is left is shared by all n.",
                wrong=(lambda s: s.std().item() / (len(s) - 1) ** 0.5,),
            ),
            Mistake(
                "distances instead of squares",
                "Square each distance from the mean, add up, and take the root at the end.",
                wrong=(
                    lambda s: (s - s.mean()).abs().mean().item() / len(s) ** 0.5, lambda s: (s.max() - s.min()).item(),
                    lambda s: (s - s.mean()).abs().mean().item(),
                ),
            ),
        ),
        hints=(
            "Two steps: how much does one run vary from seed to seed, and how much is left of that in a mean of n?",
            "The variance of one run divides the squares by n - 1. The mean's variance is that over n.",
            "The standard deviation (with n - 1) over the square root of the number of scores.",
        ),
        reward="0.823 ± 0.015 from three seeds. Half the error takes twelve: it falls with √n.",
    ),
    Exercise(
        name="paired_interval", page=9, title="Is one setting better than the other?",
        spec=paired_interval_spec, solution=paired_interval, inputs=_two_settings().filter(_clear),
        demo=(torch.tensor([0.61, 0.66, 0.60]), torch.tensor([0.63, 0.65, 0.64]), STUDENT[3]),
        mistakes=(
            Mistake(
                "1.96 instead of t",
                "1.96 is for an error that is known. Yours comes from a few runs: with three seeds 1.96 would miss the "
                "truth in 19 of 100 cases instead of 5. Use t.",
                wrong=(_paired(HALVES["normal"]), _paired(lambda a, b, t: 2 * _error(a - b))),
            ),
            Mistake(
                "not paired",
                "Both settings ran on the same seeds: subtract first, seed by seed. What a seed does to both goes out.",
                wrong=(_paired(HALVES["unpaired"]), _paired(HALVES["added"])),
            ),
            Mistake(
                "n instead of n − 1",
                "As before: the squares of the differences are divided by n - 1.",
                wrong=(_paired(HALVES["biased"]),),
            ),
            Mistake(
                "the spread of one difference",
                "You want to know how sure the mean difference is: divide the standard deviation by √n.",
                wrong=(_paired(HALVES["of one"]),),
            ),
            Mistake(
                "an interval of single differences",
                "Most single differences lie that far apart, but the mean of n is surer than one: t times the standard "
                "deviation over √n.",
                wrong=(*map(_paired, SINGLE), lambda a, b, t: ((b - a).min().item(), (b - a).max().item())),
            ),
            Mistake(
                "right for three seeds only",
                "The number of seeds is len(first), and t comes with the call. √3 and 4.303 fit the example alone.",
                wrong=tuple(map(_paired, OF_THREE)),
            ),
            Mistake(
                "divided by n instead of √n",
                "Variances are divided by n, standard deviations by √n.",
                wrong=(_paired(HALVES["over n"]),),
            ),
            Mistake(
                "the root forgotten",
                "A variance is in squared units. Take its root before you multiply by t.",
                wrong=(_paired(HALVES["variance"]), _paired(lambda a, b, t: t * (a - b).var())),
            ),
            Mistake(
                "t forgotten",
                "One standard error misses the truth far too often. The interval reaches t of them to either side.",
                wrong=(_paired(HALVES["no t"]),),
            ),
            Mistake(
                "half as wide",
                "t standard errors to the left, and as many to the right.",
                wrong=(_paired(HALVES["whole"]),),
            ),
            Mistake(
                "first minus second",
                "The interval is of second - first: above zero where the second has the higher score.",
                wrong=(lambda a, b, t: paired_interval(b, a, t),),
            ),
            Mistake(
                "ends swapped",
                "The lower end comes first.",
                wrong=(lambda a, b, t: paired_interval(a, b, t)[::-1],),
            ),
            Mistake(
                "the middle and the half width",
                "Hand back the two ends: the mean difference minus the half width, and plus it.",
                wrong=(lambda a, b, t: ((b - a).mean().item(), _half(a, b, t)),),
            ),
        ),
        hints=(
            "One seed makes both runs a little better or worse. In which number does that not show any more?",
            "Make one difference per seed, and forget the scores: it is the interval of a mean, t standard errors wide "
            "to either side.",
            "d = second - first; d.mean() minus, and plus, t times d.std() over the root of len(d).",
        ),
        reward=(
            "The question's scores: 0.005 to 0.055. Where zero lies outside, chance alone would do that in at most 5 "
            "of 100 comparisons. Unpaired, these scores could not have shown it."
        ),
    ),
)  # fmt: skip
