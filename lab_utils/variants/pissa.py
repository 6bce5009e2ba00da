"""PiSSA: A and B start as the largest singular directions of W, and the base keeps the rest."""

import torch
from torch import nn

from ..errors import LabError, whole
from .dora import require_floats
from .moves_weight import MovesWeight


class PiSSALinear(MovesWeight):
    """LoRA that starts from the main directions of W: y = W_res·x + s·B·(A·x), with W = U·Σ·Vᵀ.

    Rule: s·B·A starts as the first `rank` terms of Σᵢ σᵢ·uᵢ·vᵢᵀ, √σᵢ on either side, and W_res = W − s·B·A is frozen in
    place of W. Together they are W, up to rounding; after that it is LoRA, with gradients that are large from the
    first step.
    Trains: A and B, rank·(in + out) numbers. Saves: nothing compared with LoRA; it costs one SVD per layer at the
    start, and an adapter file is useless without W_res.

    Parameters
    ----------
    base_layer, rank, alpha, dropout, use_rslora : as for LoRALinear; the base's weight must be plain floats
    iterations : int >= 1 or None; None takes the exact SVD, a number the randomized one with that many power
        iterations, which is many times faster (peft's "pissa_niter_16")

    `delta_weight` is s·B·A, the part beside W_res; `learned_update` is what the layer has learned, zero at the start.

    Source: Meng et al. 2024 (PiSSA). https://arxiv.org/abs/2404.02948

    >>> linear = nn.Linear(2, 2)
    >>> linear.weight.data = torch.tensor([[4.0, 0.0], [0.0, 3.0]])
    >>> layer = PiSSALinear(linear, rank=1, alpha=1)
    >>> layer.delta_weight().tolist(), layer.base_layer.weight.tolist()  # the largest direction, and the rest
    ([[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]])
    """

    def __init__(self, base_layer, rank, alpha, dropout=0.0, use_rslora=False, *, iterations: int | None = None):
        self.iterations = None if iterations is None else whole("iterations", iterations)
        super().__init__(base_layer, rank, alpha, dropout, use_rslora)

    @torch.no_grad()
    def add_parameters(self) -> None:
        weight = self.base_layer.weight.data
        require_floats(weight, "PiSSA")
        if not weight.isfinite().all():
            raise LabError("This layer's weight holds NaN or infinity: it has no singular values.")
        exact = weight if weight.dtype == torch.float64 else weight.float()
        if self.iterations is None:
            U, S, Vt = torch.linalg.svd(exact, full_matrices=False)
        else:
            U, S, V = torch.svd_lowrank(exact, self.rank, niter=self.iterations)
            Vt = V.T
        root = torch.diag(torch.sqrt(S[: self.rank] / self.scaling))
        self.lora_A = nn.Parameter(root @ Vt[: self.rank])
        self.lora_B = nn.Parameter(U[:, : self.rank] @ root)
        self.move((exact - self.scaling * self.lora_B @ self.lora_A).to(weight.dtype))
