"""LoRA and the variants that followed it, in the order of their papers."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from ..lora import LoRALinear
from .delta_lora import DeltaLoRALinear
from .dora import DoRALinear
from .lora_fa import LoRAFALinear
from .pissa import PiSSALinear
from .vera import VeRALinear


def rslora_layer(base_layer, rank, alpha, dropout=0.0, use_rslora=True) -> LoRALinear:
    """LoRALinear, scaled by alpha / √rank."""
    return LoRALinear(base_layer, rank, alpha, dropout, use_rslora)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a page can say about a variant.

    Attributes
    ----------
    title : str, as the paper writes it
    rule : str, the update rule
    trains : str, what an optimizer gets, per layer of out × in
    saves : str, compared with LoRA, and what it costs
    paper : str, its address
    published : str, year and month of the arXiv identifier, such as "2021-06"
    factory : class of its layers, or a function like it: (base_layer, rank, alpha, dropout=0.0, …) -> a layer. LoRA+
        differs from LoRA only in `optimizer_groups`.
    count : function (out, in, rank) -> trained numbers of a layer
    settings : names of the factory's further settings
    """

    title: str
    rule: str
    trains: str
    saves: str
    paper: str
    published: str
    factory: Callable[..., LoRALinear]
    count: Callable[[int, int, int], int]
    settings: tuple[str, ...] = ()


def both_matrices(n_out: int, n_in: int, rank: int) -> int:
    """Numbers in A and B."""
    return rank * (n_out + n_in)


A_AND_B = "A and B: r·(in + out)"
VARIANTS = MappingProxyType(
    {
        "lora": Variant(
            title="LoRA",
            rule="W' = W + (α/r)·B·A",
            trains=A_AND_B,
            saves="compared with full fine-tuning, gradients and optimizer states of W",
            paper="https://arxiv.org/abs/2106.09685",
            published="2021-06",
            factory=LoRALinear,
            count=both_matrices,
        ),
        "lora-fa": Variant(
            title="LoRA-FA",
            rule="W' = W + (α/r)·B·A, A as drawn",
            trains="B: r·out",
            saves="activations (A·x is kept and x is not), half of the optimizer states",
            paper="https://arxiv.org/abs/2308.03303",
            published="2023-08",
            factory=LoRAFALinear,
            count=lambda n_out, n_in, rank: rank * n_out,
            settings=("corrected",),
        ),
        "delta-lora": Variant(
            title="Delta-LoRA",
            rule="W' = W + (α/r)·B·A, and after each step W ← W + λ·(α/r)·(Bₜ₊₁·Aₜ₊₁ − Bₜ·Aₜ)",
            trains=f"{A_AND_B}; W moves without gradient",
            saves="nothing: each step costs more, and the result is a whole W, or two pairs of A and B",
            paper="https://arxiv.org/abs/2309.02411",
            published="2023-09",
            factory=DeltaLoRALinear,
            count=both_matrices,
            settings=("strength", "start_step"),
        ),
        "vera": Variant(
            title="VeRA",
            rule="W' = W + Λ_b·B·Λ_d·A, A and B random, frozen, shared by all layers",
            trains="b and d: out + r",
            saves="trained parameters, optimizer states, size of the file; no time",
            paper="https://arxiv.org/abs/2310.11454",
            published="2023-10",
            factory=VeRALinear,
            count=lambda n_out, n_in, rank: n_out + rank,
            settings=("seed", "d_initial"),
        ),
        "rslora": Variant(
            title="rsLoRA",
            rule="W' = W + (α/√r)·B·A",
            trains=A_AND_B,
            saves="nothing: another rule for how the size of the update depends on the rank",
            paper="https://arxiv.org/abs/2312.03732",
            published="2023-12",
            factory=rslora_layer,
            count=both_matrices,
        ),
        "dora": Variant(
            title="DoRA",
            rule="W' = m ⊙ (W + (α/r)·B·A) / ‖W + (α/r)·B·A‖, row by row",
            trains="A, B and m: r·(in + out) + out",
            saves="nothing: it costs time and activations",
            paper="https://arxiv.org/abs/2402.09353",
            published="2024-02",
            factory=DoRALinear,
            count=lambda n_out, n_in, rank: rank * (n_out + n_in) + n_out,
        ),
        "lora+": Variant(
            title="LoRA+",
            rule="W' = W + (α/r)·B·A, with η_B = λ·η_A",
            trains=A_AND_B,
            saves="nothing: it promises fewer steps",
            paper="https://arxiv.org/abs/2402.12354",
            published="2024-02",
            factory=LoRALinear,
            count=both_matrices,
        ),
        "pissa": Variant(
            title="PiSSA",
            rule="W' = W_res + (α/r)·B·A, where B·A starts as W's r largest singular directions",
            trains=A_AND_B,
            saves="nothing: it costs one SVD per layer at the start",
            paper="https://arxiv.org/abs/2404.02948",
            published="2024-04",
            factory=PiSSALinear,
            count=both_matrices,
            settings=("iterations",),
        ),
    }
)
