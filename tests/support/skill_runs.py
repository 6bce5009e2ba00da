"""Made-up runs that learn a skill and pay for it, and a skill explorer of them."""

from lab_utils.recorded.forgetting import ForgettingRun, Texts
from lab_utils.widgets.skill_explorer import SkillExplorer


def learned(arm: str, seed: int, skill: tuple[float, ...], price: float) -> ForgettingRun:
    """A run that pays `price` nats on each text of prose per nat learned, twice that on questions, nothing on style."""
    at = {}
    for step, loss in enumerate(skill):
        paid = price * (skill[0] - loss) * (1 + 0.05 * seed)
        losses = {"skill": (loss - 0.01, loss + 0.01), "prose": tuple(3 + paid * (1 + 0.1 * n) for n in range(3)),
                  "questions": tuple(1 + 0.2 * n + 2 * paid for n in range(4)), "style": (2.0, 2.5)}  # fmt: skip
        at[8 * step] = Texts(losses, (False, loss < 0.5))
    return ForgettingRun(arm, seed, 8, 8 * (len(skill) - 1), 1e-3, at, {}, None, {}, {}, {})


def arms() -> dict[str, list[ForgettingRun]]:
    """Three arms: one that pays, one that pays twice as much, and one of which a seed ends above 0.5."""
    return {
        "cheap": [learned("cheap", seed, (3.0, 1.0, 0.2), 0.1037) for seed in range(3)],
        "dear": [learned("dear", seed, (3.0, 0.8, 0.1 + 0.02 * seed), 0.2113) for seed in range(3)],
        "slow": [learned("slow", seed, (2.5, 1.5, 0.4 + 0.2 * seed), 0.1037) for seed in range(2)],
    }


def skill_explorer() -> SkillExplorer:
    return SkillExplorer(arms())
