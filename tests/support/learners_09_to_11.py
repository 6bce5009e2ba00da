"""Usual mistakes on pages 09 to 11, as a learner would write them: exercise -> (mistake's name, function)."""

import math
import statistics
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch.linalg import svd


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


def sums_of_factors(weight, A1, B1, A2, B2, alpha, shares):
    lora_A = shares[0] * A1 + shares[1] * A2
    lora_B = shares[0] * B1 + shares[1] * B2
    return weight + alpha / A1.shape[0] * lora_B @ lora_A


def merged_twice(weight, A1, B1, A2, B2, alpha, shares):
    first = weight + shares[0] * (alpha / A1.shape[0]) * B1 @ A1
    return first + weight + shares[1] * (alpha / A2.shape[0]) * B2 @ A2


def merged(scale):
    def wrong(weight, A1, B1, A2, B2, alpha, shares):
        result = weight.clone()
        for A, B, share in ((A1, B1, shares[0]), (A2, B2, shares[1])):
            result += scale(alpha, A.shape[0], share) * B @ A
        return result

    return wrong


def first_rank_for_both(weight, A1, B1, A2, B2, alpha, shares):
    scaling = alpha / A1.shape[0]
    return weight + scaling * (shares[0] * B1 @ A1 + shares[1] * B2 @ A2)


def by_row(adapter_of, base=True):
    def wrong(x, weight, A1, B1, A2, B2, which):
        rows = []
        for row, number in zip(x, which.tolist(), strict=True):
            y = weight @ row if base or number == 0 else torch.zeros(len(weight), dtype=x.dtype)
            for A, B in adapter_of(number, (A1, B1), (A2, B2)):
                y = y + B @ (A @ row)
            rows.append(y)
        return torch.stack(rows)

    return wrong


def right(number, first, second):
    return [] if number == 0 else [first] if number == 1 else [second]


def codes(blocks, code, absmax=None):
    absmax = blocks.abs().max(dim=1).values if absmax is None else absmax
    return torch.argmin(torch.abs((blocks / absmax[:, None]).unsqueeze(-1) - code), dim=-1)


def old_absmax(weight, delta, code):
    absmax = weight.abs().max(dim=1).values
    return (codes(weight, code, absmax) != codes(weight + delta, code, absmax)).sum().item()


def changed_values(weight, delta, code):
    def there_and_back(blocks):
        return code[codes(blocks, code)] * blocks.abs().max(dim=1).values[:, None]

    return torch.ne(there_and_back(weight), there_and_back(weight + delta)).sum().item()


def changed_blocks(weight, delta, code):
    pairs = zip(codes(weight, code), codes(weight + delta, code), strict=True)
    return sum(not torch.equal(old, new) for old, new in pairs)


def rounded_alone(weight, delta):
    return float(torch.dist(delta.bfloat16().to(delta.dtype), delta) / delta.norm())


def relative_to_weight(weight, delta):
    merged = weight + delta
    return float((merged.bfloat16().to(merged.dtype) - merged).norm() / merged.norm())


def kept(weight, delta):
    return float(((weight + delta).bfloat16().to(weight.dtype) - weight).norm() / delta.norm())


def dora(norm, scale=1):
    def wrong(weight, A, B, scaling, magnitude):
        V = weight + scaling * B @ A
        return magnitude.unsqueeze(1) * (V / norm(V, weight))

    return wrong


def no_magnitude(weight, A, B, scaling, magnitude):
    V = weight + scaling * B @ A
    return V / torch.linalg.vector_norm(V, dim=1, keepdim=True)


def vera(d_after_A=True, b_at_the_end=True):
    def wrong(x, W, A, B, d, b):
        h = F.linear(x, A)
        y = F.linear(h * d if d_after_A else h, B)
        return F.linear(x, W) + (y * b if b_at_the_end else y)

    return wrong


def pissa(left=0.5, right=0.5, residual=lambda W, U, S, Vh: W - U * S @ Vh, columns=lambda r, n: slice(0, r)):
    def wrong(weight, rank):
        U, S, Vh = svd(weight, full_matrices=False)
        keep = columns(rank, len(S))
        U, S, Vh = U[:, keep], S[keep], Vh[keep]
        return residual(weight, U, S, Vh), torch.diag(S**right) @ Vh, U @ torch.diag(S**left)

    return wrong


def rates(rate):
    return lambda names, learning_rate, ratio: torch.tensor([rate(name, learning_rate, ratio) for name in names])


def followed(step):
    def wrong(weight, A, B, new_A, new_B, scaling, strength):
        moved = weight.clone()
        return moved + strength * scaling * step(A, B, new_A, new_B)

    return wrong


LEARNERS = {
    "standard_error": [
        ("n instead of n − 1", numpys_std),
        ("the spread of one run", lambda scores: statistics.stdev(scores.tolist())),
        ("divided by n instead of √n", lambda scores: torch.std(scores) / len(scores)),
        ("the root forgotten", lambda scores: statistics.variance(scores.tolist()) / len(scores)),
    ],
    "paired_interval": [
        ("1.96 instead of t", interval(lambda a, b, t: 1.96 * standard_error(a - b))),
        ("not paired", interval(lambda a, b, t: t * math.hypot(standard_error(a), standard_error(b)))),
        ("n instead of n − 1", interval(lambda a, b, t: t * np.std(a - b) / math.sqrt(len(a)))),
        ("the spread of one difference", interval(lambda a, b, t: t * np.std(a - b, ddof=1))),
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
        ("only the best in one number", lambda parameters, loss: torch.isclose(loss, loss.min())),
    ],
    "rank_for_budget": [
        ("layers forgotten", budget(lambda o, i, n: o + i)),
        ("out · in instead of out + in", budget(lambda o, i, n: n * math.prod((o, i)))),
        ("one of the two factors only", budget(lambda o, i, n: n * i)),
        ("rounded up", budget(lambda o, i, n: n * (o + i), round_down=math.ceil)),
        ("a rank larger than a matrix has", budget(lambda o, i, n: n * o + n * i, cap=False)),
        ("a fraction", budget(lambda o, i, n: n * (o + i), round_down=float)),
    ],
    "traded_learning_rates": [
        ("both learning rates traded", lambda alpha, rate, new: 2 * (alpha * rate / new,)),
        ("A traded instead of B", lambda alpha, rate, new: [alpha / new * rate, rate]),
        ("the ratio upside down", lambda alpha, rate, new: (rate, new / alpha * rate)),
        ("nothing traded", lambda alpha, rate, new: (rate, rate)),
        ("shared between A and B", lambda alpha, rate, new: 2 * (rate * math.sqrt(alpha / new),)),
    ],
    "merge_two": [
        ("As and Bs added", sums_of_factors),
        ("one rank for both", first_rank_for_both),
        ("raw alpha instead of alpha / rank", merged(lambda alpha, rank, share: share * alpha)),
        ("the scaling left out", merged(lambda alpha, rank, share: share)),
        ("the shares left out", merged(lambda alpha, rank, share: alpha / rank)),
        ("the base added more than once, or scaled", merged_twice),
    ],
    "stack_two": [
        ("As and Bs added", lambda A1, B1, A2, B2, f: (A1.add(A2), (f[0] * B1).add(f[1] * B2))),
        (
            "the factor in A and in B",
            lambda A1, B1, A2, B2, f: (torch.vstack([f[0] * A1, f[1] * A2]), torch.hstack([f[0] * B1, f[1] * B2])),
        ),
        ("the factors forgotten", lambda A1, B1, A2, B2, f: (torch.vstack([A1, A2]), torch.hstack([B1, B2]))),
        (
            "another order in B than in A",
            lambda A1, B1, A2, B2, f: (torch.vstack([A1, A2]), torch.hstack([f[1] * B2, f[0] * B1])),
        ),
        (
            "put together along the wrong axis",
            lambda A1, B1, A2, B2, f: (torch.cat((A1, A2), 1), torch.cat((f[0] * B1, f[1] * B2), 0)),
        ),
    ],
    "mixed_batch": [
        ("both adapters for every row", by_row(lambda number, first, second: [first, second])),
        ("one adapter for all", by_row(lambda number, first, second: [second])),
        ("counted from 0", by_row(lambda number, first, second: [[first], [second], []][number])),
        (
            "an adapter for the rows that want the base",
            by_row(lambda number, first, second: [first] if number == 1 else [second]),
        ),
        ("the two adapters swapped", by_row(lambda number, first, second: right(number, second, first))),
        ("the base forgotten where there is an adapter", by_row(right, base=False)),
    ],
    "changed_codes": [
        ("the old absmax for the new weights", old_absmax),
        ("values instead of codes", changed_values),
        ("the update quantized by itself", lambda w, d, code: int((codes(w, code) != codes(d, code)).sum())),
        ("the unchanged ones", lambda w, d, code: w.numel() - int((codes(w, code) != codes(w + d, code)).sum())),
        ("blocks counted instead of codes", changed_blocks),
        (
            "a share instead of a count",
            lambda w, d, code: (codes(w, code) != codes(w + d, code)).sum().item() / w.numel(),
        ),
    ],
    "lost_in_rounding": [
        ("the update rounded by itself", rounded_alone),
        ("compared with the weight", relative_to_weight),
        ("what is left instead of what is lost", kept),
        (
            "the norm squared",
            lambda w, d: float(F.mse_loss((w + d).bfloat16().to(w.dtype), w + d, reduction="sum") / d.square().sum()),
        ),
    ],
    "dora_weight": [
        ("the norm over the wrong axis", dora(lambda V, W: torch.linalg.norm(V, dim=0, keepdim=True))),
        ("the norm of the old weight", dora(lambda V, W: W.square().sum(1).sqrt()[:, None])),
        ("one norm for the whole matrix", dora(lambda V, W: torch.linalg.matrix_norm(V))),
        ("not made 1 long", dora(lambda V, W: torch.ones(()))),
        ("magnitude forgotten", no_magnitude),
        ("scaling left out", lambda W, A, B, s, m: F.normalize(W + B @ A, dim=-1) * m.view(-1, 1)),
    ],
    "pissa_init": [
        ("the weight left as it is", pissa(residual=lambda W, U, S, Vh: W.clone())),
        ("all of a singular value on one side", pissa(1, 0)),
        ("all of a singular value on one side", pissa(0, 1)),
        ("σ on both sides", pissa(1, 1)),
        ("singular values left out", pissa(0, 0)),
        ("the weakest directions", pissa(columns=lambda r, n: slice(n - r, n))),
    ],
    "vera_forward": [
        ("d forgotten", vera(d_after_A=False)),
        ("b forgotten", vera(b_at_the_end=False)),
        ("d and b swapped", lambda x, W, A, B, d, b: F.linear(x, W) + F.linear(F.linear(x, A) * b, B) * d),
        ("base forgotten", lambda x, W, A, B, d, b: x @ (b[:, None] * B @ (d[:, None] * A)).T),
        ("the base scaled too", lambda x, W, A, B, d, b: x @ (b[:, None] * (W + B @ (d[:, None] * A))).T),
    ],
    "vera_parameters": [
        ("LoRA's count", lambda shapes, n, r: sum(n * (r * i + o * r) for o, i in shapes.values())),
        ("in instead of out", lambda shapes, n, r: sum(n * (r + i) for o, i in shapes.values())),
        ("layers forgotten", lambda shapes, n, r: sum(r + o for o, i in shapes.values())),
        ("one of the two vectors", lambda shapes, n, r: n * r * len(shapes)),
    ],
    "learning_rates": [
        ("A and B swapped", rates(lambda name, lr, ratio: lr * ratio if "lora_A" in name else lr * ("lora_B" in name))),
        ("the ratio for both", rates(lambda name, lr, ratio: lr * ratio if "lora_" in name else 0)),
        ("the ratio forgotten", rates(lambda name, lr, ratio: lr if "lora_" in name else 0)),
        ("frozen weights trained", rates(lambda name, lr, ratio: ratio * lr if "lora_B" in name else lr)),
        (
            "any B taken for lora_B",
            rates(lambda name, lr, ratio: lr * ratio if "B" in name else lr if "lora_A" in name else 0),
        ),
    ],
    "delta_lora_weight": [
        ("the change of B times the change of A", followed(lambda A, B, A2, B2: (B2 - B) @ (A2 - A))),
        ("the new product as a whole", followed(lambda A, B, A2, B2: torch.mm(B2, A2))),
        ("old minus new", followed(lambda A, B, A2, B2: B @ A - B2 @ A2)),
        ("only one of the two moved", followed(lambda A, B, A2, B2: B2 @ A - B @ A)),
        ("a factor left out", lambda W, A, B, A2, B2, scaling, strength: W + strength * (B2 @ A2 - B @ A)),
        (
            "changes its input in place",
            lambda W, A, B, A2, B2, scaling, strength: W.add_(scaling * strength * (B2 @ A2 - B @ A)),
        ),
    ],
}  # fmt: skip
