"""The old address of `classroom.nbgrader_course`, which the settings of existing course folders name."""

from .classroom.nbgrader_course import skip_lesson

__all__ = ["skip_lesson"]
