"""Recipes of training by preference and by reward: the fine-tuning recipe, and what is chosen beside it."""

from dataclasses import dataclass

from ..errors import LabError, choose, real, whole
from ..finetune import Recipe
from . import dpo, grpo
from .rewards import OWN, REWARDS

UNUSED = ("turns", "validate_every", "validation_examples", "patience", "keep_best", "supervise_end")


class _Steps(Recipe):
    """What both recipes check in the same way."""

    def _check_shared(self) -> None:
        """Set and check `beta` and `start`, and refuse what only `finetune` reads."""
        defaults = {name: one.default for name, one in self.__dataclass_fields__.items()}
        if changed := [name for name in UNUSED if getattr(self, name) != defaults[name]]:
            raise LabError(f"{changed[0]}={getattr(self, changed[0])!r} is read by finetune alone: leave it out here.")
        if not isinstance(self.start, str):
            self._set("start", str(self.start))


@dataclass(frozen=True, kw_only=True)
class PreferenceRecipe(_Steps):
    """What `prefer` trains, and how. The fields of `Recipe`, and these; the default rate and steps are not tuned.

    Parameters
    ----------
    beta : float > 0, as in `dpo_loss`
    loss_type : a name in `dpo.LOSSES`
    start : str, folder of an adapter to start from, such as a run's `adapter_dir`; it is the reference then. Default:
        a fresh adapter, whose reference is the base. Rank, alpha and target modules must be that adapter's.
    batch_size : int >= 1, pairs per step

    Raises
    ------
    LabError
        Names the value and its range.
    """

    beta: float = 0.1
    loss_type: str = "sigmoid"
    start: str = ""
    learning_rate: float = 2e-4
    steps: int = 40

    def __post_init__(self):
        super().__post_init__()
        self._check_shared()
        self._set("beta", float(real("beta", self.beta)))
        self._set("loss_type", choose("loss_type", self.loss_type, dpo.LOSSES))


@dataclass(frozen=True, kw_only=True)
class RewardRecipe(_Steps):
    """What `reward` trains, and how. The fields of `Recipe`, and these; the default rate and steps are not tuned.

    Parameters
    ----------
    reward : "right", "valid" or "fields" (`rewards.REWARDS`), or "own" for a function that `reward` is given
    group_size : int >= 2, answers that are sampled for each prompt
    temperature : float > 0, of sampling
    scale_rewards : a name in `grpo.SCALES`
    loss_type : a name in `grpo.LOSSES`
    beta : float >= 0, weight of the distance from the reference; 0, TRL's default, leaves the reference out
    epsilon, epsilon_high : float > 0, as in `grpo.token_losses`; epsilon_high=None is epsilon
    updates : int >= 1, updates of the adapter with the same samples; from the second on the ratio is not 1
    start : str, as in `PreferenceRecipe`
    batch_size : int >= 1, prompts per step
    rows_at_once : int >= 1, answers that go through the model together; more of them only take more memory

    Raises
    ------
    LabError
        Names the value and its range.
    """

    reward: str = "right"
    group_size: int = 8
    temperature: float = 1.0
    scale_rewards: str = "group"
    loss_type: str = "dapo"
    beta: float = 0.0
    epsilon: float = 0.2
    epsilon_high: float | None = None
    updates: int = 1
    start: str = ""
    rows_at_once: int = 8
    learning_rate: float = 2e-4
    steps: int = 30
    batch_size: int = 2

    def __post_init__(self):
        super().__post_init__()
        self._check_shared()
        self._set("reward", choose("reward", self.reward, [*REWARDS, OWN]))
        self._set("scale_rewards", choose("scale_rewards", self.scale_rewards, grpo.SCALES))
        self._set("loss_type", choose("loss_type", self.loss_type, grpo.LOSSES))
        self._set("beta", float(real("beta", self.beta, "a number of 0 or more", zero=True)))
        for name in ("temperature", "epsilon"):
            self._set(name, float(real(name, getattr(self, name))))
        if self.epsilon_high is not None:
            self._set("epsilon_high", float(real("epsilon_high", self.epsilon_high)))
        for name, least in (("group_size", 2), ("updates", 1), ("rows_at_once", 1)):
            self._set(name, whole(name, getattr(self, name), least))
