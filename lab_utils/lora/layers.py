"""LoRA layers written to be read: y = W·x + scaling·B·(A·x), with W frozen and only A and B trained.

The numbers are those of peft 0.21.2, bit for bit: forward, gradients, initial values, merged weights. Read LoRALinear
first; a Conv1D differs in the orientation of its weight, an embedding looks rows up where a linear layer multiplies.

Source: Hu et al. 2021 (LoRA), section 4. https://arxiv.org/abs/2106.09685
"""

import math
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LabError, shown
from ..finite import nonfinite_in_words


class _Merged(torch.autograd.Function):
    """Passes a merged layer's result on, and refuses the backward pass, in which A and B would get no gradient."""

    @staticmethod
    def forward(ctx, result, *trained):
        return result.clone()  # a view would forbid the model's next in-place operation

    @staticmethod
    def backward(ctx, grad):
        raise LabError(
            "A backward pass through a merged layer: A and B would learn nothing, because the layer computes with its "
            "merged weight only. Unmerge first, or freeze the adapter if you want other gradients."
        )


class LoRALinear(nn.Module):
    """A frozen nn.Linear with a low-rank update beside it: y = W·x + b + scaling·B·(A·dropout(x)).

    Parameters
    ----------
    base_layer : nn.Linear, out × in; it is kept as `.base_layer` and frozen. A 4-bit one works, but cannot be merged.
    rank : int, 1 to min(out, in)
    alpha : float > 0; `.scaling` is alpha / rank
    dropout : float in [0, 1), share of the entries of the adapter's input that training sets to zero
    use_rslora : bool, scale by alpha / sqrt(rank) instead

    Attributes
    ----------
    lora_A : Parameter, shape (rank, in), Kaiming-uniform (a = √5) at the start
    lora_B : Parameter, shape (out, rank), zero at the start
    scaling : float
    merged : bool, whether the base layer's weight holds the update now; only `merge` and `unmerge` change that

    Beside a base in 16 bits A and B are float32, as in peft: the adapter's input is cast to float32, the update is
    added in float32, and the sum is cast back to the base's dtype.

    Raises
    ------
    LabError
        The base layer is of another kind, or a value is out of its range.

    Source: Hu et al. 2021, section 4.1; rsLoRA: Kalajdzievski 2023. https://arxiv.org/abs/2312.03732

    >>> linear = nn.Linear(2, 2, bias=False)
    >>> linear.weight.data = torch.eye(2)
    >>> layer = LoRALinear(linear, rank=1, alpha=2)  # scaling 2 / 1
    >>> layer.lora_A.data, layer.lora_B.data = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0], [0.0]])
    >>> layer(torch.tensor([1.0, 10.0])).tolist()  # W·x = (1, 10); 2 · B·(A·x) = 2 · (3, 0) · 10
    [61.0, 10.0]
    >>> layer.delta_weight().tolist()  # 2 · B·A
    [[0.0, 6.0], [0.0, 0.0]]
    """

    SAVED = {"lora_A.weight": "lora_A", "lora_B.weight": "lora_B"}  # peft's name in a file -> the attribute
    TRAINED = ("lora_A", "lora_B")
    PLAIN = True  # A, B and the scaling say all that the layer does
    RANK_LIMITED = True  # by the layer's smaller side

    def __init__(
        self, base_layer: nn.Module, rank: int, alpha: float, dropout: float = 0.0, use_rslora: bool = False
    ):  # fmt: skip
        super().__init__()
        check_settings(rank, alpha, dropout, use_rslora)
        check_layer(type(self), base_layer, rank)
        self.base_layer = base_layer.requires_grad_(False)
        self.rank, self.alpha, self.use_rslora = rank, alpha, use_rslora
        self.scaling = alpha / (math.sqrt(rank) if use_rslora else rank)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.add_parameters()
        self.merged = False

    def add_parameters(self) -> None:
        """Make what the layer has beside its base."""
        weight = self.base_layer.weight
        self.lora_A, self.lora_B = (
            nn.Parameter(in_dtype_of_base(matrix, weight)) for matrix in self.new_matrices(*self.sizes(self.base_layer))
        )

    @staticmethod
    def sizes(base_layer: nn.Module) -> tuple[int, int] | None:
        """(out, in) of a layer of the right kind, None for any other."""
        return (base_layer.out_features, base_layer.in_features) if isinstance(base_layer, nn.Linear) else None

    def new_matrices(self, n_out: int, n_in: int) -> tuple[Tensor, Tensor]:
        """A (rank, in) Kaiming-uniform, B (out, rank) zero. The same seed gives the same A as in peft."""
        A = nn.Linear(n_in, self.rank, bias=False).weight.data
        B = nn.Linear(self.rank, n_out, bias=False).weight.data  # peft draws numbers for B too, and A a second time
        return nn.init.kaiming_uniform_(A, a=math.sqrt(5)), B.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out); once merged, the base layer alone."""
        result = self.base_layer(x)
        if self.merged:
            return self._merged_result(result)
        x = self.dropout(x.to(self.lora_A.dtype))
        update = F.linear(F.linear(x, self.lora_A), self.lora_B) * self.scaling
        return (result + update).to(result.dtype)

    def _merged_result(self, result: Tensor) -> Tensor:
        """`result` as it is, with a guard against training."""
        trained = [getattr(self, name) for name in self.TRAINED]
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in trained):
            return _Merged.apply(result, *trained)
        return result

    def delta_weight(self) -> Tensor:
        """ΔW = scaling·B·A in the shape of the base layer's weight; float32, or float64 beside a float64 base."""
        return (self.lora_B @ self.lora_A) * self.scaling

    @torch.no_grad()
    def merge(self) -> None:
        """Add ΔW to the base layer's weight, in place and in its dtype. A second time is an error.

        Raises
        ------
        LabError
            Merged already; the base is quantized; or the sum is not finite. The weight is unchanged then.
        """
        if self.merged:
            raise LabError("This layer is merged already: a second time would add ΔW twice. `unmerge` comes first.")
        self.base_layer.weight.copy_(self.merged_weight())
        self.merged = True

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """W + ΔW in the dtype of W, a new tensor. Raises what `merge` raises."""
        weight = self.base_layer.weight
        if not weight.is_floating_point():
            raise LabError(
                f"The base weight is quantized ({weight.dtype}): rounding it again would lose most of ΔW. "
                "Merge into a dequantized copy or into the original weights."
            )
        total = (weight + self.delta_weight()).to(weight.dtype)
        problem = nonfinite_in_words("W + ΔW", total)
        if problem:
            raise LabError(f"Not merged, W + ΔW is not finite: {self._culprit() or problem}.")
        return total

    def _culprit(self) -> str:
        """Which matrix makes the merged weight NaN or infinite, where, and whose fault that is."""
        weight = self.base_layer.weight
        trained = {name: getattr(self, name) for name in self.TRAINED}
        for name, matrix, whose in (
            ("the base's weight", weight, "load the base again, the adapter is not to blame"),
            *((name, matrix, "the adapter is to blame, not the base") for name, matrix in trained.items()),
        ):  # fmt: skip
            problem = nonfinite_in_words(name, matrix)
            if problem:
                return f"{problem}; {whose}"
        problem = nonfinite_in_words("ΔW = scaling·B·A", self.delta_weight())
        if problem:
            return f"{problem}, for A and B are that large; the adapter is to blame, not the base"
        dtype, largest = str(weight.dtype).removeprefix("torch."), torch.finfo(weight.dtype).max
        return f"the sum does not fit {dtype}, which ends at {largest:g}; use a wider dtype"

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract ΔW again, as peft does: no copy of W is kept, so W comes back up to rounding in its dtype.

        Raises
        ------
        LabError
            The layer is not merged.
        """
        if not self.merged:
            raise LabError("This layer is not merged: there is nothing to subtract.")
        self.base_layer.weight -= self.delta_weight().to(self.base_layer.weight.dtype)
        self.merged = False

    def release(self) -> nn.Module:
        """The base layer, to be put back in this one's place. What is merged stays in its weight."""
        return self.base_layer

    def extra_repr(self) -> str:
        """What `print(model)` shows beside the class."""
        return f"rank={self.rank}, alpha={self.alpha:g}, scaling={self.scaling:g}, merged={self.merged}"


class LoRAConv1D(LoRALinear):
    """LoRA on transformers' Conv1D (GPT-2): a linear layer whose weight is stored as (in, out). See LoRALinear."""

    @staticmethod
    def sizes(base_layer: nn.Module) -> tuple[int, int] | None:
        is_conv1d = type(base_layer).__name__ == "Conv1D" and hasattr(base_layer, "nf")
        return tuple(base_layer.weight.shape[::-1]) if is_conv1d else None

    def delta_weight(self) -> Tensor:
        return (self.lora_B @ self.lora_A).T * self.scaling


class LoRAEmbedding(LoRALinear):
    """LoRA on nn.Embedding: row i of the table W gets scaling·B·A[:, i] added. See LoRALinear for the parameters.

    At the start A (rank, entries) is zero and B (dimension, rank) normal: the other way round than beside a linear
    layer. `dropout` does nothing here, as in peft: there are no activations to drop entries of. Merging into a 16-bit
    table rounds once; peft rounds ΔW first and then the sum.
    """

    SAVED = {"lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}

    @staticmethod
    def sizes(base_layer: nn.Module) -> tuple[int, int] | None:
        is_embedding = isinstance(base_layer, nn.Embedding)
        return (base_layer.embedding_dim, base_layer.num_embeddings) if is_embedding else None

    def new_matrices(self, n_out: int, n_in: int) -> tuple[Tensor, Tensor]:
        A, B = torch.randn(self.rank, n_in), torch.randn(n_out, self.rank)  # peft draws both, and B a second time
        return A.zero_(), nn.init.normal_(B)

    def forward(self, x: Tensor) -> Tensor:
        """x int64 (...) -> (..., dimension)."""
        base, result = self.base_layer, self.base_layer(x)
        if self.merged:
            return self._merged_result(result)
        rows = F.embedding(
            x, self.lora_A.T, base.padding_idx, base.max_norm, base.norm_type, base.scale_grad_by_freq, base.sparse
        )
        update = (rows @ self.lora_B.T) * self.scaling
        if hasattr(base, "embed_scale"):  # Gemma multiplies what it looks up
            update = update * torch.as_tensor(base.embed_scale, dtype=base.weight.dtype).to(update.dtype)
        return (result + update).to(result.dtype)

    def delta_weight(self) -> Tensor:
        return (self.lora_B @ self.lora_A).T * self.scaling


KINDS = (LoRALinear, LoRAConv1D, LoRAEmbedding)


def in_dtype_of_base(matrix: Tensor, weight: Tensor) -> Tensor:
    """On the base's device. As peft: rounded to the base's dtype, and kept in float32 if that has 16 bits."""
    dtype = weight.dtype if weight.is_floating_point() else matrix.dtype
    matrix = matrix.to(weight.device, dtype)
    return matrix if dtype == torch.float64 else matrix.float()


def check_settings(rank: int, alpha: float, dropout: float, use_rslora: bool) -> None:
    """Raise a LabError that names the value which no layer could take."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise LabError(f"rank={shown(rank)} is out of range: a whole number from 1.")
    for name, value, low in (("alpha", alpha, "above 0"), ("dropout", dropout, "from 0 up to, not including, 1")):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (0 < value <= sys.float_info.max if name == "alpha" else 0 <= value < 1):
            raise LabError(f"{name}={shown(value)} is out of range: a number {low}.")
    if not isinstance(use_rslora, bool):
        raise LabError(f"use_rslora={use_rslora!r} is out of range: True or False.")


def check_layer(kind: type[LoRALinear], base_layer: nn.Module, rank: int, name: str = "") -> None:
    """Raise a LabError if `kind` cannot adapt `base_layer`, or not with this rank."""
    sizes = kind.sizes(base_layer) if isinstance(base_layer, nn.Module) else None
    if sizes is None:
        raise LabError(f"{kind.__name__} cannot adapt a {type(base_layer).__name__}. {SUPPORTED}")
    if kind.RANK_LIMITED and rank > min(sizes):
        raise LabError(
            f"rank={rank} is larger than {f'layer {name}' if name else 'this layer'} ({sizes[0]}×{sizes[1]}) allows: "
            f"a product B·A of that shape has rank {min(sizes)} at most. Choose rank 1 to {min(sizes)}."
        )


SUPPORTED = "There are LoRALinear for nn.Linear, LoRAConv1D for transformers' Conv1D, LoRAEmbedding for nn.Embedding."


def kind_for(layer: nn.Module) -> type[LoRALinear] | None:
    """The class that adapts `layer`, or None."""
    return next((kind for kind in KINDS if kind.sizes(layer) is not None), None)
