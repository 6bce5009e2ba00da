"""Common mistakes on page 11, as a learner would write them: exercise -> (mistake's name, function)."""

import torch
import torch.nn.functional as F
from torch.linalg import svd


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
