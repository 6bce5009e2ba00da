"""Facts in the weights, in the prompt, or found for the prompt: which gives right answers, which makes them up?"""

from .asking import ask, with_notes
from .grading import first_line, names, says_unknown, verdict, verdicts
from .house import Fact, load_facts, load_unstated
from .recorded_answers import (
    Answers,
    best_floor,
    by_name,
    learned_half,
    load_answers,
    load_retrieved,
    shares,
    with_floor,
)
from .retriever import Retriever, embed

__all__ = [
    "Answers", "Fact", "Retriever", "ask", "best_floor", "by_name", "embed", "first_line", "learned_half",
    "load_answers", "load_facts", "load_retrieved", "load_unstated", "names", "says_unknown", "shares", "verdict",
    "verdicts", "with_floor", "with_notes",
]  # fmt: skip
