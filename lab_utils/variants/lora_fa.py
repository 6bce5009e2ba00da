"""LoRA-FA: A stays as drawn, only B is trained."""

import torch

from ..lora import LoRALinear


class LoRAFALinear(LoRALinear):
    """LoRA with A frozen at its random start: y = W·x + s·B·(A·x), and only B moves.

    Rule: Bₜ₊₁ = Bₜ − η·g_B, A as drawn. With `corrected`, g_B is replaced before the step by (1/s²)·g_B·(A·Aᵀ)⁻¹:
    of all steps of B, the one whose change of W is closest to a full gradient step.
    Trains: B, rank·out numbers. Saves: the backward pass needs A·x (rank numbers per token) and not x (in numbers
    per token); gradient and optimizer states of A. With dropout, x must still be kept.

    Parameters
    ----------
    base_layer, rank, alpha, dropout, use_rslora : as for LoRALinear
    corrected : bool, correct B's gradient in `before_step`

    Source: Zhang et al. 2023 (LoRA-FA). https://arxiv.org/abs/2308.03303

    >>> layer = LoRAFALinear(torch.nn.Linear(8, 4), rank=2, alpha=2)
    >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)  # B alone, 4 × 2
    8
    """

    TRAINED = ("lora_B",)

    def __init__(self, base_layer, rank, alpha, dropout=0.0, use_rslora=False, *, corrected: bool = False):
        super().__init__(base_layer, rank, alpha, dropout, use_rslora)
        self.lora_A.requires_grad_(False)
        self.corrected = corrected

    @torch.no_grad()
    def before_step(self) -> None:
        """Correct B's gradient, if `corrected`: call this between the backward pass and the optimizer step."""
        if self.corrected and self.lora_B.grad is not None:
            gram = self.lora_A @ self.lora_A.T
            gram.diagonal().add_(1e-8)  # as in peft, in case A·Aᵀ is singular
            self.lora_B.grad = self.lora_B.grad @ torch.linalg.pinv(gram) / self.scaling**2
