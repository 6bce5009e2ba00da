"""Common mistakes on page 15, as a learner would write them: exercise -> (mistake's name, function)."""

import math

import torch


def perplexity_text_by_text(losses, tokens):
    return torch.stack([torch.exp(one) for one in losses]).mean()


def first_below(skill, other, target):
    for place, loss in enumerate(skill.tolist()):
        if loss <= target:
            return float(other[place])
    return math.nan


def swapped_ends(skill, other, target):
    for place in range(len(skill) - 1):
        if skill[place] >= target >= skill[place + 1]:
            share = float((target - skill[place + 1]) / (skill[place] - skill[place + 1]))
            return float(other[place]) * (1 - share) + float(other[place + 1]) * share
    return math.nan


def factors_matched(A, B, random_A, random_B):
    random_A = random_A / random_A.norm() * A.norm()
    random_B = random_B / random_B.norm() * B.norm()
    return random_B @ random_A


def with_its_sign(old, new, threshold):
    return sum(int(max(float(vector @ other) for other in old.T) < threshold) for vector in new.T)


def old_ones_that_are_gone(old, new, threshold):
    return sum(int(max(abs(float(vector @ other)) for other in new.T) < threshold) for vector in old.T)


LEARNERS = {
    "all_texts_perplexity": [
        ("the mean of perplexities", perplexity_text_by_text),
        ("every text counts the same", lambda losses, tokens: torch.exp(losses.mean())),
        ("a loss, not a perplexity", lambda losses, tokens: (losses @ tokens.to(losses.dtype)) / tokens.sum()),
        ("divided by the texts", lambda losses, tokens: torch.exp((losses * tokens).mean())),
    ],
    "loss_at_equal_skill": [
        ("the checkpoint after", first_below),
        ("the last checkpoint", lambda skill, other, target: other[-1].item()),
        ("forgetting measured on the training task", lambda skill, other, target: target),
        ("the nearest checkpoint", lambda skill, other, target: other[torch.argmin(abs(skill - target))].item()),
    ],
    "weight_at": [
        ("the strength counts twice", lambda W, A, B, scaling, s: W + scaling * (s * B @ (s * A))),
        ("the scaling forgotten", lambda W, A, B, scaling, s: W + s * B @ A),
        ("the base is turned down too", lambda W, A, B, scaling, s: s * W + s * scaling * B @ A),
        ("the wrong way round", lambda W, A, B, scaling, s: W + (1 - s) * scaling * B @ A),
    ],
    "random_update": [
        ("A and B matched one by one", factors_matched),
        ("the size not matched", lambda A, B, RA, RB: torch.matmul(RB, RA)),
        ("the ratio upside down", lambda A, B, RA, RB: RB @ RA * torch.norm(RB @ RA) / torch.norm(B @ A)),
        ("matched by the largest number", lambda A, B, RA, RB: RB @ RA / (RB @ RA).abs().max() * (B @ A).abs().max()),
    ],
    "count_intruders": [
        ("the sign of a singular vector", with_its_sign),
        ("best over the wrong axis", old_ones_that_are_gone),
        ("those that are like an old one", lambda old, new, limit: int(((old.T @ new).abs().amax(0) >= limit).sum())),
        ("every new one counts", lambda old, new, limit: int(((old.T @ new).abs().mean(0) < limit).sum())),
    ],
}
