"""VeRA: all layers share one random A and B, which stay frozen; each layer trains two vectors."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LabError
from ..lora import LoRALinear
from ..lora.layers import in_dtype_of_base


class SharedMatrices(nn.Module):
    """Random A (rank, in) and B (out, rank) for layers up to that size, frozen; the same seed gives the same matrices.

    Both are Kaiming-uniform, drawn one after the other from one generator as peft does, and rounded to the dtype of
    `weight`, on its device. They are buffers and not part of the state dict: the seed is enough to draw them again.
    """

    def __init__(self, n_out: int, n_in: int, rank: int, weight: Tensor, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in (("A", (rank, n_in)), ("B", (n_out, rank))):
            bound = math.sqrt(3) * (math.sqrt(2) / math.sqrt(shape[1]))
            matrix = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, in_dtype_of_base(matrix, weight), persistent=False)


class VeRALinear(LoRALinear):
    """Two trained vectors around two shared random matrices: y = W·x + b ⊙ (B·(d ⊙ (A·x))).

    Rule: W + Λ_b·B·Λ_d·A; A and B are random, frozen and shared by all layers of a model (a smaller layer takes their
    first columns or rows). d starts at `d_initial`, b at zero, so the base model is unchanged at the start.
    Trains: b and d, out + rank numbers, which allows large ranks: the paper takes 256 and more.
    Saves: trained parameters, their gradients and optimizer states, and file size. Not time: every layer still
    multiplies by A and B.

    Parameters
    ----------
    base_layer, rank, dropout : as for LoRALinear, but the layer does not limit the rank
    alpha : float > 0, without effect: VeRA has no scaling, `.scaling` is 1
    shared : SharedMatrices, at least as large as the layer and of this rank; default: drawn for this layer, by `seed`
    seed : int, of the shared matrices
    d_initial : float, start of d

    Attributes
    ----------
    lambda_b : Parameter (out,); lambda_d : Parameter (rank,)
    lora_A, lora_B : Tensor (rank, in) and (out, rank), this layer's part of the shared matrices

    Source: Kopiczko et al. 2023 (VeRA). https://arxiv.org/abs/2310.11454

    >>> layer = VeRALinear(nn.Linear(8, 4), rank=256, alpha=1)
    >>> layer.lambda_b.numel() + layer.lambda_d.numel()  # 4 + 256; LoRA of rank 4 trains 4 · (8 + 4) = 48
    260
    """

    SAVED = {"vera_lambda_b": "lambda_b", "vera_lambda_d": "lambda_d"}
    TRAINED = ("lambda_b", "lambda_d")
    PLAIN = RANK_LIMITED = False

    def __init__(
        self, base_layer, rank, alpha, dropout=0.0, use_rslora=False, *, shared: SharedMatrices | None = None,
        seed: int = 0, d_initial: float = 0.1,
    ):  # fmt: skip
        self._start = shared, seed, d_initial  # for add_parameters; nn.Module cannot hold modules yet
        super().__init__(base_layer, rank, alpha, dropout, use_rslora)
        if use_rslora:
            raise LabError("use_rslora=True: VeRA has no scaling by the rank. Leave it out.")
        self.scaling = 1.0

    def add_parameters(self) -> None:
        n_out, n_in = self.sizes(self.base_layer)
        shared, seed, d_initial = self.__dict__.pop("_start")
        self.shared = shared or SharedMatrices(n_out, n_in, self.rank, self.base_layer.weight, seed)
        if self.shared.A.shape[0] != self.rank or self.shared.A.shape[1] < n_in or self.shared.B.shape[0] < n_out:
            raise LabError(
                f"The shared matrices {tuple(self.shared.B.shape)} and {tuple(self.shared.A.shape)} do not fit rank "
                f"{self.rank} and a layer of {n_out}×{n_in}: make them as large as the largest layer."
            )
        place = {"device": self.shared.A.device, "dtype": self.shared.A.dtype}
        self.lambda_b = nn.Parameter(torch.zeros(n_out, **place))
        self.lambda_d = nn.Parameter(torch.full((self.rank,), d_initial, **place))

    @property
    def lora_A(self) -> Tensor:
        """(rank, in)"""
        return self.shared.A[:, : self.base_layer.in_features]

    @property
    def lora_B(self) -> Tensor:
        """(out, rank)"""
        return self.shared.B[: self.base_layer.out_features]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)"""
        result = self.base_layer(x)
        if self.merged:
            return self._merged_result(result)
        inner = self.lambda_d * F.linear(self.dropout(x.to(self.lambda_d.dtype)), self.lora_A)
        return (result + self.lambda_b * F.linear(inner, self.lora_B)).to(result.dtype)

    def delta_weight(self) -> Tensor:
        """ΔW = Λ_b·B·Λ_d·A, (out, in)."""
        return (self.lambda_b[:, None] * self.lora_B) @ (self.lambda_d[:, None] * self.lora_A)
