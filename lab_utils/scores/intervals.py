"""A number and how sure it is: 95 % intervals of shares, of means, of differences and of perplexity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import LabError, shown, whole
from ..normal import Z
from .verdicts import Verdict

RESAMPLES = 2000


@dataclass(frozen=True)
class Measure(Verdict):
    """A measured value with its 95 % interval; of a difference, `clear` and `verdict` say whether that leaves zero out.

    Attributes
    ----------
    name : str, "label accuracy"
    value, low, high : float
    n : int, examples
    how : str, the interval's method: "Wilson", "bootstrap", "Newcombe"
    is_share : bool, is it shown in per cent
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    how: str
    is_share: bool = True

    def __str__(self) -> str:
        form = "z.0%" if self.is_share else "z.3g"  # z: what is rounded to zero has no minus
        return f"{self.name} {self.value:{form}} ({self.low:{form}} to {self.high:{form}})"

    @property
    def in_points(self) -> str:
        """A difference of shares, "+12 points (+2 to +23)"; what is just off zero keeps its side."""
        return f"{_points(self.value)} points ({_points(self.low)} to {_points(self.high)})"


def _points(share: float) -> str:
    """A share times 100 with its sign; whole, but for a digit or two where that would be zero."""
    texts = (f"{100 * share:+.{digits}f}" for digits in range(3))
    return next((text for text in texts if float(text)), "0")


def wilson(right: int, n: int, name: str = "share") -> Measure:
    """A share of n tries with Wilson's score interval, which holds the truth about 95 times in 100 for any n.

    Source: Wilson 1927. https://doi.org/10.1080/01621459.1927.10502953

    Raises
    ------
    LabError
        n is 0, or `right` is not between 0 and n.
    """
    n = whole("n", n)
    right = whole("right", right, 0, n)
    low, high = _wilson(right / n, n)
    return Measure(name, right / n, low, high, n, "Wilson")


def _wilson(share: float, n: int) -> tuple[float, float]:
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)


def bootstrap_mean(values: Sequence[float], name: str = "mean", seed: int = 0) -> Measure:
    """The mean of numbers in [0, 1], one per example, with its percentile bootstrap interval.

    Where all numbers are 0 or 1, the interval is Wilson's: resampling twenty zeros gives zeros only.

    Source: Efron 1979. https://doi.org/10.1214/aos/1176344552

    Raises
    ------
    LabError
        There are none, or one is not a number in [0, 1].
    """
    import numpy as np

    found = _values(values, name)
    if _is_binary(found):
        return wilson(int(found.sum()), len(found), name)
    low, high = np.quantile(_resampled(found, seed), (0.025, 0.975))
    return no_point(Measure(name, float(found.mean()), float(low), float(high), len(found), "bootstrap"))


def no_point(found: Measure) -> Measure:
    """A measure of resampled values in [0, 1] whose interval is not a point, as it is where all resamples agree.

    It is Wilson's then, for the same mean: no values in [0, 1] vary more around it than zeros and ones.
    """
    if found.low < found.high:
        return found
    low, high = _wilson(found.value, found.n)
    return replace(found, low=low, high=high, how="Wilson")


def difference(first: Sequence[float], second: Sequence[float], name: str = "difference", seed: int = 0) -> Measure:
    """Second minus first on the same examples, with an interval: "not clear" where it holds zero.

    Parameters
    ----------
    first, second : numbers in [0, 1], one per example, in the same order

    Returns
    -------
    Measure, its value and interval in [-1, 1]. Of zeros and ones it is Newcombe's for paired shares (method 10), else a
    bootstrap of the differences.

    Source: Newcombe 1998, Improved confidence intervals for the difference between binomial proportions based on paired
    data. https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C
    """
    import numpy as np

    one, other = _values(first, name), _values(second, name)
    if len(one) != len(other):
        raise LabError(f"{name}: {len(one)} scores and {len(other)}: give both for the same examples.")
    if _is_binary(one) and _is_binary(other):
        low, high = _newcombe(one, other)
        return Measure(name, float((other - one).mean()), low, high, len(one), "Newcombe")
    means = _resampled(other - one, seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return Measure(name, float((other - one).mean()), float(low), float(high), len(one), "bootstrap")


def difference_of_samples(first: Measure, second: Measure, name: str = "difference") -> Measure:
    """Second minus first of two shares of different examples, with Newcombe's interval for separate samples.

    It also serves where only the counts of the same examples are known; examples that are hard for both make it wider
    than `difference`, which compares one by one.

    Parameters
    ----------
    first, second : Measure, as `wilson` gives them

    Returns
    -------
    Measure, its value and interval in [-1, 1]; n is the number of both samples' examples

    Source: Newcombe 1998, Interval estimation for the difference between independent proportions, method 10.
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I
    """
    low, high = _in_squares(first, second)
    return Measure(name, second.value - first.value, low, high, first.n + second.n, "Newcombe")


def _newcombe(one, other) -> tuple[float, float]:
    """Newcombe's method 10: the two Wilson intervals added in squares, with the correlation of the pairs."""
    n = len(one)
    both, second = int((one * other).sum()), int(((1 - one) * other).sum())
    first = int((one * (1 - other)).sum())
    neither = n - both - second - first
    product = (both + second) * (first + neither) * (both + first) * (second + neither)
    over = both * neither - second * first
    over = max(over - n / 2, 0) if over > 0 else over
    phi = over / math.sqrt(product) if product else 0.0
    return _in_squares(wilson(both + first, n), wilson(both + second, n), phi)


def _in_squares(first: Measure, second: Measure, phi: float = 0.0) -> tuple[float, float]:
    """The ends of second minus first: the sides of both intervals added in squares, less what is correlated."""

    def half(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))

    gap = second.value - first.value
    down = half(second.value - second.low, first.high - first.value)
    return gap - down, gap + half(second.high - second.value, first.value - first.low)


def perplexity(losses: Sequence[float], tokens: Sequence[int], name: str = "perplexity", seed: int = 0) -> Measure:
    """exp of the mean loss per token over all answers, resampled by answer.

    Parameters
    ----------
    losses : float >= 0, the mean cross entropy of each answer, in nats per token
    tokens : int >= 1, each answer's tokens

    Raises
    ------
    LabError
        The numbers differ, or a loss is not finite.
    """
    import numpy as np

    mean, weight = np.asarray(losses, dtype=float), np.asarray(tokens, dtype=float)
    if mean.shape != weight.shape or mean.ndim != 1 or not len(mean):
        raise LabError(f"{name}: give one loss and one number of tokens for each answer, and at least one.")
    if not np.isfinite(mean).all() or not (weight >= 1).all():
        raise LabError(f"{name}: a loss is not finite, or an answer has no token.")
    rng = np.random.default_rng(seed)
    total = mean * weight
    drawn = rng.integers(0, len(mean), (RESAMPLES, len(mean)))
    low, high = np.quantile(total[drawn].sum(1) / weight[drawn].sum(1), (0.025, 0.975))
    value = total.sum() / weight.sum()
    with np.errstate(over="ignore"):
        value, low, high = (float(np.exp(one)) for one in (value, low, high))
    return Measure(name, value, low, high, len(mean), "bootstrap", is_share=False)


def _values(values: Sequence[float], name: str):
    import numpy as np

    try:
        found = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise LabError(f"{name}: {shown(values)} are not numbers in [0, 1], one for each example.") from error
    if found.ndim != 1 or not len(found):
        raise LabError(f"{name}: there are no examples, and the mean of none has no interval.")
    if not ((found >= 0) & (found <= 1)).all():
        raise LabError(f"{name}: {shown(values)} are not numbers in [0, 1], one for each example.")
    return found


def _is_binary(values) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _resampled(values, seed: int):
    """The means of `RESAMPLES` samples, drawn with replacement; some at a time, so that memory stays small."""
    import numpy as np

    rng = np.random.default_rng(seed)
    each = max(1, 2_000_000 // len(values))
    starts = range(0, RESAMPLES, each)
    return np.concatenate(
        [values[rng.integers(0, len(values), (min(each, RESAMPLES - one), len(values)))].mean(1) for one in starts]
    )
