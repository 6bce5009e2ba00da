"""How good are answers, in numbers with an interval: labels, fields, texts, or a function of your own (page 14)."""

from .baselines import few_shots, majority, majority_outputs
from .intervals import Measure, bootstrap_mean, difference, difference_of_samples, perplexity, wilson
from .labels import Confusion
from .measuring import Measured, measure
from .text_overlap import rouge_l, token_f1
from .verdicts import Verdict
from .word_counts import nearest, one_thread, word_classifier

__all__ = [
    "Confusion", "Measure", "Measured", "Verdict", "bootstrap_mean", "difference", "difference_of_samples",
    "few_shots", "majority", "majority_outputs", "measure", "nearest", "one_thread", "perplexity", "rouge_l",
    "token_f1", "wilson", "word_classifier",
]  # fmt: skip
