"""Exercise of page 14 on results: is it better than the answer that costs nothing."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake


def lead_over_majority_spec(right: Tensor, answers: Tensor, train_answers: Tensor) -> tuple[float, float, float]:
    """One number for each test example: 1 if only the model is right, -1 if only the majority is, else 0."""
    known = train_answers.tolist()
    majority = max(sorted(set(known)), key=known.count)
    leads = [int(bool(hit)) - int(answer == majority) for hit, answer in zip(right, answers.tolist(), strict=True)]
    mean = sum(leads) / len(leads)
    variance = sum((lead - mean) ** 2 for lead in leads) / (len(leads) - 1)
    half = 1.96 * (variance / len(leads)) ** 0.5
    return mean, mean - half, mean + half


def lead_over_majority(right: Tensor, answers: Tensor, train_answers: Tensor) -> tuple[float, float, float]:
    majority = train_answers.mode().values
    leads = right.double() - (answers == majority).double()
    mean, half = leads.mean().item(), 1.96 * leads.std().item() / math.sqrt(len(leads))
    return mean, mean - half, mean + half


def _lead(half=lambda leads, right, base: 1.96 * leads.std() / len(leads) ** 0.5, majority=None, sign=1):
    """lead_over_majority with another half width, another majority, or the other way round."""

    def wrong(right, answers, train_answers):
        label = train_answers.mode().values if majority is None else majority(answers, train_answers)
        hits, base = right.double(), (answers == label).double()
        leads = sign * (hits - base)
        mean, width = leads.mean().item(), float(half(leads, hits, base))
        return mean, mean - width, mean + width

    return wrong


def _share_alone(right, answers, train_answers):
    hits = right.double()
    half = 1.96 * hits.std().item() / len(hits) ** 0.5
    return hits.mean().item(), hits.mean().item() - half, hits.mean().item() + half


def _fixed(leads, hits, base):
    return 1.96 * hits.std() / len(hits) ** 0.5


@st.composite
def _scored(draw):
    """Right or not, and the answers' labels, of 4 to 8 test examples; the training labels have one majority."""
    size = draw(st.integers(4, 8))
    right = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    answers = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    train = draw(st.lists(st.integers(0, 2), min_size=3, max_size=6))
    return torch.tensor(right), torch.tensor(answers), torch.tensor(train)


def _telling(scored) -> bool:
    """Have the labels one majority in either set, and do the leads vary?"""
    right, answers, train = scored
    counts = [sorted(labels.bincount(minlength=3).tolist()) for labels in (train, answers)]
    leads = right.double() - (answers == train.mode().values).double()
    return all(two[-1] > two[-2] for two in counts) and float(leads.std()) > 0


EXERCISES = (
    Exercise(
        name="lead_over_majority", page=14, title="Is it better than the answer that costs nothing?",
        spec=lead_over_majority_spec, solution=lead_over_majority, inputs=_scored().filter(_telling),
        demo=(
            torch.tensor([True, True, False, True, True, False]), torch.tensor([0, 1, 2, 0, 1, 0]),
            torch.tensor([0, 0, 1, 2]),
        ),
        mistakes=(
            Mistake(
                "the majority of the test answers",
                "A baseline may not look at the test set either: take the most frequent training answer.",
                wrong=(_lead(majority=lambda answers, train: answers.mode().values),),
            ),
            Mistake(
                "not paired",
                "Both answer the same examples: subtract example by example, then take the spread of the differences.",
                wrong=(
                    _lead(lambda leads, hits, base: 1.96 * ((hits.var() + base.var()) / len(hits)) ** 0.5),
                    _lead(lambda leads, hits, base: 1.96 * (hits.std() + base.std()) / len(hits) ** 0.5),
                    _lead(_fixed),
                ),
            ),
            Mistake("the share alone", "The lead is the model's share less the majority's, on the same examples.",
                    wrong=(_share_alone,)),
            Mistake("n instead of n − 1", "The squares are divided by n - 1, as torch's std does.",
                    wrong=(_lead(lambda leads, hits, base: 1.96 * leads.std(correction=0) / len(leads) ** 0.5),)),
            Mistake("the spread of one example", "A mean of n is surer than one of them: divide by √n.",
                    wrong=(_lead(lambda leads, hits, base: 1.96 * leads.std()),)),
            Mistake("1.96 forgotten", "One standard error is too narrow: 95 % take 1.96 of them to either side.",
                    wrong=(_lead(lambda leads, hits, base: leads.std() / len(leads) ** 0.5),)),
            Mistake("majority minus model", "Above zero should mean that the model leads.", wrong=(_lead(sign=-1),)),
            Mistake("the half width twice", "The second and third number are the ends: lead minus and plus the half.",
                    wrong=(lambda *a: (lead_over_majority(*a)[0], *2 * (lead_over_majority(*a)[2] -
                                                                       lead_over_majority(*a)[0],)),)),
        ),
        hints=(
            "What would you answer if you might not read the message? Score that answer on the same test examples.",
            "Make one number per test example: model right (1 or 0) less majority right (1 or 0). Then mean and error.",
            "label = train_answers.mode().values; d = right - (answers == label) in floats; the mean, and 1.96 times "
            "d.std() over the root of len(d) to either side.",
        ),
        reward="Two thirds against one half looks better; with six examples the interval holds zero by far.",
    ),
)  # fmt: skip
