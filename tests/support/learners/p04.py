"""Common mistakes on page 04, as a learner would write them: exercise -> (mistake's name, function)."""

import math

import torch
import torch.nn.functional as F


def on_output(x, A, B, scaling, keep_mask, p):
    y = scaling * (x @ A.T @ B.T)
    return y * keep_mask / (1 - p)


def on_a(x, A, B, scaling, keep_mask, p):
    return scaling * (x @ (A * keep_mask / (1 - p)).T @ B.T)


def dropped(change):
    return lambda x, A, B, scaling, keep, p: F.linear(F.linear(change(x, keep, p), A), B) * scaling


LEARNERS = {
    "scaling": [
        ("raw alpha", lambda alpha, rank, use_rslora: float(alpha)),
        ("upside down", lambda alpha, rank, use_rslora: (math.sqrt(rank) if use_rslora else rank) / alpha),
        ("√ missing", lambda alpha, rank, use_rslora: alpha * rank**-1),
        ("√ for both", lambda alpha, rank, use_rslora: alpha / math.sqrt(rank)),
        ("multiplied instead of divided", lambda alpha, rank, use_rslora: alpha * rank),
        ("rounded", lambda alpha, rank, use_rslora: float(int(alpha / (math.sqrt(rank) if use_rslora else rank)))),
        ("always 2", lambda alpha, rank, use_rslora: 2.0),
    ],
    "alpha_for_rank": [
        ("alpha left as it is", lambda alpha, rank, new_rank: 1.0 * alpha),
        ("ratio upside down", lambda alpha, rank, new_rank: rank / new_rank * alpha),
        ("2 × rank by habit", lambda alpha, rank, new_rank: 2.0 * new_rank),
        ("the old rank forgotten", lambda alpha, rank, new_rank: 1.0 * alpha * new_rank),
    ],
    "adapter_with_dropout": [
        ("dropout on the adapter's output", on_output),
        ("dropout on the entries of A", on_a),
        ("the counted share instead of p", dropped(lambda x, keep, p: x * keep * keep.numel() / keep.sum())),
        ("rescaling forgotten", dropped(lambda x, keep, p: torch.where(keep, x, 0.0))),
        ("mask inverted", dropped(lambda x, keep, p: x.masked_fill(keep, 0) / (1 - p))),
    ],
}
