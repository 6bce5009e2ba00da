"""How each model_type of transformers names the shape of a model in its configuration."""

from collections.abc import Callable
from types import MappingProxyType

from ..errors import LabError, flag, shown, whole
from .architectures import head_biases

_REQUIRED = object()


class Keys:
    """A configuration's values, checked as they are read."""

    def __init__(self, data: dict, where: str):
        self.data, self.where = data, where

    def _value(self, key: str, default: object) -> object:
        value = self.data.get(key)
        if value is None:
            if default is _REQUIRED:
                raise LabError(f"{self.where}: the key {key} is missing.")
            return default
        return value

    def size(self, key: str, default: object = _REQUIRED, least: int = 1) -> int:
        """A whole number of `least` or more."""
        return whole(f"{self.where}: {key}", self._value(key, default), least)

    def size_of(self, *keys: str) -> int:
        """The whole number under the first of these keys that is there; the last is the family's own."""
        return self.size(next((key for key in keys if self.data.get(key) is not None), keys[-1]))

    def flag(self, key: str, default: bool) -> bool:
        """True or False."""
        return flag(f"{self.where}: {key}", self._value(key, default))

    def head_size(self, hidden: int, heads: int, key: str = "") -> int:
        """The heads' width: that of `key`, if there may be one, or else what divides the model's."""
        if key and self.data.get(key) is not None:
            return self.size(key)
        if hidden % heads:
            otherwise = f", and {key} is missing" if key else ""
            raise LabError(f"{self.where}: {heads} heads do not divide the width {hidden}{otherwise}.")
        return hidden // heads

    def common(self, tied: bool) -> dict:
        """The fields that nearly all configurations name alike; `tied` is transformers' default."""
        return {
            "hidden": self.size("hidden_size"),
            "heads": self.size("num_attention_heads"),
            "n_layers": self.size("num_hidden_layers"),
            "intermediate": self.size("intermediate_size"),
            "vocabulary": self.size("vocab_size"),
            "tied": self.flag("tie_word_embeddings", tied),
        }


def _like_llama(
    family: str, tied: bool, biases: str = "", kv_heads: bool = True, head_dim: bool = False, **fields
) -> Callable[[Keys], dict]:
    """A reader of configurations with Llama's keys.

    `biases` are the keys that it heeds: "attention" (of all four matrices), "mlp". `kv_heads`: the key must be there,
    else as many as heads is meant. `head_dim` likewise.
    """

    def read(keys: Keys) -> dict:
        found = keys.common(tied)
        heads = found["heads"]
        if "attention" in biases:
            found["attention_bias"] = found["output_bias"] = keys.flag("attention_bias", False)
        if "mlp" in biases:
            found["mlp_bias"] = keys.flag("mlp_bias", False)
        found["kv_heads"] = keys.size("num_key_value_heads", _REQUIRED if kv_heads else heads)
        found["head_size"] = keys.size("head_dim") if head_dim else keys.head_size(found["hidden"], heads, "head_dim")
        return {"family": family, **found, **fields}

    return read


def _cohere(keys: Keys) -> dict:
    """One norm in each layer, before attention and MLP, which are beside each other."""
    norms = "width" if keys.flag("use_qk_norm", False) else "none"
    return _like_llama("llama", True, "attention", False, norms_per_layer=1, query_key_norms=norms)(keys)


def _gpt2(keys: Keys) -> dict:
    """The usual names of four keys are read too and, as in transformers, come before GPT-2's own."""
    hidden, heads = keys.size_of("hidden_size", "n_embd"), keys.size_of("num_attention_heads", "n_head")
    return {
        "family": "gpt2", "hidden": hidden, "n_layers": keys.size_of("num_hidden_layers", "n_layer"),
        "heads": heads, "kv_heads": heads, "head_size": keys.head_size(hidden, heads),
        "intermediate": keys.size("n_inner", 4 * hidden),
        "vocabulary": keys.size("vocab_size"), "tied": keys.flag("tie_word_embeddings", True),
        "positions": keys.size_of("max_position_embeddings", "n_positions"),
    }  # fmt: skip


def _gpt_neox(keys: Keys) -> dict:
    found, bias = keys.common(False), keys.flag("attention_bias", True)
    head_size = keys.head_size(found["hidden"], found["heads"])
    return {
        "family": "gpt_neox", **found, "kv_heads": found["heads"], "head_size": head_size,
        "attention_bias": bias, "output_bias": bias,
    }  # fmt: skip


def _falcon(keys: Keys) -> dict:
    """Old: one key and value head, or as many as heads; one norm in each layer, or two. New: groups, and a choice.

    Falcon's own keys alone count for the width of the MLP, and `n_embed` comes before `hidden_size`.
    """
    hidden = keys.size_of("n_embed", "hidden_size")
    own = {"hidden_size": hidden, "intermediate_size": keys.size("ffn_hidden_size", 4 * hidden)}
    found = Keys({**keys.data, **own}, keys.where).common(True)
    new, bias = keys.flag("new_decoder_architecture", False), keys.flag("bias", False)
    heads = found["heads"]
    if new or not keys.flag("multi_query", True):
        found["kv_heads"] = keys.size("num_kv_heads", heads)
        if not new and found["kv_heads"] != heads:
            raise LabError(f"{keys.where}: num_kv_heads={found['kv_heads']}, but without multi_query it is {heads}.")
    else:
        found["kv_heads"] = 1
    norms = 2
    if keys.flag("parallel_attn", True):
        norms = 2 if keys.size("num_ln_in_parallel_attn", 2 if new else 1) == 2 else 1
    return {
        "family": "falcon", **found, "head_size": keys.head_size(hidden, heads), "norms_per_layer": norms,
        "attention_bias": bias, "output_bias": bias, "mlp_bias": bias,
    }  # fmt: skip


def _roberta(keys: Keys) -> dict:
    found = keys.common(True)
    hidden = found["hidden"]
    types = keys.size("type_vocab_size", 2, 0)
    return {
        "family": "roberta", **found, "kv_heads": found["heads"],
        "head_size": keys.head_size(hidden, found["heads"]),
        "positions": keys.size("max_position_embeddings"),
        "outside": 2 * 2 * hidden + types * hidden + head_biases(found["vocabulary"], found["tied"]),  # two norms
    }  # fmt: skip


def _deberta(keys: Keys) -> dict:
    """Positions are added to the embedding, or are the distances between tokens, or both."""
    found = keys.common(True)
    hidden, heads = found["hidden"], found["heads"]
    relative, longest = keys.flag("relative_attention", False), keys.size("max_position_embeddings", 512)
    if relative and not keys.flag("share_att_key", False) and keys.data.get("pos_att_type"):
        raise LabError(f"{keys.where}: share_att_key=False has matrices for positions that are not counted here.")
    for key, usual in (("embedding_size", hidden), ("attention_head_size", hidden // heads), ("legacy", True)):
        if keys.data.get(key, usual) != usual:
            raise LabError(f"{keys.where}: {key}={shown(keys.data[key])} is not counted here, only {usual}.")
    positions, norms, conv = 0, 2, 0  # norms of embedding and head
    if keys.flag("position_biased_input", True):
        positions += longest
    if relative:
        sizes = (keys.size("position_buckets", -1, -1), keys.size("max_relative_positions", longest, -1), longest)
        positions += 2 * next(size for size in sizes if size > 0)  # the first that is set
    norms += "layer_norm" in str(keys.data.get("norm_rel_ebd", "none")).lower()
    kernel = keys.size("conv_kernel_size", 0, 0)
    if kernel:
        norms, conv = norms + 1, kernel * hidden * hidden // keys.size("conv_groups", 1) + hidden
    types = keys.size("type_vocab_size", 0, 0)
    return {
        "family": "deberta-v2", **found, "kv_heads": heads, "head_size": keys.head_size(hidden, heads),
        "positions": positions, "outside": norms * 2 * hidden + types * hidden + conv
        + head_biases(found["vocabulary"], found["tied"]),
    }  # fmt: skip
MODEL_TYPES = MappingProxyType(
    {
        "llama": _like_llama("llama", False, "attention mlp", kv_heads=False),
        "mistral": _like_llama("llama", False),
        "granite": _like_llama("llama", False, "attention mlp", kv_heads=False),
        "smollm3": _like_llama("llama", True, "attention mlp"),
        "cohere": _cohere,
        "olmo": _like_llama("llama", False, "attention", kv_heads=False, norms_per_layer=0, outside=0),
        "olmo2": _like_llama("llama", False, "attention", kv_heads=False, query_key_norms="width"),
        "qwen2": _like_llama("qwen2", False),
        "qwen3": _like_llama("qwen3", False, "attention", head_dim=True),
        "gemma": _like_llama("gemma", True, "attention", head_dim=True),
        "gemma2": _like_llama("gemma2", True, "attention", head_dim=True),
        "gemma3_text": _like_llama("gemma3", True, "attention", head_dim=True),
        "phi3": _like_llama("phi3", False, kv_heads=False),
        "gpt2": _gpt2,
        "gpt_neox": _gpt_neox,
        "falcon": _falcon,
        "roberta": _roberta,
        "deberta-v2": _deberta,
    }
)
