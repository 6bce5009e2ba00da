"""Exercise of page 08 on scoring: how sure a share of few tries is."""

import math

from hypothesis import strategies as st

from ..exercise import Exercise, Mistake

Z = 1.96  # a normal variable is within so many standard deviations 95 times in 100


def share_interval_spec(right: int, n: int) -> tuple[float, float]:
    """The two shares q from which `right` of n is 1.96 of q's own standard errors away: (p - q)² = z² q (1 - q) / n."""
    p, z2 = right / n, 1.96**2
    a, b, c = 1 + z2 / n, -(2 * p + z2 / n), p * p  # a q² + b q + c = 0
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return max((-b - root) / (2 * a), 0.0), min((-b + root) / (2 * a), 1.0)


def share_interval(right: int, n: int) -> tuple[float, float]:
    p, z = right / n, 1.96
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _with(middle, half):
    """share_interval with another middle and half width, each of (p, n)."""

    def wrong(right, n):
        p = right / n
        return middle(p, n) - half(p, n), middle(p, n) + half(p, n)

    return wrong


def _middle(p, n, z=Z):
    return (p + z**2 / (2 * n)) / (1 + z**2 / n)


def _half(p, n, z=Z):
    return z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))


def _wald(p, n, z=Z):
    return z * math.sqrt(p * (1 - p) / n)


def _adjusted(p, n):
    """Agresti and Coull's half width: Wald's, of Wilson's middle."""
    return _wald(_middle(p, n), n + Z**2)


def _times_n_squared(p, n):
    return Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / 4 * n**2)


def _share(p, n):
    return p


def _at(z):
    return _with(lambda p, n: _middle(p, n, z), lambda p, n: _half(p, n, z))


def _cut_off(wrong):
    """The same interval, cut off at 0 and 1."""

    def cut(right, n):
        low, high = wrong(right, n)
        return max(low, 0.0), min(high, 1.0)

    return cut


@st.composite
def _counted(draw):
    """So many right of 5 to 200; often at an end or one from it, where Wald's interval leaves 0 to 1."""
    n = draw(st.integers(5, 200))
    return draw(st.one_of(st.sampled_from([0, 1, n - 1, n]), st.integers(0, n))), n


EXERCISES = (
    Exercise(
        name="share_interval", page=8, title="What 0 of 20 still allows",
        spec=share_interval_spec, solution=share_interval, inputs=_counted(), demo=(0, 20),
        mistakes=(
            Mistake(
                "below 0 or above 1",
                "p ± 1.96 standard errors (Wald's interval) is made for shares far from 0 and 1: it leaves the range, "
                "and has no width at 0 of n. Take Wilson's formula.",
                wrong=(_with(_share, _wald),),
            ),
            Mistake(
                "no width at 0 of n",
                "Cutting Wald's interval off hides the trouble: 0 of 20 gives 0 to 0. Take Wilson's formula.",
                wrong=(_cut_off(_with(_share, _wald)),),
            ),
            Mistake(
                "another z than 1.96",
                "For 95 % it is 1.96. With 1 the interval holds the truth in 68 of 100 cases only.",
                wrong=(_at(1.0), _at(1.645), _at(2.0), _at(2.576)),
            ),
            Mistake(
                "around p",
                "Wilson's interval is not symmetric about p: its middle is moved toward one half.",
                wrong=(_with(_share, _half), _cut_off(_with(_share, _half))),
            ),
            Mistake(
                "the half width of p",
                "You moved the middle and kept the old width. Under the root z²/4n² is added, and all is divided by "
                "1 + z²/n.",
                wrong=(
                    _with(_middle, _wald),
                    _with(_middle, _adjusted), _cut_off(_with(_middle, _adjusted)),
                ),
            ),
            Mistake(
                "not divided by 1 + z²/n",
                "Middle and half width are both divided by it.",
                wrong=(
                    _with(lambda p, n: p + Z**2 / (2 * n), lambda p, n: _half(p, n) * (1 + Z**2 / n)),
                    _with(_middle, lambda p, n: _half(p, n) * (1 + Z**2 / n)),
                    _with(lambda p, n: _middle(p, n) * (1 + Z**2 / n), _half),
                ),
            ),
            Mistake(
                "z where z² is asked for",
                "In the middle, under the root and in 1 + z²/n it is squared; before the root it is not.",
                wrong=(
                    _with(lambda p, n: (p + Z / (2 * n)) / (1 + Z / n),
                          lambda p, n: Z / (1 + Z / n) * math.sqrt(p * (1 - p) / n + Z / (4 * n**2))),
                ),
            ),
            Mistake(
                "parentheses missing",
                "Python reads a / b * c as (a / b) · c, and a + b / c as a + (b / c). Put parentheses around 2 * n, "
                "around 4 * n**2, and around all that is divided.",
                wrong=(
                    _with(lambda p, n: (p + Z**2 / 2 * n) / (1 + Z**2 / n), _half), _with(_middle, _times_n_squared),
                    _with(lambda p, n: (p + Z**2 / 2 * n) / (1 + Z**2 / n), _times_n_squared),
                    _with(lambda p, n: p + Z**2 / (2 * n) / (1 + Z**2 / n), _half),
                ),
            ),
            Mistake(
                "4n where 4n² is asked for",
                "Under the root, z² is divided by 4n².",
                wrong=(_with(_middle, lambda p, n: Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n))),),
            ),
            Mistake("no root", "Half the width is z times a square root, like any standard error.",
                    wrong=(_with(_middle, lambda p, n: Z / (1 + Z**2 / n) * (p * (1 - p) / n + Z**2 / (4 * n**2))),)),
            Mistake("the whole width on each side", "From the middle to an end is half the width.",
                    wrong=(_with(_middle, lambda p, n: 2 * _half(p, n)),)),
            Mistake("the ends swapped", "The lower end comes first.", wrong=(lambda r, n: share_interval(r, n)[::-1],)),
            Mistake("the middle and the half width", "Hand back the two ends.",
                    wrong=(lambda right, n: (_middle(right / n, n), _half(right / n, n)),)),
            Mistake("in per cent", "As shares, from 0 to 1.",
                    wrong=(lambda right, n: tuple(100 * end for end in share_interval(right, n)),)),
        ),
        hints=(
            "0 of 20 were right. Were the true share 10 %, that would happen in one try of eight. So not 0 to 0.",
            "Wilson: middle = (p + z²/2n) / (1 + z²/n); half = z/(1 + z²/n) · √(p(1 − p)/n + z²/4n²). Which z?",
            "p = right / n, z = 1.96, the two formulas of hint 2, then middle - half and middle + half.",
        ),
        reward="0 of 20 allows up to 16 %. 160 of 200 is 16 of 20 with ten times as many messages, and its interval is "
        "3.0 times narrower: about √10. Every share on this page has such an interval.",
    ),
)  # fmt: skip
