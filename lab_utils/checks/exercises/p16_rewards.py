"""Exercises of page 16 on rewards: advantages in a group, the clipped ratio, what each token counts."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, tensor_maker

EPSILON = 1e-4  # added to a standard deviation before dividing, as TRL does


def advantages_spec(rewards: Tensor, group_size: int) -> Tensor:
    """Each reward less its group's mean, over the group's standard deviation (n - 1) plus 0.0001."""
    found = []
    for start in range(0, len(rewards), group_size):
        group = rewards[start : start + group_size].tolist()
        mean = sum(group) / group_size
        spread = (sum((one - mean) ** 2 for one in group) / (group_size - 1)) ** 0.5
        found += [(one - mean) / (spread + 1e-4) for one in group]
    return rewards.new_tensor(found)


def advantages(rewards: Tensor, group_size: int) -> Tensor:
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + 1e-4)).view(-1)


def clipped_losses_spec(logprobs: Tensor, old: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """Token by token: the smaller gain of two, with the ratio as it is and kept within 1 ± epsilon; minus that."""
    found = torch.zeros_like(logprobs)
    for answer in range(logprobs.shape[0]):
        for token in range(logprobs.shape[1]):
            ratio = (logprobs[answer, token] - old[answer, token]).exp()
            kept = min(max(float(ratio), 1 - epsilon), 1 + epsilon)
            found[answer, token] = -min(float(ratio * advantages[answer]), float(kept * advantages[answer]))
    return found


def clipped_losses(logprobs: Tensor, old: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    ratio, gains = (logprobs - old).exp(), advantages[:, None]
    return -torch.min(ratio * gains, ratio.clamp(1 - epsilon, 1 + epsilon) * gains)


def token_mean_spec(losses: Tensor, mask: Tensor) -> Tensor:
    """Every token of every answer counts the same; what is not an answer's token counts nothing."""
    total, count = losses.new_zeros(()), 0
    for answer in range(len(losses)):
        for token in range(losses.shape[1]):
            if mask[answer, token]:
                total, count = total + losses[answer, token], count + 1
    return total / count


def token_mean(losses: Tensor, mask: Tensor) -> Tensor:
    return (losses * mask).sum() / mask.sum()


def _centred(rewards, size, spread, mean=None, sign=1):
    """advantages with another spread, another mean, or another sign."""
    groups = rewards.view(-1, size)
    middle = groups.mean(1, keepdim=True) if mean is None else mean(groups)
    return (sign * (groups - middle) / spread(groups)).view(-1)


def _group_std(groups):
    return groups.std(1, keepdim=True) + EPSILON


def _clip(ratio=lambda now, old: (now - old).exp(), choose=torch.min, sign=-1):
    """clipped_losses with another ratio, another choice of the two, or another sign."""

    def wrong(now, old, gains, epsilon):
        r, gains = ratio(now, old), gains[:, None]
        return sign * choose(r * gains, r.clamp(1 - epsilon, 1 + epsilon) * gains)

    return wrong


@st.composite
def _rewards(draw):
    """Rewards of 2 or 3 groups; often one of them has equal rewards."""
    size, dtype = draw(st.integers(2, 4)), draw(st.sampled_from([torch.float32, torch.float64]))
    groups = [draw(st.lists(st.integers(0, 4), min_size=size, max_size=size)) for _ in range(draw(st.integers(2, 3)))]
    if draw(st.booleans()):
        groups[-1] = [groups[-1][0]] * size
    return torch.tensor([one for group in groups for one in group], dtype=dtype), size


def _varied(inputs) -> bool:
    """Do the first group's rewards differ, do the groups' means differ, and is no spread 1 by chance?"""
    groups = inputs[0].view(-1, inputs[1])
    means, spreads = groups.mean(1), groups.std(1)
    spread = inputs[0].std()
    return bool(spreads[0] > 0.4 and means.unique().numel() == len(means) and (spreads - 1).abs().min() > 0.1
                and (spreads - spread).abs().min() > 0.05)  # fmt: skip


@st.composite
def _ratios(draw):
    """Old log-probabilities, and new ones that have moved by up to 0.6 either way; advantages of both signs."""
    make = tensor_maker(draw)
    answers, tokens = draw(st.integers(2, 3)), draw(st.integers(2, 4))
    old = -make(answers, tokens).abs() / 2
    gains = make(answers)
    gains[0], gains[1] = gains[0].abs(), -gains[1].abs()
    return old + make(answers, tokens) * 0.15, old, gains, draw(st.sampled_from([0.1, 0.2]))


def _both_ways(inputs) -> bool:
    """Is there a token beyond the range on each side in an answer of each sign?"""
    moved = inputs[0] - inputs[1]
    return bool((moved[0] > 0.2).any() and (moved[0] < -0.2).any() and (moved[1] > 0.2).any()
                and (moved[1] < -0.2).any())  # fmt: skip


@st.composite
def _masked(draw):
    """Losses of 2 or 3 answers of unlike length."""
    make, tokens = tensor_maker(draw), draw(st.integers(3, 5))
    lengths = [1, tokens - 1, *([draw(st.integers(1, tokens))] if draw(st.booleans()) else [])]
    mask = torch.arange(tokens)[None] < torch.tensor(lengths)[:, None]
    return make(len(lengths), tokens), mask


def _uneven(inputs) -> bool:
    """Do the means over tokens, over answers and over all places differ?"""
    losses, mask = inputs
    found = float(token_mean(losses, mask))
    others = [((losses * mask).sum(1) / mask.sum(1)).mean(), losses.mean(), (losses * mask).mean(),
              (losses * mask).sum() / len(losses), (losses * mask).sum()]  # fmt: skip
    return all(abs(found - float(one)) > 0.05 for one in others)


EXERCISES = (
    Exercise(
        name="advantages", page=16, title="Better than the group",
        spec=advantages_spec, solution=advantages, inputs=_rewards().filter(_varied),
        demo=(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1]), 4),
        mistakes=(
            Mistake(
                "the std of a group of equal rewards",
                "It is 0, and 0 / 0 is NaN, which spoils every weight in one step. Add 0.0001 before dividing.",
                wrong=(lambda rewards, size: _centred(rewards, size, lambda groups: groups.std(1, keepdim=True)),),
            ),
            Mistake(
                "the sign of the advantage",
                "It is the reward less the mean. The other way round the model is paid for its worst answers.",
                wrong=(lambda rewards, size: _centred(rewards, size, _group_std, sign=-1),),
            ),
            Mistake(
                "one mean for all groups",
                "An answer competes with the others to the SAME prompt: else easy prompts win and hard ones lose.",
                wrong=(lambda rewards, size: _centred(rewards, size, lambda g: g.std() + EPSILON, lambda g: g.mean()),
                       lambda rewards, size: _centred(rewards, size, _group_std, lambda g: g.mean())),
            ),
            Mistake("one spread for all groups", "Divide each group by its own standard deviation.",
                    wrong=(lambda rewards, size: _centred(rewards, size, lambda groups: groups.std() + EPSILON),)),
            Mistake("n instead of n − 1", "torch's std, and TRL, divide the squares by n - 1.",
                    wrong=(lambda rewards, size: _centred(
                        rewards, size, lambda groups: groups.std(1, keepdim=True, correction=0) + EPSILON),)),
            Mistake("not divided", "Divide by the group's standard deviation, plus 0.0001.",
                    wrong=(lambda rewards, size: _centred(rewards, size, lambda groups: 1),)),
            Mistake("divided by the variance", "Divide by the standard deviation, the root of the variance.",
                    wrong=(lambda rewards, size: _centred(
                        rewards, size, lambda groups: groups.var(1, keepdim=True) + EPSILON),)),
            Mistake("the mean not subtracted", "A reward alone says little: subtract what the group got on average.",
                    wrong=(lambda rewards, size: _centred(rewards, size, _group_std, lambda groups: 0),)),
        ),
        hints=(
            "Four right answers to an easy prompt: should any of them be made likelier than the others?",
            "Give the rewards one row per prompt. Subtract the row's mean, divide by its spread, lay them flat again.",
            "groups = rewards.view(-1, group_size); groups.mean and groups.std over dimension 1 with keepdim=True.",
        ),
        reward="A group whose answers are all right, or all wrong, has advantages of 0 and teaches nothing.",
    ),
    Exercise(
        name="clipped_losses", page=16, title="No more than a little at a time",
        spec=clipped_losses_spec, solution=clipped_losses, inputs=_ratios().filter(_both_ways),
        demo=(torch.tensor([[-1.0, -0.5], [-0.5, -2.0]]), torch.tensor([[-1.0, -1.0], [-1.0, -1.0]]),
              torch.tensor([1.0, -1.0]), 0.2),
        mistakes=(
            Mistake(
                "the log ratio swapped",
                "It is the probability now over the one when the answer was sampled: exp(logprobs - old).",
                wrong=(_clip(lambda now, old: (old - now).exp()),),
            ),
            Mistake("the sign of the loss", "The optimizer goes down: the loss is minus the gain.",
                    wrong=(_clip(sign=1),)),
            Mistake(
                "clipped on both sides",
                "A step the wrong way must still be undone: take the smaller of the clipped and the unclipped gain.",
                wrong=(_clip(choose=lambda free, kept: kept),),
            ),
            Mistake("the larger of the two", "The smaller one: there is nothing to be gained beyond the range.",
                    wrong=(_clip(choose=torch.max),)),
            Mistake("not clipped", "Without the clip a few updates with the same samples can go anywhere.",
                    wrong=(_clip(choose=lambda free, kept: free),)),
            Mistake("the logarithm of the ratio", "The ratio itself is wanted: exp of the difference.",
                    wrong=(_clip(lambda now, old: now - old),)),
            Mistake("the advantage's size alone", "An answer below its group's mean has a negative advantage: keep it.",
                    wrong=(lambda now, old, gains, epsilon: clipped_losses(now, old, gains.abs(), epsilon),)),
        ),
        hints=(
            "If the model has not changed since it sampled, what is the ratio, whatever the token?",
            "Two gains for each token: ratio · advantage, and the same with the ratio kept within 1 ± epsilon.",
            "ratio = (logprobs - old).exp(); minus torch.min of ratio * advantages[:, None] and of its clamped form.",
        ),
        reward="In the first update every ratio is 1 and nothing is clipped: the loss's value says nothing.",
    ),
    Exercise(
        name="token_mean", page=16, title="How much does a token count?",
        spec=token_mean_spec, solution=token_mean, inputs=_masked().filter(_uneven),
        demo=(torch.tensor([[4.0, 9.0, 9.0], [1.0, 1.0, 1.0]]),
              torch.tensor([[True, False, False], [True, True, True]])),
        mistakes=(
            Mistake(
                "the mean of means",
                "Then a token of a short answer counts more than one of a long answer: add all tokens, divide once.",
                wrong=(lambda losses, mask: ((losses * mask).sum(1) / mask.sum(1)).mean(),),
            ),
            Mistake("padding counted", "Only the answers' own tokens, where the mask is True, are added and counted.",
                    wrong=(lambda losses, mask: losses.mean(), lambda losses, mask: (losses * mask).mean(),
                           lambda losses, mask: losses.sum() / mask.sum())),
            Mistake("divided by the answers", "Divide by the number of tokens, not by the number of answers.",
                    wrong=(lambda losses, mask: (losses * mask).sum() / len(losses),)),
            Mistake("a sum, not a mean", "Divide by the number of tokens, or a longer batch takes larger steps.",
                    wrong=(lambda losses, mask: (losses * mask).sum(),)),
        ),
        hints=(
            "An answer of one token and one of three: how many tokens have a vote, and is any vote larger?",
            "Set to 0 what the mask leaves out, add up all of it, and divide by how many are left.",
            "(losses * mask).sum() divided by mask.sum().",
        ),
        reward="In the example the mean of means is 2.5. Which is right is a choice; TRL's default is yours.",
    ),
)  # fmt: skip
