"""Common mistakes on page 09, as a learner would write them: exercise -> (mistake's name, function)."""

import math
import statistics
from collections import defaultdict

import numpy as np
import torch


def numpys_std(scores):
    return float(np.std(scores.numpy()) / np.sqrt(len(scores)))


def interval(width, middle=lambda a, b: np.mean(b - a)):
    def wrong(first, second, t):
        a, b = first.double().numpy(), second.double().numpy()
        return middle(a, b) - width(a, b, t), middle(a, b) + width(a, b, t)

    return wrong


def standard_error(values):
    return np.std(values, ddof=1) / math.sqrt(len(values))


def chosen(limit, column="validation_loss", pick=min):
    def wrong(rows):
        by_rank = defaultdict(list)
        for row in rows:
            by_rank[row["rank"]].append(row[column])
        mean = {rank: float(np.mean(losses)) for rank, losses in by_rank.items()}
        best = min(mean, key=mean.get)
        return pick([rank for rank in mean if mean[rank] <= mean[best] + limit(by_rank[best]) + 1e-12])

    return wrong


def lowest_loss(rows):
    best = rows[0]
    for row in rows:
        if row["validation_loss"] < best["validation_loss"]:
            best = row
    return best["rank"]


def own_errors(rows):
    ranks = sorted({row["rank"] for row in rows})
    losses = [[row["validation_loss"] for row in rows if row["rank"] == rank] for rank in ranks]
    lowest = min(map(statistics.mean, losses))
    return next(r for r, own in zip(ranks, losses, strict=True) if np.mean(own) - standard_error(own) <= lowest)


def front(beats):
    def wrong(parameters, loss):
        points = list(zip(parameters.tolist(), loss.tolist(), strict=True))
        return torch.tensor([not any(beats(*other, *this) for other in points) for this in points])

    return wrong


def budget(cost, round_down=math.floor, cap=True):
    def wrong(shapes, n_layers, budget):
        rank = round_down(budget / sum(cost(o, i, n_layers) for o, i in shapes.values()))
        return min(rank, *(side for shape in shapes.values() for side in shape)) if cap else rank

    return wrong


def skyline(parameters, loss):
    """One sort by parameters, then only what is lower than everything before."""
    front, lowest = torch.zeros(len(loss), dtype=torch.bool), float("inf")
    for place in torch.argsort(parameters, stable=True):
        if loss[place] < lowest:
            front[place], lowest = True, loss[place]
    return front


LEARNERS = {
    "standard_error": [
        ("n instead of n − 1", numpys_std),
        ("the spread of one run", lambda scores: statistics.stdev(scores.tolist())),
        ("divided by n instead of √n", lambda scores: torch.std(scores) / len(scores)),
        ("the root forgotten", lambda scores: statistics.variance(scores.tolist()) / len(scores)),
        ("√3 for any number of seeds", lambda scores: statistics.stdev(scores.tolist()) / math.sqrt(3)),
    ],
    "paired_interval": [
        ("1.96 instead of t", interval(lambda a, b, t: 1.96 * standard_error(a - b))),
        ("not paired", interval(lambda a, b, t: t * math.hypot(standard_error(a), standard_error(b)))),
        ("n instead of n − 1", interval(lambda a, b, t: t * np.std(a - b) / math.sqrt(len(a)))),
        ("the spread of one difference", interval(lambda a, b, t: t * np.std(a - b, ddof=1))),
        ("an interval of single differences", interval(lambda a, b, t: 1.96 * np.std(b - a, ddof=1))),
        ("right for three seeds only", interval(lambda a, b, t: t * np.std(b - a, ddof=1) / math.sqrt(3))),
        ("t forgotten", interval(lambda a, b, t: standard_error(a - b))),
        (
            "first minus second",
            interval(lambda a, b, t: t * standard_error(a - b), middle=lambda a, b: a.mean() - b.mean()),
        ),
    ],
    "smallest_good_rank": [
        ("the best, with no allowance for chance", chosen(lambda losses: 0)),
        ("the best single run", lowest_loss),
        ("chosen on the test set", chosen(standard_error, column="test_loss")),
        ("another rank's own error", own_errors),
        ("the standard deviation instead of the standard error", chosen(statistics.stdev)),
        ("n instead of n − 1", chosen(lambda losses: np.std(losses) / len(losses) ** 0.5)),
        ("two standard errors", chosen(lambda losses: 1.96 * standard_error(losses))),
        ("the largest instead of the smallest", chosen(standard_error, pick=max)),
    ],
    "pareto_front": [
        ("ties taken as no defeat", front(lambda cost, bad, my_cost, mine: cost < my_cost and bad < mine)),
        ("beaten by itself, or by its like", front(lambda cost, bad, my_cost, mine: cost <= my_cost and bad <= mine)),
        ("one better number taken as a defeat", front(lambda cost, bad, my_cost, mine: cost < my_cost or bad < mine)),
        (
            "who beats nobody",
            front(lambda *both: both[:2] != both[2:] and both[2] <= both[0] and both[3] <= both[1]),
        ),
        ("sorted and swept, ties missed", skyline),
        ("only the best in one number", lambda parameters, loss: torch.isclose(loss, loss.min())),
    ],
    "rank_for_budget": [
        ("layers forgotten", budget(lambda o, i, n: o + i)),
        ("out · in instead of out + in", budget(lambda o, i, n: n * math.prod((o, i)))),
        ("one of the two factors only", budget(lambda o, i, n: n * i)),
        ("rounded up", budget(lambda o, i, n: n * (o + i), round_down=math.ceil)),
        ("a rank larger than a matrix has", budget(lambda o, i, n: n * o + n * i, cap=False)),
        (
            "a longer side as the cap",
            lambda shapes, n, most: min(
                most // sum(n * (o + i) for o, i in shapes.values()), max(map(max, shapes.values()))
            ),
        ),
        ("a fraction", budget(lambda o, i, n: n * (o + i), round_down=float)),
    ],
    "traded_learning_rates": [
        ("both learning rates traded", lambda alpha, rate, new: 2 * (alpha * rate / new,)),
        ("A traded instead of B", lambda alpha, rate, new: [alpha / new * rate, rate]),
        ("the ratio upside down", lambda alpha, rate, new: (rate, new / alpha * rate)),
        ("nothing traded", lambda alpha, rate, new: (rate, rate)),
        ("shared between A and B", lambda alpha, rate, new: 2 * (rate * math.sqrt(alpha / new),)),
    ],
}  # fmt: skip
