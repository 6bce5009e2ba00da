"""What a page asks of an exercise: check a function, a hint, the solution; and what nbgrader asks: a grade."""

from collections.abc import Callable

from .attempt_report import write_report
from .engine import attempt
from .exercise import Exercise
from .exercises import p01_errors as errors_of_fits
from .exercises import p01_rank_one as rank_one
from .exercises import p02_counting as counting
from .exercises import p03_from_scratch as from_scratch
from .exercises import p04_rank_and_alpha as rank_and_alpha
from .exercises import p05_blocks as block_scales
from .exercises import p05_quantization as quantization
from .exercises import p05_zeropoint as zeropoint
from .exercises import p06_four_bits as four_bits
from .exercises import p06_packing as packing
from .exercises import p07_memory_budget as memory_budget
from .exercises import p07_weight_sizes as weight_sizes
from .exercises import p08_batches as batches
from .exercises import p08_fields as answer_fields
from .exercises import p08_intervals as share_intervals
from .exercises import p08_labels as labels
from .exercises import p08_schedule as schedule
from .exercises import p08_training as answer_training
from .exercises import p09_choosing as choosing
from .exercises import p09_fair_comparisons as fair_comparisons
from .exercises import p09_pareto as pareto
from .exercises import p09_seeds as seeds
from .exercises import p10_changed_codes as changed_codes
from .exercises import p10_combining as combining
from .exercises import p10_mixed_batches as mixed_batches
from .exercises import p10_rounding as rounding
from .exercises import p10_stacking as stacking
from .exercises import p11_taken_apart as taken_apart
from .exercises import p11_variant_steps as variant_steps
from .exercises import p11_vera as vera
from .exercises import p12_beyond_text as beyond_text
from .exercises import p12_pictures as pictures
from .exercises import p13_many_machines as many_machines
from .exercises import p14_curves as training_curves
from .exercises import p14_lead as lead
from .exercises import p14_splits as splits
from .exercises import p14_turns as turns
from .exercises import p15_controls as controls
from .exercises import p15_facts as nearest
from .exercises import p15_measuring as retention
from .exercises import p16_preferences as preferences
from .exercises import p16_rewards as rewards
from .grading import NotSolved
from .report import Report, source
from .surroundings import standard

MODULES = (
    rank_one, errors_of_fits, counting, from_scratch, rank_and_alpha, quantization, zeropoint, block_scales,
    four_bits, packing, weight_sizes, memory_budget, labels, batches, answer_training, schedule, answer_fields,
    share_intervals, seeds, choosing, pareto, fair_comparisons, combining, stacking, mixed_batches, changed_codes,
    rounding, taken_apart, vera, variant_steps, pictures, beyond_text, many_machines, turns, splits, lead,
    training_curves, retention, controls, nearest, preferences, rewards,
)  # fmt: skip
EXERCISES: dict[str, Exercise] = {exercise.name: exercise for module in MODULES for exercise in module.EXERCISES}
CHECK_SECONDS, GRADE_SECONDS = 5.0, 10.0


def check(name: str, function: Callable | None = None, *, seconds: float = CHECK_SECONDS) -> Report:
    """Try a function on an exercise and say what is right, what is not, and on which smallest input.

    Parameters
    ----------
    name : str, the exercise, a key of EXERCISES
    function : the learner's function
    seconds : float > 0, after which a function that does not end is given up

    Returns
    -------
    Report
        Shows itself as a cell's last expression; `.passed`, `.mistake` and `.text` say the same to a program.
    """
    exercise = _find(name)
    if exercise is None:
        return _unknown(name)
    if not callable(function):
        return Report(
            f"This is not a function: {exercise.title}",
            note=f"Hand over the function itself, without brackets: checks.check({name!r}, {name})",
        )
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        return Report(f"seconds={seconds!r} is out of range: {exercise.title}", note="Give a number above 0.")
    with standard():
        return write_report(exercise, function, attempt(exercise, function, seconds))


def grade(name: str, function: Callable | None = None) -> None:
    """Check a function for nbgrader: all points of the exercise, or none.

    A slow machine is not a mistake, so a function gets GRADE_SECONDS, twice the time of `check`.

    Raises
    ------
    NotSolved
        With the report's text, the name of the mistake and its fix in it.
    """
    report = check(name, function, seconds=GRADE_SECONDS)
    if not report.passed:
        raise NotSolved(report)
    print(report.text.splitlines()[0], "All points.", sep="\n")


def hint(name: str, level: int = 1) -> Report:
    """A hint to an exercise: level 1 is a nudge, level 3 nearly all."""
    exercise = _find(name)
    if exercise is None:
        return _unknown(name)
    if level not in (1, 2, 3):
        return Report(f"There is no hint of level {level!r}: the levels are 1, 2 and 3")
    return Report(f"Hint {level} of 3: {exercise.title}", note=exercise.hints[int(level) - 1])


def solution(name: str) -> Report:
    """One solution of an exercise, as source."""
    exercise = _find(name)
    if exercise is None:
        return _unknown(name)
    return Report(f"One solution: {exercise.title}", code=source(exercise.solution))


def _find(name) -> Exercise | None:
    """The exercise of that name, if there is one."""
    return EXERCISES.get(name) if type(name) is str else None  # not isinstance: an object may refuse that


def _unknown(name) -> Report:
    """What to say to a name that is none."""
    shown = repr(name) if type(name) is str else f"of type {type(name).__name__}"
    return Report(f"There is no exercise {shown}", note="There are: " + ", ".join(EXERCISES))
