"""LoRA-FA: A stays as it was drawn, B alone is trained."""

import torch

from ..lora import LoRALinear


class LoRAFALinear(LoRALinear):
    """LoRA with A frozen at its random start: y = W·x + s·B·(A·x), and only B moves.

    Rule: Bₜ₊₁ = Bₜ − η·g_B, A as drawn. With `corrected`, g_B is replaced before the step by (1/s²)·g_B·(A·Aᵀ)⁻¹:
    of all steps of B, the one whose change of W comes nearest to what a full gradient step would do.
    Trains: B, rank·out numbers. Saves: the backward pass needs A·x (rank numbers a token) and not x (in numbers a
    token); gradient and optimizer states of A. With dropout, x has to be kept all the same.

    Parameters
    ----------
    base_layer, rank, alpha, dropout, use_rslora : as for LoRALinear
    corrected : bool, correct B's gradient in `before_step`

    Source: Zhang et al. 2023 (LoRA-FA). https://arxiv.org/abs/2308.03303
    """

    TRAINED = ("lora_B",)

    def __init__(self, base_layer, rank, alpha, dropout=0.0, use_rslora=False, *, corrected: bool = False):
        super().__init__(base_layer, rank, alpha, dropout, use_rslora)
        self.lora_A.requires_grad_(False)
        self.corrected = corrected

    @torch.no_grad()
    def before_step(self) -> None:
        """Correct B's gradient if the layer is to do so: call it between backward pass and optimizer step."""
        if self.corrected and self.lora_B.grad is not None:
            gram = self.lora_A @ self.lora_A.T
            gram.diagonal().add_(1e-8)  # as peft does, against a singular A·Aᵀ
            self.lora_B.grad = self.lora_B.grad @ torch.linalg.pinv(gram) / self.scaling**2
