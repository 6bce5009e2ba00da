"""Common mistakes on page 02, as a learner would write them: exercise -> (mistake's name, function)."""

import math

import torch


def square_everywhere(shapes, n_layers, rank, targets):
    hidden = shapes["q_proj"][0]
    return sum(n_layers * (rank * hidden + hidden * rank) for _ in targets)


def no_targets(shapes, n_layers, rank, targets):
    return sum(n_layers * (rank * i + o * rank) for o, i in shapes.values())


def one_layer(shapes, n_layers, rank, targets):
    return sum(rank * (o + i) for module, (o, i) in shapes.items() if module in targets)


def first_for_all(shapes, n_layers, rank, targets):
    o, i = shapes[targets[0]]
    return n_layers * len(targets) * (rank * i + o * rank)


LEARNERS = {
    "adapter_parameters": [
        ("out · in · rank", lambda o, i, r: math.prod((o, i, r))),
        ("only A counted", lambda o, i, r: torch.empty(r, i).numel()),
        ("the rank squared", lambda o, i, r: (r * i) * (o * r)),
    ],
    "break_even_rank": [
        ("the smaller side", lambda o, i: sorted((o, i))[0]),
        ("rounded up", lambda o, i: math.ceil(o * i / (o + i))),
        ("not strict", lambda o, i: max(r for r in range(65) if r * (o + i) <= o * i)),
    ],
    "model_adapter_parameters": [
        ("layers forgotten", one_layer),
        ("targets ignored", no_targets),
        ("every matrix taken as hidden × hidden", square_everywhere),
        ("the first target counted for all", first_for_all),
    ],
}
