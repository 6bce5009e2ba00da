"""Common mistakes on page 16, as a learner would write them: exercise -> (mistake's name, function)."""

import torch
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid, softplus


def loss_per_answer(losses, mask):
    means = [row[kept].mean() for row, kept in zip(losses, mask, strict=True)]
    return torch.stack(means).mean()


def by_loop(rewards, size):
    groups = rewards.split(size)
    return torch.cat([(group - group.mean()) / group.std() for group in groups])


def whole_batch(rewards, size):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def clamped_ratio(logprobs, old, advantages, epsilon):
    ratio = torch.exp(logprobs - old)
    ratio = torch.clamp(ratio, 1 - epsilon, 1 + epsilon)
    return -ratio * advantages.unsqueeze(1)


def gain(moved, advantages, epsilon):
    free = torch.exp(moved) * advantages[:, None]
    return torch.minimum(free, torch.exp(moved).clip(1 - epsilon, 1 + epsilon) * advantages[:, None])


def same_model_twice(x, W, A, B, scaling, token):
    weight = W + scaling * B @ A
    policy, reference = log_softmax(weight @ x, -1), log_softmax(weight @ x, -1)
    return policy[token] - reference[token]


LEARNERS = {
    "answer_logprob": [
        ("the mean over tokens, not their sum", lambda logits, labels: -cross_entropy(logits[:-1], labels[1:])),
        ("minus the log-probability", lambda logits, labels: cross_entropy(logits[:-1], labels[1:], reduction="sum")),
        ("not shifted", lambda logits, labels: -cross_entropy(logits, labels, reduction="sum")),
        ("prompt tokens in the sum", lambda logits, labels: sum(
            logits[place].log_softmax(-1)[labels[place + 1].clamp(min=0)] for place in range(len(labels) - 1))),
    ],
    "log_ratio": [
        ("the reference with its adapter on", same_model_twice),
        ("the ratio swapped", lambda x, W, A, B, s, token: (
            log_softmax(W @ x, 0) - log_softmax((W + s * B @ A) @ x, 0))[token]),
        ("logits, not log-probabilities", lambda x, W, A, B, s, token: (s * B @ A @ x)[token]),
        ("the scaling forgotten", lambda x, W, A, B, s, token: (
            log_softmax((W + B @ A) @ x, 0) - log_softmax(W @ x, 0))[token]),
    ],
    "preference_loss": [
        ("the log ratio swapped", lambda c, r, rc, rr, beta: softplus(beta * ((c - rc) - (r - rr))).mean()),
        ("without the reference", lambda c, r, rc, rr, beta: -logsigmoid(beta * (c - r)).mean()),
        ("beta forgotten", lambda c, r, rc, rr, beta: -logsigmoid((c - rc) - (r - rr)).mean()),
        ("the sign lost", lambda c, r, rc, rr, beta: torch.log(torch.sigmoid(beta * (c - rc - r + rr))).mean()),
    ],
    "advantages": [
        ("the std of a group of equal rewards", by_loop),
        ("one mean for all groups", whole_batch),
        ("the sign of the advantage", lambda rewards, size: torch.cat(
            [(group.mean() - group) / (group.std() + 1e-4) for group in rewards.split(size)])),
        ("not divided", lambda rewards, size: torch.cat([group - group.mean() for group in rewards.split(size)])),
    ],
    "clipped_losses": [
        ("clipped on both sides", clamped_ratio),
        ("the log ratio swapped", lambda now, old, gains, epsilon: -gain(old - now, gains, epsilon)),
        ("not clipped", lambda now, old, gains, epsilon: -torch.exp(now - old) * gains[:, None]),
        ("the sign of the loss", lambda now, old, gains, epsilon: gain(now - old, gains, epsilon)),
    ],
    "token_mean": [
        ("the mean of means", loss_per_answer),
        ("padding counted", lambda losses, mask: torch.mean(losses * mask)),
        ("a sum, not a mean", lambda losses, mask: losses[mask].sum()),
        ("divided by the answers", lambda losses, mask: losses[mask].sum() / losses.shape[0]),
    ],
}  # fmt: skip
