"""The reward explorer: a group of sampled answers, what each is worth, and what a step of GRPO does to their parts."""

import traitlets

from .. import plots
from ..errors import LabError, choose, whole
from ..preferences import SMALL_REWARDS, group_advantages, share, small_run, start_logits
from ..preferences.small_policy import CLOSED, PARTS, RATE, STEPS, chances
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Switch, fixed

QUESTION = "Paid for “right”, four answers per step: in how many of the 30 steps are all rewards equal?"
GROUPS, TEMPERATURES, BETAS = (2, 4, 8, 16), (0.3, 0.5, 0.7, 1.0, 1.5, 2.0), (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


class RewardExplorer(Explorer):
    """A choice of rewards, sliders for step, group, temperature and beta, and a tick: divide by the group's deviation?

    It shows `preferences.small_run`: an answer of four parts, whose logits are all that is trained.

    Parameters
    ----------
    reward : name in `SMALL_REWARDS`
    step : int, 1 to 30
    group_size : one of `GROUPS`
    temperature : one of `TEMPERATURES`
    beta : one of `BETAS`
    divided : bool, are the advantages divided by the group's standard deviation?

    Attributes
    ----------
    reward, step, group_size, temperature, beta, divided : at every moment

    Raises
    ------
    LabError
        A value that is not there.
    """

    _esm = script("reward_explorer")
    _css = STYLE + (FOLDER / "reward.css").read_text(encoding="utf-8")
    _moved = ("reward", "step", "group_size", "temperature", "beta", "divided")
    policy = traitlets.Dict().tag(sync=True)
    reward = traitlets.Unicode().tag(sync=True)
    step, group_size = (traitlets.Int().tag(sync=True) for _ in range(2))
    temperature, beta = (traitlets.Float().tag(sync=True) for _ in range(2))
    divided = Switch(True).tag(sync=True)

    def __init__(
        self, reward: str = "right", step: int = 1, group_size: int = 4, temperature: float = 1.0, beta: float = 0.0,
        divided: bool = True, question: str = QUESTION, choices=("none", "half", "nearly all"),
    ):  # fmt: skip
        super().__init__(
            policy={
                "parts": [list(part) for part in PARTS], "chances": chances().tolist(), "rate": RATE, "steps": STEPS,
                "start": [[one for one in row if one > CLOSED] for row in start_logits().tolist()],
                "rewards": list(SMALL_REWARDS), "groups": list(GROUPS), "temperatures": list(TEMPERATURES),
                "betas": list(BETAS),
            },
            reward=reward, step=step, group_size=group_size, temperature=temperature, beta=beta, divided=divided,
            question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("reward", "step", "group_size", "temperature", "beta")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "step":
            return whole(name, value, 1, STEPS)
        allowed = {"reward": SMALL_REWARDS, "group_size": GROUPS, "temperature": TEMPERATURES, "beta": BETAS}[name]
        return choose(name, value, allowed)

    def run(self) -> list:
        """The steps at the present settings, as `small_run` gives them."""
        scale = "group" if self.divided else "none"
        return small_run(self.reward, self.group_size, self.temperature, self.beta, scale_rewards=scale)

    def summary(self) -> str:
        run = self.run()
        now, last = run[self.step - 1], run[-1].after
        right = sum(answer.right for answer in now.answers)
        taught = sum(bool(one.advantages.any()) for one in run)
        mean, deviation = float(now.rewards.mean()), float(now.rewards.std())
        plain, divided = (float(group_advantages(now.rewards, self.group_size, scale).abs().mean())
                          for scale in ("none", "group"))  # fmt: skip
        return (
            f"Step {self.step} of {STEPS}, paid for “{self.reward}”: {right} of {self.group_size} sampled answers are "
            f"right, mean reward {fixed(mean, 2)}, deviation {fixed(deviation, 3)}. Mean size of the advantages: "
            f"{fixed(plain, 3)}, divided by the deviation {fixed(divided, 2)}. The step, "
            f"{'divided' if self.divided else 'not divided'}, takes the right answer from "
            f"{_percent(share(now.before, 'right'))} to {_percent(share(now.after, 'right'))}, and well-formed ones "
            f"from {_percent(share(now.before, 'valid'))} to {_percent(share(now.after, 'valid'))}. {taught} of "
            f"{STEPS} steps have unequal rewards; after the last, {_percent(share(last, 'right'))} are right and "
            f"{_percent(share(last, 'valid'))} well-formed."
        )

    def figure(self):
        run = self.run()
        found = [run[0].before, *(one.after for one in run)]
        steps = list(range(STEPS + 1))
        return plots.lines(
            {name: (steps, [share(one, what) for one in found])
             for name, what in (("right", "right"), ("well-formed", "valid"))}, "step", "probability"
        )  # fmt: skip


def _percent(value: float) -> str:
    """A share as the browser writes it."""
    if not 0 <= value <= 1:
        raise LabError(f"{value} is not a share.")
    return f"{100 * value:.1f} %"
