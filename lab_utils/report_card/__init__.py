"""A report card for a run: data, recipe, curve, scores against baselines, worst answers, how to load it (page 14)."""

from .comparing import Scored, asked, baselines, scored
from .writing import Card, report_card

__all__ = ["Card", "Scored", "asked", "baselines", "report_card", "scored"]
