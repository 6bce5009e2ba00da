"""Mixtures of experts from their configurations: several MLPs in each layer, a few of which are read per token."""

from types import MappingProxyType

from ..errors import LabError, shown


def _experts(keys) -> dict:
    """The fields of attention and experts that these configurations share."""
    found = keys.common(False)
    heads = found["heads"]
    step, dense = keys.size("decoder_sparse_step", 1), keys.data.get("mlp_only_layers") or []
    if step != 1 or dense:
        what = f"decoder_sparse_step={step}" if step != 1 else f"mlp_only_layers={shown(dense)}"
        raise LabError(f"{keys.where}: {what}: layers without experts between the others are not counted here.")
    count = keys.size_of("num_local_experts", "num_experts")
    return {**found, "kv_heads": keys.size("num_key_value_heads", heads), "experts": count}


def _mixtral(keys) -> dict:
    found = _experts(keys)
    return {"family": "mixtral", **found, "head_size": keys.head_size(found["hidden"], found["heads"], "head_dim")}


def _olmoe(keys) -> dict:
    return {**_mixtral(keys), "query_key_norms": "width", **_biases(keys, False)}


def _qwen3_moe(keys) -> dict:
    found = {**_experts(keys), "intermediate": keys.size("moe_intermediate_size"), "head_size": keys.size("head_dim")}
    return {"family": "mixtral", **found, "query_key_norms": "head", **_biases(keys, False)}


def _qwen2_moe(keys) -> dict:
    found = {**_experts(keys), "intermediate": keys.size("moe_intermediate_size")}
    return {
        "family": "qwen2_moe", **found, "head_size": keys.head_size(found["hidden"], found["heads"]),
        "shared_intermediate": keys.size("shared_expert_intermediate_size"),
    }  # fmt: skip


def _gpt_oss(keys) -> dict:
    return {"family": "gpt_oss", **_experts(keys), "head_size": keys.size("head_dim", 64), **_biases(keys, True)}


def _biases(keys, usual: bool) -> dict:
    """Biases of all four matrices of attention."""
    bias = keys.flag("attention_bias", usual)
    return {"attention_bias": bias, "output_bias": bias}


EXPERT_TYPES = MappingProxyType(
    {"mixtral": _mixtral, "olmoe": _olmoe, "qwen2_moe": _qwen2_moe, "qwen3_moe": _qwen3_moe, "gpt_oss": _gpt_oss}
)
