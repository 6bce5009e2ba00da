"""A report card for a run: data, recipe, curve, scores against baselines, worst answers, how to load it (page 14)."""

from .comparing import Scored, asked, baselines, scored
from .label_likelihoods import label_likelihoods
from .probing import probe
from .writing import Card, report_card

__all__ = ["Card", "Scored", "asked", "baselines", "label_likelihoods", "probe", "report_card", "scored"]
