"""Exercises of page 16 on preferences: an answer's log-probability, the reference, the loss of a pair."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..exercise import Exercise, Mistake, tensor_maker

IGNORED = -100


def answer_logprob_spec(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits at each place are about the token at the next one; a token without a label is only read."""
    total = logits.new_zeros(())
    for place in range(len(labels) - 1):
        token = int(labels[place + 1])
        if token != -100:
            total = total + logits[place, token] - logits[place].exp().sum().log()
    return total


def answer_logprob(logits: Tensor, labels: Tensor) -> Tensor:
    logprobs, labels = logits[:-1].log_softmax(-1), labels[1:]
    kept = labels != -100
    return logprobs[kept].gather(-1, labels[kept][:, None]).sum()


def log_ratio_spec(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float, token: int) -> Tensor:
    """The log-probability of a token with the adapter, less that of the base alone."""
    found = []
    for strength in (scaling, 0.0):
        logits = [float(x @ (row + strength * (b @ A))) for row, b in zip(W, B, strict=True)]
        total = sum(math.exp(one) for one in logits)
        found.append(logits[token] - math.log(total))
    return x.new_tensor(found[0] - found[1])


def log_ratio(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float, token: int) -> Tensor:
    base = W @ x
    adapted = base + scaling * (B @ (A @ x))
    return (adapted.log_softmax(-1) - base.log_softmax(-1))[token]


def preference_loss_spec(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float):
    """For each pair the chance, by its rewards, that the chosen answer wins; the mean of minus its logarithm."""
    total = chosen.new_zeros(())
    for pair in range(len(chosen)):
        reward_chosen = beta * (chosen[pair] - ref_chosen[pair])
        reward_rejected = beta * (rejected[pair] - ref_rejected[pair])
        wins = reward_chosen.exp() / (reward_chosen.exp() + reward_rejected.exp())
        total = total - wins.log()
    return total / len(chosen)


def preference_loss(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    margins = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -logsigmoid(margins).mean()


def _scored(logits, labels, shift=1, keep=lambda labels: labels != IGNORED, total=torch.sum):
    """answer_logprob with another shift, other tokens or another total."""
    logprobs = logits[: len(labels) - shift].log_softmax(-1)
    labels = labels[shift:]
    kept = keep(labels)
    return total(logprobs[kept].gather(-1, labels[kept].clamp(min=0)[:, None]))


def _probabilities(logits, labels):
    kept = labels[1:] != IGNORED
    return logits[:-1].softmax(-1)[kept].gather(-1, labels[1:][kept][:, None]).sum()


def _raw(logits, labels):
    kept = labels[1:] != IGNORED
    return logits[:-1][kept].gather(-1, labels[1:][kept][:, None]).sum()


def _ratio(policy=lambda base, delta, s: base + s * delta, reference=lambda base, delta, s: base,
           difference=lambda now, before: now.log_softmax(-1) - before.log_softmax(-1)):  # fmt: skip
    """log_ratio with another policy, another reference, or another difference."""

    def wrong(x, W, A, B, scaling, token):
        base, delta = W @ x, B @ (A @ x)
        return difference(policy(base, delta, scaling), reference(base, delta, scaling))[token]

    return wrong


def _pairs(margin=lambda c, r, rc, rr, beta: beta * (c - rc - r + rr), loss=lambda m: -logsigmoid(m).mean()):
    """preference_loss with another margin, or another loss of it."""
    return lambda *inputs: loss(margin(*inputs))


@st.composite
def _answers(draw):
    """Logits of 3 to 6 places and 2 to 4 words; one to two labels at the front are ignored, two or more are not."""
    make = tensor_maker(draw)
    length, words = draw(st.integers(4, 6)), draw(st.integers(2, 4))
    labels = torch.tensor([draw(st.integers(0, words - 1)) for _ in range(length)])
    labels[: draw(st.integers(1, length - 2))] = IGNORED
    return make(length, words), labels


@st.composite
def _layers(draw):
    """A small head with an adapter, whose update changes the token's log-probability."""
    make = tensor_maker(draw)
    words, inner, rank = draw(st.integers(2, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    scaling = draw(st.sampled_from([0.5, 2.0]))
    parts = make(inner) / 8, make(words, inner), make(rank, inner) / 4, make(words, rank) / 2
    return *parts, scaling, draw(st.integers(0, words - 1))


def _moves(inputs) -> bool:
    """Does the adapter change the token's log-probability, and otherwise than its logit or with another scaling?"""
    now = float(log_ratio(*inputs))
    others = [float(_ratio(difference=lambda a, b: a - b)(*inputs)), float(log_ratio(*inputs[:4], 1.0, inputs[5])), 0.0]
    return abs(now) > 0.02 and all(abs(now - one) > 0.01 * abs(now) + 1e-3 for one in others)


@st.composite
def _logprobs(draw):
    """Log-probabilities of 1 to 4 pairs, and beta."""
    make, count = tensor_maker(draw), draw(st.integers(1, 4))
    return *(-make(count).abs() for _ in range(4)), draw(st.sampled_from([0.1, 0.5, 2.0]))


def _telling(inputs) -> bool:
    """Does every part of the margin count?"""
    c, r, rc, rr, beta = inputs
    margins = beta * (c - rc - r + rr)
    return bool((margins.abs() > 0.05).all() and (rc - rr).abs().min() > 0.5 and abs(float(margins.sum())) > 0.05)


EXERCISES = (
    Exercise(
        name="answer_logprob", page=16, title="How likely is this answer?",
        spec=answer_logprob_spec, solution=answer_logprob, inputs=_answers(),
        demo=(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [5.0, 0.0]]), torch.tensor([-100, 0, 1, 1])),
        mistakes=(
            Mistake(
                "prompt tokens in the sum",
                "Only tokens with a label are the answer's. The prompt, the same for both answers, is not scored.",
                wrong=(lambda logits, labels: _scored(logits, labels, keep=lambda one: one > -1e9),),
            ),
            Mistake(
                "not shifted",
                "The logits at a place predict the token at the NEXT place: pair logits[:-1] with labels[1:].",
                wrong=(lambda logits, labels: _scored(logits, labels, shift=0),),
            ),
            Mistake(
                "the mean over tokens, not their sum",
                "The probability of a sequence is a product, so its logarithm is a sum. A mean forgets the length.",
                wrong=(lambda logits, labels: _scored(logits, labels, total=torch.mean),),
            ),
            Mistake("logits, not log-probabilities", "Logits do not sum to 1 over the words: take log_softmax first.",
                    wrong=(_raw,)),
            Mistake("probabilities added", "Probabilities of successive tokens multiply: add their logarithms.",
                    wrong=(_probabilities,)),
            Mistake("minus the log-probability", "That is the loss, in nats. The log-probability is below zero.",
                    wrong=(lambda logits, labels: -answer_logprob(logits, labels),)),
        ),
        hints=(
            "Which place of the logits speaks about the first token that has a label?",
            "Turn the logits at all places but the last into log-probabilities, and look at all labels but the first.",
            "log_softmax over the words, of logits[:-1]; keep the rows where labels[1:] is not -100; gather; sum.",
        ),
        reward="Two answers of unlike length compete by this sum: the longer one starts with a handicap.",
    ),
    Exercise(
        name="log_ratio", page=16, title="The reference is the same model, its adapter switched off",
        spec=log_ratio_spec, solution=log_ratio, inputs=_layers().filter(_moves),
        demo=(
            torch.tensor([1.0]), torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0]]), torch.tensor([[0.0], [1.0]]), 2.0,
            1,
        ),
        mistakes=(
            Mistake(
                "the reference with its adapter on",
                "Both are then one model, the ratio is 1 and its logarithm 0, always. The reference is W alone.",
                wrong=(_ratio(reference=lambda base, delta, s: base + s * delta),
                       _ratio(policy=lambda base, delta, s: base)),
            ),
            Mistake("the ratio swapped", "It is now less before: above 0 where the adapter makes the token likelier.",
                    wrong=(_ratio(difference=lambda now, before: before.log_softmax(-1) - now.log_softmax(-1)),)),
            Mistake("logits, not log-probabilities", "A larger logit need not be likelier: others may have grown too.",
                    wrong=(_ratio(difference=lambda now, before: now - before),)),
            Mistake("the ratio, not its logarithm", "Wanted is the logarithm: a difference of log-probabilities.",
                    wrong=(_ratio(difference=lambda now, before: now.softmax(-1) / before.softmax(-1)),)),
            Mistake("a difference of probabilities", "Subtract logarithms: that is the logarithm of the ratio.",
                    wrong=(_ratio(difference=lambda now, before: now.softmax(-1) - before.softmax(-1)),)),
            Mistake("the scaling forgotten", "The adapter adds scaling · B A x, as on page 03.",
                    wrong=(_ratio(policy=lambda base, delta, s: base + delta),)),
            Mistake("the update alone", "With the adapter on, the model is W and the update together.",
                    wrong=(_ratio(policy=lambda base, delta, s: s * delta),)),
        ),
        hints=(
            "With B = 0, what must come out? Which two models are compared?",
            "Compute the logits twice from one x: with W alone, and with scaling · B A x added. Then softmax each.",
            "base = W @ x and base + scaling * (B @ (A @ x)); log_softmax of both, subtract, take the token's entry.",
        ),
        reward="The second copy of the model that DPO seems to need costs a forward pass, and no memory.",
    ),
    Exercise(
        name="preference_loss", page=16, title="The loss of a pair",
        spec=preference_loss_spec, solution=preference_loss, inputs=_logprobs().filter(_telling),
        demo=(torch.tensor([-2.0]), torch.tensor([-3.0]), torch.tensor([-4.0]), torch.tensor([-2.0]), 0.5),
        mistakes=(
            Mistake(
                "the log ratio swapped",
                "It is the model's log-probability less the reference's. Swapped, training makes good answers rare.",
                wrong=(_pairs(lambda c, r, rc, rr, beta: -beta * (c - rc - r + rr)),),
            ),
            Mistake(
                "without the reference",
                "An answer that was likely from the start gets no credit: subtract the reference's log-probability.",
                wrong=(_pairs(lambda c, r, rc, rr, beta: beta * (c - r)),),
            ),
            Mistake("the reference added", "A ratio is a difference of logarithms: subtract the reference.",
                    wrong=(_pairs(lambda c, r, rc, rr, beta: beta * (c + rc - r - rr)),)),
            Mistake("beta forgotten", "beta says how much a log-ratio counts: multiply the margin by it.",
                    wrong=(_pairs(lambda c, r, rc, rr, beta: c - rc - r + rr),)),
            Mistake("beta outside of the sigmoid", "beta scales the margin before the sigmoid, not the loss after it.",
                    wrong=(lambda c, r, rc, rr, beta: -beta * logsigmoid(c - rc - r + rr).mean(),)),
            Mistake("the margins averaged first", "Each pair has its own loss; the mean is taken of the losses.",
                    wrong=(_pairs(loss=lambda m: -logsigmoid(m.mean())),)),
            Mistake("a sum over the pairs", "The loss of a batch is the mean over its pairs.",
                    wrong=(_pairs(loss=lambda m: -logsigmoid(m).sum()),)),
            Mistake("the sigmoid without its logarithm", "The loss is minus the logarithm of the sigmoid.",
                    wrong=(_pairs(loss=lambda m: -m.sigmoid().mean()), _pairs(loss=lambda m: m.sigmoid().mean()),
                           _pairs(loss=lambda m: 1 - m.sigmoid().mean()))),
            Mistake("the sign lost", "A log-sigmoid is below zero, and a loss falls as the margin grows: minus it.",
                    wrong=(_pairs(loss=lambda m: logsigmoid(m).mean()),)),
        ),
        hints=(
            "What should the loss be for a model that is its own reference, whatever the answers are?",
            "Two log-ratios, the chosen answer's and the rejected one's; their difference times beta is the margin.",
            "-logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected))), and the mean of it.",
        ),
        reward="In the example the chosen answer has gained 2 nats and the other has lost 1: a margin of 1.5.",
    ),
)  # fmt: skip
