"""Exercises of page 08 on training: the loss of the answers alone, and the learning rate of each step."""

import math

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

IGNORED = -100


def answer_loss_spec(logits: Tensor, labels: Tensor) -> Tensor:
    """For every label from the second place on: minus the logarithm of its probability one place earlier. The mean."""
    costs = []
    for row in range(len(labels)):
        for place in range(1, labels.shape[1]):
            label = int(labels[row, place])
            if label != -100:
                before = logits[row, place - 1].exp()
                costs.append(-torch.log(before[label] / before.sum()))
    return torch.stack(costs).mean()


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    predictions, targets = logits[:, :-1], labels[:, 1:]
    return F.cross_entropy(predictions.flatten(0, 1), targets.flatten())  # -100 is left out, also of the mean


def learning_rate_at_spec(step: int, steps: int, peak: float, warmup: float) -> float:
    """Equal stairs up to the peak, the first of them above zero; then half a cosine that would be zero at `steps`."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        stair = peak / rising
        return stair * (step + 1)
    falling = steps - rising
    angle = math.pi * (step - rising) / falling
    return peak * (1 + math.cos(angle)) / 2


def learning_rate_at(step: int, steps: int, peak: float, warmup: float) -> float:
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _costs(logits, labels, shift=1, prepare=lambda logits: logits):
    """Cross entropy at every place, 0 where nothing is learned, and where something is."""
    predictions, targets = (prepare(logits)[:, :-1], labels[:, 1:]) if shift == 1 else (prepare(logits), labels)
    costs = F.cross_entropy(predictions.transpose(1, 2), targets, reduction="none")
    return costs, targets != IGNORED


def _lossy(combine, **how):
    """answer_loss with another way to combine the costs: (costs, learned, labels) -> number."""
    return lambda logits, labels: combine(*_costs(logits, labels, **how), labels)


def _mean(costs, learned, labels):
    return costs.sum() / learned.sum()


def _backwards(logits, labels):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


def _prompt_too(logits, labels):
    targets = labels[:, 1:].clamp(min=0)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def _scheduled(rising=lambda steps, warmup: max(1, round(warmup * steps)), up=None, down=None, along=None):
    """learning_rate_at with another warm-up, another way down, or another measure of progress."""
    up = up or (lambda step, rise: (step + 1) / rise)
    down = down or (lambda progress: 0.5 * (1 + math.cos(math.pi * progress)))
    along = along or (lambda step, steps, rise: (step - rise) / (steps - rise))

    def wrong(step, steps, peak, warmup):
        rise = rising(steps, warmup)
        return peak * (up(step, rise) if step < rise else down(along(step, steps, rise)))

    return wrong


def _share(steps, warmup):
    return warmup


def _none(steps, warmup):
    return 0


@st.composite
def _scored(draw):
    """Logits with one decimal and labels of which a row's last ones are learned, not as many in every row."""
    rows, length, words = draw(st.integers(1, 3)), draw(st.integers(3, 5)), draw(st.integers(3, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    logits = (20 * torch.randn(rows, length, words, generator=generator, dtype=torch.float64)).round().div(10).to(dtype)
    labels = torch.randint(0, words, (rows, length), generator=generator)
    for row in range(rows):
        labels[row, : draw(st.integers(1, length - 1))] = IGNORED
    if draw(st.booleans()) and rows > 1:  # padding behind the first
        labels[0, -1] = IGNORED if int((labels[0] != IGNORED).sum()) > 1 else labels[0, -1]
    return logits, labels


@st.composite
def _steps(draw):
    """A step of 10 to 200, a peak, and a share that is no matter of taste to round."""
    steps, warmup = draw(st.integers(10, 200)), draw(st.sampled_from([0.0, 0.03, 0.06, 0.1, 0.2, 0.5]))
    if abs(warmup * steps % 1 - 0.5) < 0.01:
        steps += 1
    near = st.integers(0, max(1, round(warmup * steps)))
    step = min(draw(st.one_of(near, st.integers(0, steps - 1), st.just(steps - 1))), steps - 1)
    return step, steps, draw(st.sampled_from([1e-4, 1e-3, 2e-3])), warmup


_LOGITS = torch.tensor([[[2.0, 0, 0], [0, 3.0, 0], [0, 1.0, 1.0], [1.0, 0, 0]],
                        [[0, 0, 1.0], [1.0, 0, 0], [0, 0, 2.0], [0, 2.0, 0]]])  # fmt: skip
_LABELS = torch.tensor([[IGNORED, IGNORED, 1, 2], [IGNORED, IGNORED, IGNORED, 2]])

EXERCISES = (
    Exercise(
        name="answer_loss", page=8, title="The loss of the answers, and of nothing else",
        spec=answer_loss_spec, solution=answer_loss, inputs=_scored(), demo=(_LOGITS, _LABELS),
        mistakes=(
            Mistake(
                "no shift",
                "The logits at a place predict the *next* token: compare logits[:, :-1] with labels[:, 1:].",
                wrong=(_lossy(_mean, shift=0),),
            ),
            Mistake(
                "shifted the other way",
                "You asked each place for the token before it. Compare logits[:, :-1] with labels[:, 1:].",
                wrong=(_backwards,),
            ),
            Mistake(
                "the mean over all places",
                "Divide by the number of labels that are learned. Else long prompts and padding make the loss small.",
                wrong=(
                    _lossy(lambda costs, learned, labels: costs.mean()),
                    _lossy(lambda costs, learned, labels: costs.sum() / labels.numel()),
                ),
            ),
            Mistake(
                "the mean of each row's mean",
                "Every token counts the same, so the tokens of all rows go into one mean.",
                wrong=(
                    _lossy(lambda costs, learned, labels: (costs.sum(1) / learned.sum(1)).mean()),
                    _lossy(lambda costs, learned, labels: (costs.sum(1) / learned.sum(1).clamp(min=1)).mean()),
                ),
            ),
            Mistake(
                "softmax twice",
                "cross_entropy wants logits and takes their softmax itself.",
                wrong=(_lossy(_mean, prepare=lambda logits: logits.softmax(-1)),),
            ),
            Mistake(
                "the sum",
                "The mean is asked for: with a sum, the step would depend on how long the answers are.",
                wrong=(_lossy(lambda costs, learned, labels: costs.sum()),),
            ),
            Mistake(
                "the sum over rows, divided by the rows",
                "Divide by the number of learned tokens, not of examples.",
                wrong=(_lossy(lambda costs, learned, labels: costs.sum() / len(labels)),),
            ),
            Mistake(
                "-100 taken for a token",
                "-100 marks what is left out. Made into token 0, the prompt would be scored, with wrong labels too.",
                wrong=(_prompt_too,),
            ),
            Mistake(
                "the sign",
                "A loss is minus the logarithm of a probability: it is above zero, and falls to zero.",
                wrong=(_lossy(lambda *found: -_mean(*found)),),
            ),
            Mistake(
                "exp of the loss",
                "That is the perplexity. The loss is in nats per token.",
                wrong=(_lossy(lambda *found: _mean(*found).exp()),),
            ),
        ),
        hints=(
            "At which place does the model say what it thinks of the token labels[n, t]? It has not read it yet there.",
            "Cut the last place off the logits and the first off the labels. Then one cross entropy over all places.",
            "F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()): it leaves out -100 by itself.",
        ),
        reward="Fewer than half of a booking's tokens are in this mean. The prompt still matters: all of it is read.",
    ),
    Exercise(
        name="learning_rate_at", page=8, title="Warm up, then half a cosine",
        spec=learning_rate_at_spec, solution=learning_rate_at, inputs=_steps(), demo=(2, 100, 0.002, 0.1),
        mistakes=(
            Mistake(
                "starts at 0",
                "A step with rate 0 does all the work and changes nothing. The first of n warm-up steps has 1/n of the "
                "peak.",
                wrong=(_scheduled(up=lambda step, rise: step / rise),),
            ),
            Mistake(
                "the share taken for steps",
                "warmup is a share of the run: 0.06 of 175 steps are 10 or 11 steps, not 0.06 of one.",
                wrong=(
                    _scheduled(_share), _scheduled(lambda steps, warmup: max(1, round(warmup))),
                    _scheduled(lambda steps, warmup: max(1, warmup)), _scheduled(lambda steps, warmup: warmup or 1),
                ),
            ),
            Mistake(
                "ends one early",
                "Steps are counted from 0, so the last is steps - 1, and it should still learn. Zero would be reached "
                "at `steps`.",
                wrong=(_scheduled(along=lambda step, steps, rise: (step - rise) / (steps - 1 - rise)),),
            ),
            Mistake(
                "the cosine counted from the first step",
                "It begins where the warm-up ends: its progress is (step - rising) of (steps - rising).",
                wrong=(_scheduled(along=lambda step, steps, rise: step / steps),
                       _scheduled(along=lambda step, steps, rise: (step - rise) / steps)),
            ),
            Mistake("no warm-up", "First it rises, in equal stairs.",
                    wrong=(_scheduled(_none, along=lambda step, steps, rise: step / steps),)),
            Mistake(
                "below zero",
                "A cosine goes from 1 to -1. Half of (1 + cosine) goes from 1 to 0.",
                wrong=(_scheduled(down=lambda progress: math.cos(math.pi * progress)),),
            ),
            Mistake(
                "a quarter of a cosine",
                "Half a wave, from the top to the bottom: cos(pi · progress), moved up and halved. So it also ends "
                "gently.",
                wrong=(_scheduled(down=lambda progress: math.cos(math.pi / 2 * progress)),),
            ),
            Mistake("not halved", "1 + cosine starts at 2: take half of it.",
                    wrong=(_scheduled(down=lambda progress: 1 + math.cos(math.pi * progress)),)),
            Mistake("a straight line", "Half a cosine is asked for.",
                    wrong=(_scheduled(down=lambda progress: 1 - progress),)),
            Mistake(
                "not rounded to the nearest",
                "round(warmup · steps) is the number of warm-up steps; int cuts off, ceil rounds up.",
                wrong=(
                    _scheduled(lambda steps, warmup: max(1, int(warmup * steps))),
                    _scheduled(lambda steps, warmup: max(1, math.ceil(warmup * steps))),
                    _scheduled(lambda steps, warmup: max(1e-9, warmup * steps)),
                ),
            ),
            Mistake("the peak left out", "Multiply by the peak: the share alone is a rate of up to 1.",
                    wrong=(lambda step, steps, peak, warmup: learning_rate_at(step, steps, 1.0, warmup),)),
        ),
        hints=(
            "Two parts. How many steps does the first take? What is true at step 0, and at the first step after it?",
            "rising = share times steps, rounded, at least 1. Up: step + 1 of rising. Down: how far of the rest?",
            "Down: peak · 0.5 · (1 + math.cos(math.pi · progress)), and progress is (step - rising)/(steps - rising).",
        ),
        reward="The gentle end lets the weights settle, and no step is wasted on a rate of zero.",
    ),
)  # fmt: skip
