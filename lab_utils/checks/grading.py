"""What nbgrader needs of a check: an error that says what is wrong, or no error at all."""

from dataclasses import replace

from ..errors import LabError
from ..printing import folded
from .report import Report

WIDTH = 96  # characters per line: nbgrader's feedback cuts longer ones off


class NotSolved(LabError):
    """An exercise earns no points. nbgrader gives 0 to a cell that raises, and its feedback shows this text."""

    def __init__(self, report: Report):
        """Keep what the report finds, and leave out what helps to go on: feedback comes after the deadline."""
        example = [] if report.status == "open" else report.example
        super().__init__(folded(repr(replace(report, note="", alt="", example=example)), WIDTH))

    def _render_traceback_(self) -> list[str]:
        """What the feedback shows: the report alone."""
        return str(self).splitlines()
