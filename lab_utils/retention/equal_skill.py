"""Arms compared where they have learned equally much: at which losses that is, and what each has paid there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import choose
from ..recorded.forgetting import ForgettingRun, at_skill
from .comparing import Change, apart, paired, rises
from .measuring import KINDS

ROUND = (10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.8, 1.6, 1.4, 1.2)  # times a power of ten: the stops of a slider


@dataclass(frozen=True)
class Paid:
    """What an arm has paid on one kind of text at a common loss on the skill.

    Attributes
    ----------
    rise : Change or None, its loss less the base's; None where a seed of it never came so far
    less : Change or None, the same less another arm's, on the seeds of both; None where either never came so far
    above : int, its seeds whose loss on the skill was never as low
    """

    rise: Change | None
    less: Change | None
    above: int


def lowest_common(runs: Sequence[ForgettingRun]) -> float:
    """The lowest loss on the skill that every run of an arm comes to, rounded up to three decimals."""
    lowest = max(min(texts.mean("skill") for texts in run.at.values()) for run in runs)
    return math.ceil(round(1000 * lowest, 6)) / 1000


def stops(arms: Mapping[str, Sequence[ForgettingRun]], first: float = 1.0) -> list[float]:
    """Losses to compare arms at, falling: round ones, and the last of each arm; none that no arm comes to.

    Parameters
    ----------
    arms : dict name -> runs
    first : float > 0, the highest; below every base's loss
    """
    lasts = {lowest_common(runs) for runs in arms.values()}
    even = {round(part * ten, 6) for part in ROUND for ten in (1, 0.1, 0.01, 0.001)}
    return sorted((one for one in even | lasts if min(lasts) <= one <= first), reverse=True)


def paid_at(arms: Mapping[str, Sequence[ForgettingRun]], loss: float, kind: str, against: str) -> dict[str, Paid]:
    """What each arm has paid where its loss on the skill is `loss`, and how far that is from one of them.

    Parameters
    ----------
    arms : dict name -> runs
    loss : float, below every base's
    kind : str, one of `KINDS`
    against : str, the arm that the others are compared with

    Returns
    -------
    dict name -> Paid, in the order of `arms`

    Raises
    ------
    LabError
        A name is unknown, or two arms have no seed in common.
    """
    kind, against = choose("kind", kind, KINDS), choose("against", against, arms)

    def there(run: ForgettingRun):
        return at_skill(run, loss)

    above = {name: sum(there(run) is None for run in runs) for name, runs in arms.items()}
    found = {}
    for name, runs in arms.items():
        paired(arms[against], runs)  # refuses arms without a common seed, wherever they stop
        rise = None if above[name] else rises(runs, there)[kind]
        less = None if above[name] or above[against] else apart(arms[against], runs, there)[kind]
        found[name] = Paid(rise, less, above[name])
    return found
