"""Exercises of page 15 on measuring: perplexity over several texts, and what was forgotten at equal skill."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake


def all_texts_perplexity_spec(losses: Tensor, tokens: Tensor) -> Tensor:
    """Put all texts one after the other: what does a token cost on average, and what is e to the power of that?"""
    nats, count = losses.new_zeros(()), 0
    for text in range(len(losses)):
        for _ in range(int(tokens[text])):
            nats, count = nats + losses[text], count + 1
    return (nats / count).exp()


def all_texts_perplexity(losses: Tensor, tokens: Tensor) -> Tensor:
    return ((losses * tokens).sum() / tokens.sum()).exp()


def loss_at_equal_skill_spec(skill: Tensor, other: Tensor, target: float) -> float:
    """Walk along the straight pieces between the checkpoints until the skill's loss is the target."""
    for step in range(1, len(skill)):
        high, low = float(skill[step - 1]), float(skill[step])
        if high >= target >= low:
            walked = (high - target) / (high - low)
            return float(other[step - 1]) + walked * (float(other[step]) - float(other[step - 1]))
    return math.nan


def loss_at_equal_skill(skill: Tensor, other: Tensor, target: float) -> float:
    later = int((skill > target).sum())  # the first checkpoint that is at the target or below
    walked = (skill[later - 1] - target) / (skill[later - 1] - skill[later])
    return float(torch.lerp(other[later - 1], other[later], walked))


def _later(skill, target):
    return int((skill > target).sum())


def _between(weight):
    """loss_at_equal_skill with another way to weigh its two neighbours."""

    def wrong(skill, other, target):
        place = _later(skill, target)
        walked = float((skill[place - 1] - target) / (skill[place - 1] - skill[place]))
        return float(other[place - 1] + weight(walked) * (other[place] - other[place - 1]))

    return wrong


@st.composite
def _texts(draw):
    """Three or four texts: easy and hard ones, short and long ones."""
    count = draw(st.integers(3, 4))
    losses = draw(st.lists(st.integers(2, 14), min_size=count, max_size=count, unique=True))
    tokens = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count, unique=True))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(losses, dtype=dtype) / 4, torch.tensor(tokens)


def _telling(inputs) -> bool:
    """Do long texts cost something else than short ones?"""
    losses, tokens = inputs
    found = float(all_texts_perplexity(losses, tokens))
    others = [losses.exp().mean(), losses.mean().exp(), (losses.exp() * tokens).sum() / tokens.sum()]
    return all(abs(found / float(one) - 1) > 0.03 for one in others)


@st.composite
def _checkpoints(draw):
    """Four or five checkpoints: skill falls, the other loss moves, the target is a quarter into one of the pieces."""
    falls = draw(st.lists(st.sampled_from([0.4, 0.8, 1.6]), min_size=3, max_size=4))
    moves = draw(st.lists(st.sampled_from([-0.2, 0.1, 0.3, 0.5]), min_size=len(falls), max_size=len(falls)))
    skill = [0.3 + sum(falls[place:]) for place in range(len(falls) + 1)]
    other = [3.0 + sum(moves[:place]) for place in range(len(falls) + 1)]
    piece, part = draw(st.integers(0, len(falls) - 1)), draw(st.sampled_from([0.25, 0.75]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    target = skill[piece] + part * (skill[piece + 1] - skill[piece])
    return torch.tensor(skill, dtype=dtype), torch.tensor(other, dtype=dtype), target


def _apart(inputs) -> bool:
    """Is the answer no checkpoint's value, nor the target, nor where the loss began or ended?"""
    found = loss_at_equal_skill(*inputs)
    return all(abs(found - float(one)) > 0.02 for one in (*inputs[1], inputs[2]))


EXERCISES = (
    Exercise(
        name="all_texts_perplexity", page=15, title="One perplexity for several texts",
        spec=all_texts_perplexity_spec, solution=all_texts_perplexity, inputs=_texts().filter(_telling),
        demo=(torch.tensor([1.0, 3.0]), torch.tensor([9, 1])),
        mistakes=(
            Mistake(
                "the mean of perplexities",
                "The mean of exps is not exp of the mean: one hard text decides it. Average the losses first.",
                wrong=(lambda losses, tokens: losses.exp().mean(),
                       lambda losses, tokens: (losses.exp() * tokens).sum() / tokens.sum()),
            ),
            Mistake("every text counts the same", "A text of nine tokens has nine votes: weigh its loss by its tokens.",
                    wrong=(lambda losses, tokens: losses.mean().exp(),)),
            Mistake("a loss, not a perplexity", "Perplexity is e to the power of the mean loss.",
                    wrong=(lambda losses, tokens: (losses * tokens).sum() / tokens.sum(),)),
            Mistake("2 in place of e", "The losses are in nats, so the power is of e. Losses in bits go with 2.",
                    wrong=(lambda losses, tokens: 2 ** ((losses * tokens).sum() / tokens.sum()),)),
            Mistake("losses taken for sums", "Each loss is a mean over its text: multiply it by the tokens first.",
                    wrong=(lambda losses, tokens: (losses.sum() / tokens.sum()).exp(),)),
            Mistake("divided by the texts", "Divide by the number of tokens of all texts, not by the number of texts.",
                    wrong=(lambda losses, tokens: ((losses * tokens).sum() / len(losses)).exp(),)),
            Mistake("the sign of the loss", "The loss is minus a mean log-probability already: no minus before it.",
                    wrong=(lambda losses, tokens: (-(losses * tokens).sum() / tokens.sum()).exp(),)),
            Mistake("the geometric mean weighted by loss", "The weights are the tokens, not the losses.",
                    wrong=(lambda losses, tokens: ((losses * losses).sum() / losses.sum()).exp(),)),
        ),
        hints=(
            "Nine tokens cost 1 nat each and one costs 3. What does a token cost on average?",
            "Turn every text's mean into a sum by its tokens; add; divide by all tokens; only then comes exp.",
            "exp of (losses * tokens).sum() divided by tokens.sum().",
        ),
        reward="The example's perplexity is 3.3. The mean of both texts' perplexities would be 11.4.",
    ),
    Exercise(
        name="loss_at_equal_skill", page=15, title="Forgotten, at equal skill",
        spec=loss_at_equal_skill_spec, solution=loss_at_equal_skill, inputs=_checkpoints().filter(_apart),
        demo=(torch.tensor([3.0, 1.0, 0.5]), torch.tensor([3.0, 3.2, 3.6]), 0.625),
        mistakes=(
            Mistake(
                "forgetting measured on the training task",
                "The skill's loss is the same on purpose. What is asked is the OTHER loss at that moment.",
                wrong=(lambda skill, other, target: float(target),),
            ),
            Mistake("the two ends swapped", "The nearer a checkpoint is to the target, the more it counts.",
                    wrong=(_between(lambda walked: 1 - walked),)),
            Mistake("halfway, wherever the target is", "Weigh the two neighbours by how far the skill's loss has come.",
                    wrong=(_between(lambda walked: 0.5),)),
            Mistake("the nearest checkpoint", "The target is between two checkpoints: go along the line.",
                    wrong=(lambda skill, other, target: float(other[(skill - target).abs().argmin()]),)),
            Mistake("the checkpoint before", "There the skill's loss is still too high: go on along the line.",
                    wrong=(_between(lambda walked: 0),)),
            Mistake("the checkpoint after", "There the skill's loss is lower than asked: the comparison is not equal.",
                    wrong=(_between(lambda walked: 1),)),
            Mistake("the last checkpoint", "That compares at equal steps. Stop where the skill's loss is the target.",
                    wrong=(lambda skill, other, target: float(other[-1]),)),
            Mistake("a rise, not a loss", "Give the loss itself at that moment; the rise is a subtraction away.",
                    wrong=(lambda skill, other, target: loss_at_equal_skill(skill, other, target) - float(other[0]),)),
        ),
        hints=(
            "Between which two checkpoints does the skill's loss pass the target?",
            "Which share of the way between these two has it come? Go the same share of the way in the other loss.",
            "walked = (high - target) / (high - low); the other loss is before + walked * (after - before).",
        ),
        reward="At equal steps a fast learner looks forgetful. At equal skill it is a fair comparison.",
    ),
)  # fmt: skip
