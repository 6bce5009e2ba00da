"""Delta-LoRA: W moves too, by the last change of B·A, without its own gradient."""

import torch

from ..errors import LabError, real, whole
from .dora import require_floats
from .moves_weight import MovesWeight


class DeltaLoRALinear(MovesWeight):
    """LoRA whose frozen weight follows the adapter: after each step W moves by λ·s·(Bₜ₊₁·Aₜ₊₁ − Bₜ·Aₜ).

    Rule: A and B are trained as in LoRA; in step t = 0, 1, 2, … with t > K, W ← W + λ·s·(Bₜ₊₁·Aₜ₊₁ − Bₜ·Aₜ).
    The moves add up: after T steps W has moved by λ·s·(B_T·A_T − B_{K+1}·A_{K+1}), along the last B·A, so λ acts much
    like a larger scaling that sets in late.
    Trains: A and B by gradient, rank·(in + out) numbers; W moves without a gradient. Saves: W's gradient and optimizer
    states, compared with full fine-tuning; compared with LoRA it costs a matrix product per layer and step, and the
    result is a whole W instead of a small file.

    Parameters
    ----------
    base_layer, rank, alpha, use_rslora : as for LoRALinear; the base's weight must be float32 or float64
    dropout : 0; with dropout, the gradient of B·A would differ from that of W
    strength : float > 0, λ
    start_step : int >= 0, K

    The optimizer does not know about this: call `after_step` on the layer, or `variants.after_step` on the model, after
    every optimizer step.

    Raises
    ------
    LabError
        The base is quantized, or has 16 bits: steps this small would be rounded away. A value is out of its range.

    Source: Zi et al. 2023 (Delta-LoRA), section 4 and algorithm 1. https://arxiv.org/abs/2309.02411

    >>> layer = DeltaLoRALinear(torch.nn.Linear(1, 1), rank=1, alpha=1, start_step=0)
    >>> layer.after_step()  # step 0: W stays
    >>> layer.lora_A.data, layer.lora_B.data = torch.ones(1, 1), torch.ones(1, 1)  # B·A goes from 0 to 1
    >>> layer.after_step()  # step 1: W moves by 2 · 1 · (1 − 0); with scaling·B·A the layer has learned 3
    >>> layer.learned_update().item()
    3.0
    """

    SAVED = {}  # the whole W belongs to the result

    def __init__(
        self, base_layer, rank, alpha, dropout=0.0, use_rslora=False, *, strength: float = 2.0, start_step: int = 0
    ):  # fmt: skip
        if dropout:
            raise LabError(f"dropout={dropout!r}: Delta-LoRA has none, for B·A would learn something other than W.")
        self.strength, self.start_step = real("strength", strength), whole("start_step", start_step, 0)
        super().__init__(base_layer, rank, alpha, dropout, use_rslora)

    def add_parameters(self) -> None:
        weight = self.base_layer.weight
        require_floats(weight, "Delta-LoRA")
        if weight.dtype.itemsize < 4:
            raise LabError(
                f"The base weight is {weight.dtype}: Delta-LoRA's steps would be rounded away. Load it in float32."
            )
        super().add_parameters()
        self.move(weight.data.clone())
        self.register_buffer("previous_A", self.lora_A.detach().clone())
        self.register_buffer("previous_B", self.lora_B.detach().clone())
        self.register_buffer("steps", torch.tensor(0))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move W by the change that the last optimizer step made to B·A.

        Raises
        ------
        LabError
            The layer is merged.
        """
        if self.merged:
            raise LabError("This layer is merged: W cannot follow B·A now. Call `unmerge` first.")
        if self.steps > self.start_step:
            change = self.lora_B @ self.lora_A - self.previous_B @ self.previous_A
            self.base_layer.weight += self.strength * self.scaling * change
        self.previous_A.copy_(self.lora_A)
        self.previous_B.copy_(self.lora_B)
        self.steps += 1
