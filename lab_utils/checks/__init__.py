"""Exercises that check themselves: `check` a function, ask for a `hint`, or see the `solution`.

Nothing here raises at the learner: whatever a function does is said in words. `grade` alone raises: nbgrader counts
points by that.
"""

from .asking import EXERCISES, check, grade, hint, solution
from .by_hand import check_by_hand, yours_or_ours
from .exercise import Exercise
from .grading import NotSolved
from .report import Report

__all__ = [
    "EXERCISES", "Exercise", "NotSolved", "Report", "check", "check_by_hand", "grade", "hint", "solution",
    "yours_or_ours",
]  # fmt: skip
