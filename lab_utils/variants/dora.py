"""DoRA: the length of each row of W is trained separately from its direction, which LoRA changes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LabError
from ..lora import LoRALinear


class DoRALinear(LoRALinear):
    """Magnitude and direction separately: W' = m ⊙ (W + s·B·A) / ‖W + s·B·A‖, the norm taken row by row.

    Rule: row i of W' is mᵢ times the unit vector along row i of W + s·B·A. m starts at the norms of W's rows and B at
    zero, so W' = W. The norm is computed again in every forward pass, but as a constant: no gradient flows through it,
    which saves memory and changes the results little.
    Trains: A, B and m, rank·(in + out) + out numbers. Saves: nothing; it costs the norm of a whole matrix per layer and
    pass, and more activations.

    Parameters
    ----------
    base_layer, rank, alpha, dropout, use_rslora : as for LoRALinear; the base's weight must be plain floats
    magnitude : Parameter (out,), an attribute: m

    Raises
    ------
    LabError
        The base is quantized, or a row of W is zero and has no direction.

    Source: Liu et al. 2024 (DoRA), equation 5 and section 4.3. https://arxiv.org/abs/2402.09353

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> linear.weight.data = torch.tensor([[3.0, 4.0]])
    >>> layer = DoRALinear(linear, rank=1, alpha=1)
    >>> layer.magnitude.item()  # √(3² + 4²)
    5.0
    >>> layer.magnitude.data = torch.tensor([10.0])  # twice as long, in the same direction
    >>> layer(torch.tensor([1.0, 1.0])).item()
    14.0
    """

    SAVED = {**LoRALinear.SAVED, "lora_magnitude_vector": "magnitude"}
    TRAINED = ("lora_A", "lora_B", "magnitude")
    PLAIN = False

    def add_parameters(self) -> None:
        require_floats(self.base_layer.weight, "DoRA")
        super().add_parameters()
        norm = self._norm(self.base_layer.weight)
        if not norm.all():
            raise LabError("A row of this layer's weight is zero and has no direction: DoRA cannot adapt it.")
        self.magnitude = nn.Parameter(norm)
        self._factor = None  # (out,), once merged

    @torch.no_grad()
    def _norm(self, weight: Tensor) -> Tensor:
        """‖W + s·B·A‖ of each row, (out,), as a constant."""
        return torch.linalg.norm(weight + self.scaling * (self.lora_B @ self.lora_A), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)"""
        result = self.base_layer(x)
        if self.merged:
            return self._merged_result(result)
        weight, bias = self.base_layer.weight, self.base_layer.bias
        x = x.to(self.lora_A.dtype)
        if self.training and isinstance(self.dropout, nn.Dropout):
            x = self.dropout(x)
            product = F.linear(x, weight.to(x.dtype))
        else:
            product = result if bias is None else result - bias
        factor = self.magnitude / self._norm(weight.to(x.dtype))
        update = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return (result + ((factor - 1) * product + factor * update * self.scaling)).to(result.dtype)

    def delta_weight(self) -> Tensor:
        """ΔW = m ⊙ (W + s·B·A) / ‖W + s·B·A‖ − W, (out, in); W is the base's weight before merging."""
        weight, update = self.base_layer.weight, super().delta_weight()
        if self.merged:
            weight = weight / self._factor - update
            return self._factor * (weight + update) - weight
        factor = self.magnitude / self._norm(weight.to(update.dtype))
        return factor[:, None] * (weight + update) - weight

    @torch.no_grad()
    def merge(self) -> None:
        """Merge as LoRALinear does, and keep m / ‖W + s·B·A‖, which cannot be read from the merged weight."""
        factor = (self.magnitude / self._norm(self.base_layer.weight.to(self.magnitude.dtype)))[:, None]
        super().merge()
        self._factor = factor


def require_floats(weight: Tensor, title: str) -> None:
    """Raise a LabError if the weight is quantized."""
    if not weight.is_floating_point():
        raise LabError(f"{title} computes with the base's weight itself, and this one is quantized ({weight.dtype}). "
                       "Load the model with quantization='none'.")
