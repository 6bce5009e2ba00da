"""Exercise of page 08 on training: the learning rate of each step."""

import math

from hypothesis import strategies as st

from ..exercise import Exercise, Mistake


def learning_rate_at_spec(step: int, steps: int, peak: float, warmup: float) -> float:
    """Equal stairs up to the peak, the first of them above zero; then half a cosine that would be zero at `steps`."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        stair = peak / rising
        return stair * (step + 1)
    falling = steps - rising
    angle = math.pi * (step - rising) / falling
    return peak * (1 + math.cos(angle)) / 2


def learning_rate_at(step: int, steps: int, peak: float, warmup: float) -> float:
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _scheduled(rising=lambda steps, warmup: max(1, round(warmup * steps)), up=None, down=None, along=None):
    """learning_rate_at with another warm-up, another way down, or another measure of progress."""
    up = up or (lambda step, rise: (step + 1) / rise)
    down = down or (lambda progress: 0.5 * (1 + math.cos(math.pi * progress)))
    along = along or (lambda step, steps, rise: (step - rise) / (steps - rise))

    def wrong(step, steps, peak, warmup):
        rise = rising(steps, warmup)
        return peak * (up(step, rise) if step < rise else down(along(step, steps, rise)))

    return wrong


def _share(steps, warmup):
    return warmup


def _none(steps, warmup):
    return 0


@st.composite
def _steps(draw):
    """A step of 10 to 200, a peak, and a share that every way of rounding rounds alike."""
    steps, warmup = draw(st.integers(10, 200)), draw(st.sampled_from([0.0, 0.03, 0.06, 0.1, 0.2, 0.5]))
    if abs(warmup * steps % 1 - 0.5) < 0.01:
        steps += 1
    near = st.integers(0, max(1, round(warmup * steps)))
    step = min(draw(st.one_of(near, st.integers(0, steps - 1), st.just(steps - 1))), steps - 1)
    return step, steps, draw(st.sampled_from([1e-4, 1e-3, 2e-3])), warmup


EXERCISES = (
    Exercise(
        name="learning_rate_at", page=8, title="Warm up, then half a cosine",
        spec=learning_rate_at_spec, solution=learning_rate_at, inputs=_steps(), demo=(2, 100, 0.002, 0.1),
        mistakes=(
            Mistake(
                "starts at 0",
                "A step with rate 0 does all the work and changes nothing. The first of n warm-up steps has 1/n of the "
                "peak.",
                wrong=(
                    _scheduled(up=lambda step, rise: step / rise),
                    _scheduled(up=lambda step, rise: step / max(1, rise - 1)),
                ),
            ),
            Mistake(
                "stairs that end below the peak",
                "The last of n stairs is the peak itself, so each is 1/n of it, not 1/(n + 1).",
                wrong=(_scheduled(up=lambda step, rise: (step + 1) / (rise + 1)),),
            ),
            Mistake(
                "no warm-up step where the share is tiny",
                "At least one step belongs to the warm-up: max(1, round(warmup * steps)).",
                wrong=(_scheduled(lambda steps, warmup: round(warmup * steps)),),
            ),
            Mistake(
                "the share taken for steps",
                "warmup is a share of the run: 0.06 of 175 steps are 10 or 11 steps, not 0.06 of one.",
                wrong=(
                    _scheduled(_share), _scheduled(lambda steps, warmup: max(1, round(warmup))),
                    _scheduled(lambda steps, warmup: max(1, warmup)), _scheduled(lambda steps, warmup: warmup or 1),
                ),
            ),
            Mistake(
                "ends one early",
                "Steps are counted from 0, so the last is steps - 1, and it should still learn. Zero would be reached "
                "at `steps`.",
                wrong=(
                    _scheduled(along=lambda step, steps, rise: (step - rise) / (steps - 1 - rise)),
                    _scheduled(along=lambda step, steps, rise: (step + 1 - rise) / (steps - rise)),
                ),
            ),
            Mistake(
                "the cosine counted from the first step",
                "It begins where the warm-up ends: its progress is (step - rising) of (steps - rising).",
                wrong=(_scheduled(along=lambda step, steps, rise: step / steps),
                       _scheduled(along=lambda step, steps, rise: (step - rise) / steps)),
            ),
            Mistake("no warm-up", "First it rises, in equal stairs.",
                    wrong=(_scheduled(_none, along=lambda step, steps, rise: step / steps),)),
            Mistake(
                "below zero",
                "A cosine goes from 1 to -1. Half of (1 + cosine) goes from 1 to 0.",
                wrong=(_scheduled(down=lambda progress: math.cos(math.pi * progress)),),
            ),
            Mistake(
                "a quarter of a cosine",
                "Half a wave, from the top to the bottom: cos(pi · progress), moved up and halved. So it also ends "
                "gently.",
                wrong=(_scheduled(down=lambda progress: math.cos(math.pi / 2 * progress)),),
            ),
            Mistake("degrees", "math.cos takes radians: half a turn is math.pi, not 180.",
                    wrong=(_scheduled(down=lambda progress: 0.5 * (1 + math.cos(180 * progress))),)),
            Mistake("a floor", "It would reach 0 at `steps`, not a tenth of the peak.",
                    wrong=(_scheduled(down=lambda progress: 0.1 + 0.45 * (1 + math.cos(math.pi * progress))),)),
            Mistake("not halved", "1 + cosine starts at 2: take half of it.",
                    wrong=(_scheduled(down=lambda progress: 1 + math.cos(math.pi * progress)),)),
            Mistake("a straight line", "Half a cosine is asked for.",
                    wrong=(_scheduled(down=lambda progress: 1 - progress),)),
            Mistake(
                "not rounded to the nearest",
                "round(warmup · steps) is the number of warm-up steps; int cuts off, ceil rounds up.",
                wrong=(
                    _scheduled(lambda steps, warmup: max(1, int(warmup * steps))),
                    _scheduled(lambda steps, warmup: max(1, math.ceil(warmup * steps))),
                    _scheduled(lambda steps, warmup: max(1e-9, warmup * steps)),
                ),
            ),
            Mistake("the peak left out", "Multiply by the peak: the share alone is a rate of up to 1.",
                    wrong=(lambda step, steps, peak, warmup: learning_rate_at(step, steps, 1.0, warmup),)),
        ),
        hints=(
            "Two parts. How many steps does the first take? What is true at step 0, and at the first step after it?",
            "rising = share times steps, rounded, at least 1. Up: step + 1 of rising. Down: how far of the rest?",
            "Down: peak · 0.5 · (1 + math.cos(math.pi · progress)), and progress is (step - rising)/(steps - rising).",
        ),
        reward="The gentle end lets the weights settle, and no step is wasted on a rate of zero.",
    ),
)  # fmt: skip
