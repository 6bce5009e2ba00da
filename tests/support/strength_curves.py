"""A strength explorer with made-up losses."""

from lab_utils.recorded.forgetting import Texts
from lab_utils.widgets.strength_explorer import StrengthExplorer

STRENGTHS = (0.0, 0.5, 1.0, 1.5)


def curve(seed: int = 0) -> dict[float, Texts]:
    """Made-up losses: the skill falls, prose rises, questions fall a little, style does not move."""
    found = {}
    for strength in STRENGTHS:
        losses = {
            "skill": tuple(3 - 1.9 * min(strength, 1) + 0.1 * n for n in range(4)),
            "prose": tuple(3 + 0.2 * strength**2 + n + 0.01 * seed for n in range(3)),
            "questions": tuple(1 - 0.0123 * strength + 0.1 * n for n in range(3)),
            "style": (2.0, 2.5),
        }
        found[strength] = Texts(losses, (True, strength > 0.6, False, strength > 0.9))
    return found


def strength_explorer() -> StrengthExplorer:
    return StrengthExplorer([curve()])
