"""Exercise of page 08 on training: the loss of the answers alone."""

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


def _run_together(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1)[:-1], labels.flatten()[1:])


def _rolled(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.roll(-1, 1).flatten())


def _prompt_too(logits, labels):
    targets = labels[:, 1:].clamp(min=0)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


@st.composite
def _scored(draw):
    """Logits with one decimal; a row's last labels are learned, in some rows the one at place 0 too."""
    rows, length, words = draw(st.integers(1, 3)), draw(st.integers(3, 5)), draw(st.integers(3, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    logits = (20 * torch.randn(rows, length, words, generator=generator, dtype=torch.float64)).round().div(10).to(dtype)
    labels = torch.randint(0, words, (rows, length), generator=generator)
    for row in range(rows):
        labels[row, : draw(st.integers(0, length - 1))] = IGNORED
    if draw(st.booleans()) and rows > 1:  # padding behind the first
        labels[0, -1] = IGNORED if int((labels[0] != IGNORED).sum()) > 1 else labels[0, -1]
    return logits, labels


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
                "the rows run together",
                "Cut inside each row, before anything is flattened. Else a row's last logits are scored with the next "
                "row's first label.",
                wrong=(_run_together,),
            ),
            Mistake(
                "the first label at the end of its row",
                "roll puts the first label behind the last place. A label at place 0 has no logits before it: cut it "
                "off.",
                wrong=(_rolled,),
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
                "one number for each place",
                "The mean of them all is asked for, one number.",
                wrong=(
                    lambda logits, labels: _costs(logits, labels)[0],
                    lambda logits, labels: _costs(logits, labels)[0].flatten(),
                    lambda logits, labels: torch.masked_select(*_costs(logits, labels)),
                ),
            ),
            Mistake(
                "the logarithm of the mean",
                "First the logarithm at each place, then the mean: one token that the model holds impossible must cost "
                "much.",
                wrong=(_lossy(lambda costs, learned, labels: -_mean((-costs).exp() * learned, learned, labels).log()),),
            ),
            Mistake(
                "no logarithm",
                "A cost is minus the logarithm of a probability, not 1 minus it, nor the logit.",
                wrong=(
                    _lossy(lambda costs, learned, labels: 1 - _mean((-costs).exp() * learned, learned, labels)),
                    lambda logits, labels: -_mean(
                        logits[:, :-1].gather(2, labels[:, 1:, None].clamp(min=0))[..., 0] * (labels[:, 1:] != IGNORED),
                        labels[:, 1:] != IGNORED, labels,
                    ),
                ),
            ),
            Mistake(
                "in bits",
                "Nats are asked for: the natural logarithm, as torch's log and cross_entropy take it.",
                wrong=(_lossy(lambda *found: _mean(*found) / torch.tensor(2.0).log()),),
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
        reward="Fewer than half of a booking's tokens are in this mean. The prompt still matters: all of it is read. "
        "And of two answers, of 5 tokens and of 50, the long one has ten times the say.",
    ),
)  # fmt: skip
