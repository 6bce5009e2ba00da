"""Common mistakes on page 01, as a learner would write them: exercise -> (mistake's name, function)."""

import torch
from torch.linalg import svd, svdvals


def swapped_loops(column, row):
    return torch.stack([torch.stack([c * r for c in column]) for r in row])


def smallest_kept(weight, rank):
    U, S, Vh = svd(weight, full_matrices=False)
    return U[:, -rank:] @ S[-rank:].diag(), Vh[-rank:, :]


def no_singular_values(weight, rank):
    U, _, Vh = svd(weight, full_matrices=False)
    return U[:, :rank], Vh[:rank]


def root_in_one_factor(weight, rank):
    U, S, Vh = svd(weight, full_matrices=False)
    return U[:, :rank] @ S[:rank].sqrt().diag(), Vh[:rank]


def v_for_vh(weight, rank):
    U, S, V = svd(weight)
    return U[:, :rank] @ torch.diag(S[:rank]), V[:, :rank].T


def v_for_vh_reduced(weight, rank):
    U, S, V = svd(weight, full_matrices=False)
    return U[:, :rank] * S[None, :rank], V.T[:rank]


def with_rank(change):
    def fit(weight, rank):
        U, S, Vh = svd(weight, full_matrices=False)
        keep = range(len(S))[: rank + change]
        return U[:, keep] * S[keep].sqrt(), S[keep].sqrt()[:, None] * Vh[keep]

    return fit


def ratio_loop(weight, approximation):
    ratios = [abs(w - a) / abs(w) for w, a in zip(weight.flatten(), approximation.flatten(), strict=True)]
    return float(sum(ratios) / len(ratios))


def energy_not_squared(weight):
    S = svdvals(weight)
    return torch.cumsum(S, 0) / torch.sum(S)


def energy_from_smallest(weight):
    S = svdvals(weight).sort().values
    return torch.cumsum(S**2, dim=0) / (S**2).sum()


LEARNERS = {
    "outer_product": [
        ("column and row swapped", swapped_loops),
        ("column and row swapped", lambda c, r: r.unsqueeze(1) @ c.unsqueeze(0)),
        ("elementwise product", lambda column, row: torch.mul(column, row)),
        ("inner product", lambda column, row: torch.dot(column, row)),
        ("inner product", lambda column, row: row @ column),
        ("inner product", lambda column, row: row.unsqueeze(0) @ column.unsqueeze(1)),
        ("one long vector", lambda column, row: torch.kron(column, row)),
    ],
    "best_rank_r": [
        ("the smallest singular values kept", smallest_kept),
        ("singular values left out", no_singular_values),
        ("V used where Vᵀ is needed", v_for_vh),
        ("V used where Vᵀ is needed", v_for_vh_reduced),
        ("one direction too many", with_rank(1)),
        ("one direction too few", with_rank(-1)),
        ("half of each singular value missing", root_in_one_factor),
        ("A and B in the wrong order", lambda weight, rank: tuple(reversed(with_rank(0)(weight, rank)))),
    ],
    "relative_error": [
        ("absolute error", lambda w, a: ((w - a) ** 2).sum().sqrt().item()),
        ("divided by the norm of the approximation", lambda w, a: float(torch.dist(w, a) / torch.norm(a))),
        ("squared error", lambda w, a: float(((w - a) ** 2).sum() / (w**2).sum())),
        ("mean of elementwise ratios", ratio_loop),
        ("how good instead of how far off", lambda w, a: 1 - float(((w - a) ** 2).sum() / (w**2).sum())),
        ("another norm", lambda w, a: (svdvals(w - a)[0] / svdvals(w)[0]).item()),
    ],
    "energy": [
        ("not squared", energy_not_squared),
        ("not cumulative", lambda w: svdvals(w).square() / w.square().sum()),
        ("summed from the smallest", energy_from_smallest),
        ("what is missing instead of what is held", lambda w: 1 - svdvals(w).square().cumsum(0) / w.square().sum()),
        ("summed before squaring", lambda w: energy_not_squared(w) ** 2),
        ("root taken", lambda w: (svdvals(w).square().cumsum(0) / w.square().sum()).sqrt()),
    ],
}
