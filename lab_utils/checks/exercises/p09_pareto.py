"""Exercise of page 09: the settings that no other beats in quality and cost."""

import math
import operator

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake


def pareto_front_spec(parameters: Tensor, loss: Tensor) -> Tensor:
    """A setting is on the front unless some other is as good in both numbers, and better in one."""
    front = []
    for n in range(len(loss)):
        beaten = False
        for other in range(len(loss)):
            as_good = parameters[other] <= parameters[n] and loss[other] <= loss[n]
            better = parameters[other] < parameters[n] or loss[other] < loss[n]
            beaten = beaten or bool(as_good and better)
        front.append(not beaten)
    return torch.tensor(front)


def pareto_front(parameters: Tensor, loss: Tensor) -> Tensor:
    as_good = (parameters[:, None] <= parameters) & (loss[:, None] <= loss)  # [other, this]
    better = (parameters[:, None] < parameters) | (loss[:, None] < loss)
    return ~(as_good & better).any(dim=0)


def _front(beats, axis: int = 0):
    """pareto_front with another sense of "beats", from how two settings compare: [other, this] each."""

    def wrong(parameters, loss):
        less, same = (
            [compare(values[:, None], values) for values in (parameters, loss)] for compare in (torch.lt, torch.eq)
        )
        return ~beats(*less, *same).any(dim=axis)

    return wrong


def _dominates(cheaper, better, same_cost, same_loss):
    return (cheaper | same_cost) & (better | same_loss) & (cheaper | better)


def _swept(order, kept, best=lambda parameters, loss: loss):
    """pareto_front by one sort and one walk from the cheapest (or best) on, with what is `kept` against the record."""

    def wrong(parameters, loss):
        found, record = [False] * len(loss), math.inf
        walk = best(parameters, loss).tolist()
        for n in sorted(range(len(loss)), key=lambda n: order(parameters[n].item(), loss[n].item())):
            if kept(walk[n], record):
                found[n], record = True, walk[n]
        return torch.tensor(found)

    return wrong


@st.composite
def _settings(draw):
    """Parameters and loss of 1 to 6 settings, with ties in one or in both."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    parameters, loss = torch.tensor(pairs).T
    return 1000 * parameters, loss.to(dtype) / 10


def _no_like(parameters, loss):
    beats = (parameters[:, None] <= parameters) & (loss[:, None] <= loss)
    return ~(beats & ~torch.eye(len(loss), dtype=torch.bool)).any(dim=0)


EXERCISES = (
    Exercise(
        name="pareto_front", page=9, title="Settings that nothing beats",
        spec=pareto_front_spec, solution=pareto_front, inputs=_settings(), picture=lambda front: front.double(),
        demo=(torch.tensor([58, 115, 230, 461, 461, 922, 2442]) * 1000,
              torch.tensor([0.41, 0.36, 0.36, 0.30, 0.33, 0.31, 0.27])),
        mistakes=(
            Mistake(
                "ties taken as no defeat",
                "A setting with the same loss and fewer parameters beats this one, and so does one with as many "
                "parameters and a lower loss: as good in both and better in one is enough.",
                wrong=(
                    _front(lambda cheaper, better, even, level: cheaper & better),
                    _front(lambda cheaper, better, even, level: (cheaper | even) & better),
                    _front(lambda cheaper, better, even, level: cheaper & (better | level)),
                ),
            ),
            Mistake(
                "beaten by itself, or by its like",
                "Every setting is as good as itself. To beat, the other must be better in at least one number.",
                wrong=(_front(lambda cheaper, better, even, level: (cheaper | even) & (better | level)), _no_like),
            ),
            Mistake(
                "sorted and swept, ties missed",
                "After a sort by one number, settings that are equal in it come in any order, and of two alike one is "
                "lost. Sort by both numbers, and compare exact doubles with what came before them, not each other.",
                wrong=(
                    _swept(lambda cost, bad: cost, operator.lt), _swept(lambda cost, bad: cost, operator.le),
                    _swept(lambda cost, bad: (cost, bad), operator.lt),
                    _swept(lambda cost, bad: bad, operator.lt, best=lambda parameters, loss: parameters),
                    _swept(lambda cost, bad: bad, operator.le, best=lambda parameters, loss: parameters),
                ),
            ),
            Mistake(
                "one better number taken as a defeat",
                "Fewer parameters with a higher loss is another choice, no better one. It must be as good in both.",
                wrong=(
                    _front(lambda cheaper, better, even, level: cheaper | better),
                    lambda parameters, loss: (parameters == parameters.min()) & (loss == loss.min()),
                ),
            ),
            Mistake(
                "the beaten ones",
                "True is for settings on the front: those that no other beats.",
                wrong=(lambda parameters, loss: ~pareto_front(parameters, loss),),
            ),
            Mistake(
                "who beats nobody",
                "The question is not whether this one beats another, but whether another beats it: mind the axis.",
                wrong=(_front(_dominates, axis=1),),
            ),
            Mistake(
                "a high loss taken as good",
                "A lower loss is better.",
                wrong=(lambda parameters, loss: pareto_front(parameters, -loss),),
            ),
            Mistake(
                "many parameters taken as good",
                "Parameters are the cost here: fewer are better.",
                wrong=(lambda parameters, loss: pareto_front(-parameters, loss),),
            ),
            Mistake(
                "only the best in one number",
                "The cheapest and the best are on the front, and others may lie between them.",
                wrong=(
                    lambda parameters, loss: loss == loss.min(),
                    lambda parameters, loss: parameters == parameters.min(),
                    lambda parameters, loss: (loss == loss.min()) | (parameters == parameters.min()),
                ),
            ),
        ),
        hints=(
            "When would nobody choose a setting, whatever parameters and quality are worth to them?",
            "Compare each with every other. It is beaten if the other is as good in both numbers and better in one.",
            "(p[:, None] <= p) & (l[:, None] <= l) & ((p[:, None] < p) | (l[:, None] < l)) says which beats which; "
            "on the front are those whose column has no True.",
        ),
        reward="Whatever you pay for a parameter, your choice lies on this front. All else is dearer or worse.",
    ),
)  # fmt: skip
