"""How good is it: exact match, fields, valid answers with a confidence interval, and perplexity (pages 08, 10, 14)."""

from ..decoding import generate
from .changing_weights import changed_weights
from .held_out import held_out
from .losses import AnswerLosses, answer_losses
from .reading_text import perplexity, token_losses
from .rounded_model import read_and_write
from .scoring import Scores, bootstrap_interval, grade, score

__all__ = [
    "AnswerLosses", "Scores", "answer_losses", "bootstrap_interval", "changed_weights", "generate", "grade",
    "held_out", "perplexity", "read_and_write", "score", "token_losses",
]  # fmt: skip
