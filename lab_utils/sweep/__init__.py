"""Trials of many settings: run, recorded, compared (page 09); and the studies of `data/evidence`, with their tests.

`difference` compares groups of `sweep.csv`; runs of a study are compared by `study_results.difference`.
"""

from .differences import compare, holm, student
from .naming import by_name
from .rate_races import standings, variant_races
from .study_results import load_study
from .summary import CENTRE, TABLE, cheapest_within_one_error, difference, load_sweep, pick, summarize
from .table import read_rows
from .trial import Trial
from .trials import measure, missing, sweep

__all__ = [
    "CENTRE", "TABLE", "Trial", "by_name", "cheapest_within_one_error", "compare", "difference", "holm", "load_study",
    "load_sweep", "measure", "missing", "pick", "read_rows", "standings", "student", "summarize", "sweep",
    "variant_races",
]  # fmt: skip
