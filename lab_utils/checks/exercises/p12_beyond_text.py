"""Exercise of page 12: which modules of a model that sees get adapters, if only its language is to change."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def language_only_spec(names: list[str]) -> Tensor:
    """A module gets an adapter if it lies in the language model, and if it is one of a block's seven linear layers."""
    chosen = []
    for name in names:
        parts = name.split(".")
        in_language = "language_model" in parts
        linear = False
        for layer in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
            linear = linear or parts[-1] == layer
        chosen.append(in_language and linear)
    return torch.tensor(chosen)


def language_only(names: list[str]) -> Tensor:
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return torch.tensor(["language_model" in name and name.endswith(layers) for name in names])


def _chosen(rule):
    """language_only by another rule for one name."""
    return lambda names: torch.tensor([rule(name) for name in names])


def _language(name: str) -> bool:
    return "language_model" in name


def _right(name: str) -> bool:
    return _language(name) and name.endswith((*_ATTENTION, *_MLP))


def _linear(name: str) -> bool:
    return name.endswith((*_ATTENTION, *_MLP, "qkv", "attn.proj", "merger.mlp.0", "merger.mlp.2"))


_VISION_BLOCK = tuple(f"attn.{end}" for end in ("qkv", "proj")) + tuple(f"mlp.{end}" for end in _MLP)
_LANGUAGE_BLOCK = tuple(f"self_attn.{end}" for end in _ATTENTION) + tuple(f"mlp.{end}" for end in _MLP)
_OTHERS = (
    "lm_head", "model.language_model.embed_tokens", "model.language_model.norm",
    "model.language_model.layers.0.input_layernorm", "model.language_model.layers.1.mlp.act_fn",
    "model.visual.patch_embed.proj", "model.visual.blocks.0.norm1", "model.visual.merger.ln_q",
)  # fmt: skip
_MERGER = ("model.visual.merger.mlp.0", "model.visual.merger.mlp.2")
_FIRST = (
    "model.visual.blocks.0.attn.qkv", "model.visual.blocks.0.mlp.up_proj", "model.visual.merger.mlp.0",
    "model.language_model.embed_tokens", "model.language_model.layers.0.self_attn.q_proj",
    "model.language_model.layers.0.mlp.up_proj", "lm_head",
)  # fmt: skip


@st.composite
def _names(draw):
    """Module names of both towers, of the merger, and of what has no linear layer."""
    block = draw(st.sampled_from([0, 1, 17]))
    every = (
        *(f"model.visual.blocks.{block}.{end}" for end in _VISION_BLOCK),
        *(f"model.language_model.layers.{block}.{end}" for end in _LANGUAGE_BLOCK), *_MERGER, *_OTHERS,
    )  # fmt: skip
    return (draw(st.lists(st.sampled_from(every), min_size=1, max_size=8, unique=True)),)


EXERCISES = (
    Exercise(
        name="language_only", page=12, title="Adapters for the language alone",
        spec=language_only_spec, solution=language_only, inputs=_names(), demo=(list(_FIRST),),
        picture=lambda chosen: chosen.double(),
        mistakes=(
            Mistake(
                "the last part of the name alone",
                "gate_proj, up_proj and down_proj are in both towers. Look at where a module lies, too.",
                wrong=(
                    _chosen(lambda name: name.endswith((*_ATTENTION, *_MLP))),
                    _chosen(lambda name: name.endswith(_MLP)),
                ),
            ),
            Mistake(
                "everything that ends with proj",
                "In the vision tower, proj is its own layer, and the first one even a convolution.",
                wrong=(
                    _chosen(lambda name: name.endswith("proj")),
                    _chosen(lambda name: name.endswith((*_ATTENTION, *_MLP, ".proj"))),
                ),
            ),
            Mistake(
                "every linear layer",
                "That is all-linear: the vision tower and the merger get adapters as well.",
                wrong=(_chosen(_linear), _chosen(lambda name: _linear(name) or name == "lm_head")),
            ),
            Mistake(
                "everything outside the vision tower",
                "The head lies outside as well, and embedding and norms are not linear layers.",
                wrong=(_chosen(lambda name: "visual" not in name),),
            ),
            Mistake(
                "everything inside the language model",
                "Embedding, norms and activation functions are not linear layers.",
                wrong=(_chosen(_language), _chosen(lambda name: ".layers." in name)),
            ),
            Mistake(
                "attention alone",
                "It stays out of the vision tower, but most weights of the language model are in its MLPs.",
                wrong=(
                    _chosen(lambda name: name.endswith(_ATTENTION)),
                    _chosen(lambda name: name.endswith(("q_proj", "v_proj"))),
                ),
            ),
            Mistake(
                "the MLPs alone",
                "q, k, v and o are linear layers of the language model, too.",
                wrong=(_chosen(lambda name: _language(name) and name.endswith(_MLP)),),
            ),
            Mistake(
                "the merger, too",
                "The merger is the bridge between the towers. Its names begin with model.visual.",
                wrong=(_chosen(lambda name: _right(name) or name in _MERGER),),
            ),
            Mistake(
                "the head, too",
                "The head lies outside the blocks, and all-linear leaves it out as well.",
                wrong=(_chosen(lambda name: _right(name) or name == "lm_head"),),
            ),
            Mistake(
                "the other tower",
                "It is the vision tower that stays frozen.",
                wrong=(
                    _chosen(lambda name: "visual" in name),
                    _chosen(lambda name: "visual" in name and name.endswith((*_ATTENTION, *_MLP))),
                    _chosen(lambda name: "visual" in name and _linear(name)),
                ),
            ),
        ),
        hints=(
            "Two things about a name count: where the module lies, and what its last part is.",
            "Ask whether language_model is in the name, and whether the name ends with one of seven words.",
            "str.endswith takes a tuple: `language_model` in the name, and the name ends with q_proj, k_proj, v_proj, "
            "o_proj, gate_proj, up_proj or down_proj. One bool for each name, in a tensor.",
        ),
        reward="As a pattern for peft: one string that fits the whole name, .*language_model.*\\.(q_proj|…|down_proj).",
    ),
)  # fmt: skip
