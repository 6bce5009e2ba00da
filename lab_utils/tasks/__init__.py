"""The fine-tuning tasks and their data, those of the pages and your own (pages 08, 09, 14)."""

from .arguments import add_arguments, from_arguments
from .conversations import last_turn, rows_text, with_system
from .descriptions import changes, from_description
from .own_data import OwnTask, own
from .registry import TASKS, Task, find_task, load_task

__all__ = [
    "TASKS", "OwnTask", "Task", "add_arguments", "changes", "find_task", "from_arguments", "from_description",
    "last_turn", "load_task", "own", "rows_text", "with_system",
]  # fmt: skip
