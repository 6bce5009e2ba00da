"""Common mistakes on page 03, as a learner would write them: exercise -> (mistake's name, function)."""

import torch
import torch.nn.functional as F


def forward(x, weight, A, B, scale):
    return F.linear(x, weight) + F.linear(F.linear(x, A), B) * scale


def in_place(weight, A, B, alpha):
    weight += alpha / A.shape[0] * B @ A
    return weight


def a_before_b(weight, A, B, alpha):
    return weight + torch.matmul(A, B) * (alpha / A.shape[0])


def seeded(out, n, r):
    torch.manual_seed(0)
    return torch.randn(r, n), torch.zeros(out, r)


LEARNERS = {
    "lora_forward": [
        ("raw alpha instead of α/r", lambda x, W, A, B, alpha: forward(x, W, A, B, alpha)),
        ("r/α instead of α/r", lambda x, W, A, B, alpha: forward(x, W, A, B, A.shape[0] / alpha)),
        ("base forgotten", lambda x, W, A, B, alpha: forward(x, 0 * W, A, B, alpha / len(A))),
        ("A and B swapped", lambda x, W, A, B, alpha: forward(x, W, B, A, alpha / len(A))),
        ("wrong axis: a transpose is missing", lambda x, W, A, B, alpha: x.mm(W) + alpha / len(A) * x.mm(A).mm(B)),
        ("wrong axis: a transpose is missing", lambda x, W, A, B, alpha: F.linear(x, W) + alpha / len(A) * x @ (B @ A)),
        ("wrong axis: a transpose is missing", lambda x, W, A, B, alpha: W @ x + alpha / len(A) * B @ A @ x),
        ("the rank read from the wrong side", lambda x, W, A, B, alpha: forward(x, W, A, B, alpha / A.shape[1])),
        ("alpha times the rank", lambda x, W, A, B, alpha: forward(x, W, A, B, alpha * len(A))),
    ],
    "initial_adapter": [
        ("B not zero", lambda o, i, r: (torch.randn(r, i), torch.randn(o, r))),
        ("both zero", lambda o, i, r: (torch.zeros(r, i), torch.zeros(o, r))),
        ("A zero and B random", lambda o, i, r: (torch.zeros(r, i), torch.randn(o, r))),
        ("shapes swapped", lambda o, i, r: (torch.randn(i, r), torch.zeros(r, o))),
        ("shapes swapped", lambda o, i, r: (torch.randn(r, o), torch.zeros(i, r))),
        ("A and B in the wrong order", lambda o, i, r: (torch.zeros(o, r), torch.randn(r, i))),
        ("A the same on every call", seeded),
        ("equal rows", lambda o, i, r: (torch.randn(1, i).repeat(r, 1), torch.zeros(o, r))),
        ("equal rows", lambda o, i, r: (torch.randn(i) * torch.ones(r, 1), torch.zeros(o, r))),
        ("A too small", lambda o, i, r: (torch.randn(r, i) * 1e-30, torch.zeros(o, r))),
        ("A too large", lambda o, i, r: (torch.randn(r, i) * 1e3, torch.zeros(o, r))),
        ("A the same on every call", lambda o, i, r: (torch.ones(r, i), torch.zeros(o, r))),
    ],
    "merge": [
        ("raw alpha instead of α/r", lambda W, A, B, alpha: torch.add(W, B @ A, alpha=alpha)),
        ("changes its input in place", in_place),
        ("changes its input in place", lambda W, A, B, alpha: W.add_(B @ A, alpha=alpha / len(A))),
        ("A·B instead of B·A", a_before_b),
        ("subtracted", lambda W, A, B, alpha: W - B @ A * alpha / len(A)),
        ("the rank read from the wrong side", lambda W, A, B, alpha: W + B @ A * (alpha / A.shape[1])),
        ("alpha times the rank", lambda W, A, B, alpha: W + B @ A * alpha * A.shape[0]),
    ],
}
