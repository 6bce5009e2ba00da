"""The fine-tuning tasks and their data (pages 08, 09)."""

from .registry import TASKS, Task, load_task

__all__ = [
    "TASKS", "Task", "load_task",
]  # fmt: skip
