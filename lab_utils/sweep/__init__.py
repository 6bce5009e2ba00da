"""Trials of many settings: run, recorded, compared (page 09)."""

from .summary import CENTRE, TABLE, cheapest_within_one_error, difference, load_sweep, pick, summarize
from .trials import Trial, measure, missing, read_rows, sweep

__all__ = [
    "CENTRE", "TABLE", "Trial", "cheapest_within_one_error", "difference", "load_sweep", "measure", "missing",
    "pick", "read_rows", "summarize", "sweep",
]  # fmt: skip
