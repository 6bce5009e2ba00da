"""The smallest policy that can be trained by reward: an answer of four parts, and a logit for each way to write one.

There is no network: the logits are all that is trained, so that every number of a step can be followed by hand. What is
computed with them is this room's own: `group_advantages`, `token_losses`, `token_weights`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import choose, real, whole
from .grpo import group_advantages, token_losses, token_weights

PARTS = (  # ways to write each part, and how likely each is at the start; the first one of each is right
    {"{": 0.7, "Sure: {": 0.3},
    {" Anna Weber": 0.5, " Anna": 0.3, " anna weber": 0.2},
    {", 3": 0.5, ", 13": 0.3, ", 2": 0.2},
    {", Friday}": 0.6, ", Fri}": 0.4},
)
STEPS, MOST, RATE = 30, 16, 6.0  # steps of a run, answers of the largest group, learning rate of plain descent
WIDEST = max(map(len, PARTS))
CLOSED = -1e9  # logit of a way that a part does not have


@dataclass(frozen=True)
class Answer:
    """A sampled answer: which way each part was written, as indices."""

    ways: tuple[int, ...]

    @property
    def text(self) -> str:
        """The answer as it would be read."""
        return "".join(list(part)[way] for part, way in zip(PARTS, self.ways, strict=True))

    @property
    def right(self) -> bool:
        """Is every part right?"""
        return not any(self.ways)

    @property
    def valid(self) -> bool:
        """Does it begin as an answer in the asked form does?"""
        return self.ways[0] == 0


SMALL_REWARDS: Mapping = MappingProxyType({
    "right": lambda answer: float(answer.right),
    "valid": lambda answer: float(answer.valid),
    "valid and short": lambda answer: float(answer.valid) - len(answer.text) / 40,
})  # fmt: skip


@dataclass(frozen=True)
class SmallStep:
    """One step: what was sampled with the logits before it, and the logits after it.

    Attributes
    ----------
    answers : tuple of Answer
    rewards, advantages : float64 Tensors, shape (answers,)
    loss : float
    before, after : float64 Tensors, shape (parts, ways), logits
    """

    answers: tuple[Answer, ...]
    rewards: Tensor
    advantages: Tensor
    loss: float
    before: Tensor
    after: Tensor


def start_logits() -> Tensor:
    """The logits at the start, shape (parts, ways): logarithms of the probabilities in `PARTS`."""
    rows = [[*part.values(), *[0.0] * (WIDEST - len(part))] for part in PARTS]
    likely = torch.tensor(rows, dtype=torch.float64)
    return likely.log().where(likely > 0, torch.tensor(CLOSED, dtype=torch.float64))


@cache
def chances(seed: int = 0) -> Tensor:
    """Random numbers by which answers are drawn, shape (steps, answers, parts): the same ones for all settings.

    Between 0 and 1, with four decimals and a half: no sum of probabilities is likely to be one of them.
    """
    numbers = torch.randint(10_000, (STEPS, MOST, len(PARTS)), generator=torch.Generator().manual_seed(seed))
    return (numbers.double() + 0.5) / 10_000


def draw(logits: Tensor, numbers: Tensor, temperature: float) -> tuple[Answer, ...]:
    """Answers by random numbers, shape (answers, parts): of each part the first way whose summed chance exceeds it."""
    sums = (logits / temperature).softmax(-1).cumsum(-1)  # (parts, ways)
    ways = (numbers[..., None] >= sums).sum(-1)  # (answers, parts)
    most = torch.tensor([len(part) - 1 for part in PARTS])  # a sum may end a little below 1
    return tuple(Answer(tuple(row)) for row in ways.minimum(most).tolist())


def small_run(
    reward: str = "right", group_size: int = 4, temperature: float = 1.0, beta: float = 0.0, steps: int = STEPS,
    seed: int = 0, scale_rewards: str = "group",
) -> list[SmallStep]:  # fmt: skip
    """Train the small policy by reward, one group a step, with plain descent.

    Parameters
    ----------
    reward : name in `SMALL_REWARDS`
    group_size : int, 2 to 16, answers per step
    temperature : float > 0, of sampling
    beta : float >= 0, weight of the distance from the start
    steps : int, 1 to 30
    seed : int >= 0
    scale_rewards : "group" or "none", whether the group's standard deviation divides its advantages

    Returns
    -------
    list of SmallStep

    Raises
    ------
    LabError
        A setting is out of range.
    """
    worth = SMALL_REWARDS[choose("reward", reward, SMALL_REWARDS)]
    group_size, steps = whole("group_size", group_size, 2, MOST), whole("steps", steps, 1, STEPS)
    choose("scale_rewards", scale_rewards, ("group", "none"))
    temperature = float(real("temperature", temperature))
    beta = float(real("beta", beta, "a number of 0 or more", zero=True))
    start, found = start_logits(), []
    logits = start
    for numbers in chances(whole("seed", seed, 0))[:steps, :group_size]:
        answers = draw(logits, numbers, temperature)
        rewards = torch.tensor([worth(answer) for answer in answers], dtype=torch.float64)
        advantages = group_advantages(rewards, group_size, scale_rewards)
        before = logits.clone().requires_grad_()
        logprobs, reference = (_logprobs(one, answers, temperature) for one in (before, start))
        weights = token_weights(torch.ones_like(logprobs, dtype=torch.bool))
        loss = (token_losses(logprobs, advantages, None, reference, beta) * weights).sum()
        loss.backward()
        logits = logits - RATE * before.grad
        found.append(SmallStep(answers, rewards, advantages, float(loss.detach()), before.detach(), logits))
    return found


def _logprobs(logits: Tensor, answers: tuple[Answer, ...], temperature: float) -> Tensor:
    """The log-probability of each part of each answer, shape (answers, parts)."""
    every_way = (logits / temperature).log_softmax(-1)
    return torch.stack([every_way.gather(1, torch.tensor(one.ways)[:, None])[:, 0] for one in answers])


def share(logits: Tensor, what: str) -> float:
    """How often the policy writes an answer that is "right" or "valid", at temperature 1: exactly, without sampling.

    Raises
    ------
    LabError
        It is neither.

    >>> round(share(start_logits(), "right"), 3)  # 0.7 · 0.5 · 0.5 · 0.6
    0.105
    """
    first = logits.softmax(-1)[:, 0]
    return float(first.prod() if choose("what", what, ("right", "valid")) == "right" else first[0])
