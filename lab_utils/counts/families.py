"""How families of models name their linear layers, and what a model of the family has unless it says otherwise.

A family name alone promises little: Falcon-7B has one norm in each layer and Falcon-40B has two; a Llama may have
biases. So every default here can be overruled, see `lab_utils.counts.architectures.Architecture`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .architectures import Architecture

QUERY_KEY_NORMS = ("none", "head", "width")


@dataclass(frozen=True)
class Linear:
    """One linear layer: a matrix (out_features, in_features), where it sits, and whether it has a bias.

    `group` is "attention", "mlp", "router", "experts", or "head" for one that occurs once, at the model's end. `qv`
    marks the layers that make queries or values; where query, key and value are one fused matrix it marks that one.
    `copies` is how many there are in each layer: one for each expert. `ranks`: peft adapts this matrix as two, gate and
    up, each of the rank. `plain` is False for what peft's "all-linear" leaves out: no nn.Linear, but one tensor.
    """

    out_features: int
    in_features: int
    group: str
    bias: bool = False
    qv: bool = False
    copies: int = 1
    ranks: int = 1
    plain: bool = True


@dataclass(frozen=True)
class Family:
    """What models of a family have, unless an Architecture says otherwise; the names are those of its fields.

    `square`: heads × head size is the width. `grouped`: there may be fewer key and value heads than query heads.
    """

    linears: Callable[["Architecture"], dict[str, Linear]]
    norms_per_layer: int = 2
    norm_bias: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_key_norms: str = "none"
    square: bool = False
    grouped: bool = True


def _llama(a: "Architecture") -> dict[str, Linear]:
    """Separate matrices, a gated MLP."""
    queries, keys = a.heads * a.head_size, a.kv_heads * a.head_size
    bias, mlp = a.has("attention_bias"), a.has("mlp_bias")
    return {
        "q_proj": Linear(queries, a.hidden, "attention", bias, qv=True),
        "k_proj": Linear(keys, a.hidden, "attention", bias),
        "v_proj": Linear(keys, a.hidden, "attention", bias, qv=True),
        "o_proj": Linear(a.hidden, queries, "attention", a.has("output_bias")),
        "gate_proj": Linear(a.intermediate, a.hidden, "mlp", mlp),
        "up_proj": Linear(a.intermediate, a.hidden, "mlp", mlp),
        "down_proj": Linear(a.hidden, a.intermediate, "mlp", mlp),
    }


def _attention(a: "Architecture") -> dict[str, Linear]:
    """The four matrices of attention, as in `_llama`."""
    return {name: linear for name, linear in _llama(a).items() if linear.group == "attention"}


def _mixtral(a: "Architecture") -> dict[str, Linear]:
    """Experts instead of the MLP, and a router that chooses among them: peft's all-linear adapts every one."""
    return {
        **_attention(a),
        "gate": Linear(a.experts, a.hidden, "router"),
        "experts.gate_up_proj": Linear(2 * a.intermediate, a.hidden, "experts", copies=a.experts, ranks=2),
        "experts.down_proj": Linear(a.hidden, a.intermediate, "experts", copies=a.experts),
    }


def _fused_experts(a: "Architecture", router: str, bias: bool) -> dict[str, Linear]:
    """A router and experts that peft's all-linear leaves out; its target_parameters reaches the experts."""
    fused = {"bias": bias, "plain": False}
    return {
        router: Linear(a.experts, a.hidden, "router", **fused),
        "experts.gate_up_proj": Linear(2 * a.intermediate, a.hidden, "experts", copies=a.experts, **fused),
        "experts.down_proj": Linear(a.hidden, a.intermediate, "experts", copies=a.experts, **fused),
    }


def _qwen2_moe(a: "Architecture") -> dict[str, Linear]:
    """One expert more, shared by all tokens, with its own gate."""
    shared = a.shared_intermediate
    return {
        **_attention(a),
        "shared_expert.gate_proj": Linear(shared, a.hidden, "mlp"),
        "shared_expert.up_proj": Linear(shared, a.hidden, "mlp"),
        "shared_expert.down_proj": Linear(a.hidden, shared, "mlp"),
        "shared_expert_gate": Linear(1, a.hidden, "mlp"),
        **_fused_experts(a, "gate", bias=False),
    }


def _gpt_oss(a: "Architecture") -> dict[str, Linear]:
    """Biases everywhere, and a number for each head that attention may rest on."""
    return {**_attention(a), **_fused_experts(a, "router", bias=True)}


def _phi3(a: "Architecture") -> dict[str, Linear]:
    """Query, key and value in one matrix, and both branches of the gated MLP in one."""
    queries, keys, mlp = a.heads * a.head_size, a.kv_heads * a.head_size, a.has("mlp_bias")
    return {
        "qkv_proj": Linear(queries + 2 * keys, a.hidden, "attention", a.has("attention_bias"), qv=True),
        "o_proj": Linear(a.hidden, queries, "attention", a.has("output_bias")),
        "gate_up_proj": Linear(2 * a.intermediate, a.hidden, "mlp", mlp),
        "down_proj": Linear(a.hidden, a.intermediate, "mlp", mlp),
    }


def _gpt2(a: "Architecture") -> dict[str, Linear]:
    """Query, key and value in one matrix."""
    mlp = a.has("mlp_bias")
    return {
        "c_attn": Linear(3 * a.hidden, a.hidden, "attention", a.has("attention_bias"), qv=True),
        "attn.c_proj": Linear(a.hidden, a.hidden, "attention", a.has("output_bias")),
        "c_fc": Linear(a.intermediate, a.hidden, "mlp", mlp),
        "mlp.c_proj": Linear(a.hidden, a.intermediate, "mlp", mlp),
    }


def _gpt3(a: "Architecture") -> dict[str, Linear]:
    """As GPT-2, with query, key and value apart."""
    bias, output, mlp = a.has("attention_bias"), a.has("output_bias"), a.has("mlp_bias")
    attention = {
        name: Linear(a.hidden, a.hidden, "attention", has, qv=name in ("q_proj", "v_proj"))
        for name, has in (("q_proj", bias), ("k_proj", bias), ("v_proj", bias), ("o_proj", output))
    }
    return {
        **attention,
        "c_fc": Linear(a.intermediate, a.hidden, "mlp", mlp),
        "c_proj": Linear(a.hidden, a.intermediate, "mlp", mlp),
    }


def _falcon(a: "Architecture") -> dict[str, Linear]:
    """Query, key and value in one matrix; no gate."""
    queries, mlp = a.heads * a.head_size, a.has("mlp_bias")
    fused = queries + 2 * a.kv_heads * a.head_size
    return {
        "query_key_value": Linear(fused, a.hidden, "attention", a.has("attention_bias"), qv=True),
        "dense": Linear(a.hidden, queries, "attention", a.has("output_bias")),
        "dense_h_to_4h": Linear(a.intermediate, a.hidden, "mlp", mlp),
        "dense_4h_to_h": Linear(a.hidden, a.intermediate, "mlp", mlp),
    }


def _encoder(query: str, key: str, value: str, head: str) -> Callable[["Architecture"], dict[str, Linear]]:
    """An encoder with the dense layer of its masked-language-model head, under the family's names."""

    def linears(a: "Architecture") -> dict[str, Linear]:
        bias, mlp = a.has("attention_bias"), a.has("mlp_bias")
        return {
            query: Linear(a.hidden, a.hidden, "attention", bias, qv=True),
            key: Linear(a.hidden, a.hidden, "attention", bias),
            value: Linear(a.hidden, a.hidden, "attention", bias, qv=True),
            "attention.output.dense": Linear(a.hidden, a.hidden, "attention", a.has("output_bias")),
            "intermediate.dense": Linear(a.intermediate, a.hidden, "mlp", mlp),
            "output.dense": Linear(a.hidden, a.intermediate, "mlp", mlp),
            head: Linear(a.hidden, a.hidden, "head", True),
        }

    return linears


_BIASED = {"norm_bias": True, "attention_bias": True, "output_bias": True, "mlp_bias": True, "square": True}
_ROBERTA = _encoder("query", "key", "value", "lm_head.dense")
_DEBERTA = _encoder("query_proj", "key_proj", "value_proj", "transform.dense")
FAMILIES = MappingProxyType(
    {
        "llama": Family(_llama),
        "qwen2": Family(_llama, attention_bias=True),
        "qwen3": Family(_llama, query_key_norms="head"),
        "gemma": Family(_llama),
        "gemma2": Family(_llama, norms_per_layer=4),
        "gemma3": Family(_llama, norms_per_layer=4, query_key_norms="head"),
        "phi3": Family(_phi3),
        "mixtral": Family(_mixtral),
        "qwen2_moe": Family(_qwen2_moe, attention_bias=True),
        "gpt_oss": Family(_gpt_oss, attention_bias=True, output_bias=True),
        "gpt2": Family(_gpt2, grouped=False, **_BIASED),
        "gpt3": Family(_gpt3, grouped=False, **_BIASED),
        "gpt_neox": Family(_falcon, grouped=False, **_BIASED),
        "falcon": Family(_falcon, norm_bias=True, square=True),
        "roberta": Family(_ROBERTA, grouped=False, **_BIASED),
        "deberta-v2": Family(_DEBERTA, grouped=False, **_BIASED),
    }
)
