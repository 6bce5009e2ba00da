"""The sizes of a training step are the matrices', whatever a config calls them, or says."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lab_utils.finetune.adapter import attach_adapter
from lab_utils.finetune.model_sizes import model_record
from lab_utils.finetune.recipe import Recipe

SMALL = {"vocab_size": 61, "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4}
MIXED = {**SMALL, "intermediate_size": 160, "num_key_value_heads": 2, "head_dim": 16}
FAMILIES = {
    "llama": MIXED, "qwen2": MIXED, "qwen3": MIXED, "phi3": {**MIXED, "pad_token_id": 0}, "gemma2": MIXED,
    "granite": MIXED, "cohere": MIXED, "olmo2": MIXED, "mistral": MIXED,
    "gpt_neox": {**SMALL, "intermediate_size": 160},
    "gpt2": {"vocab_size": 61, "n_layer": 3, "n_embd": 64, "n_head": 4, "n_inner": 160},
    "falcon": {**SMALL, "ffn_hidden_size": 160, "new_decoder_architecture": False},
    "opt": {**SMALL, "ffn_dim": 160, "word_embed_proj_dim": 64},
    "bloom": {"vocab_size": 61, "n_layer": 3, "hidden_size": 64, "n_head": 4},
}  # fmt: skip


SIZES = ("layers", "hidden", "intermediate", "heads", "vocabulary")
LLAMA = {"layers": 2, "hidden": 64, "intermediate": 128, "heads": 4, "vocabulary": 61}


def sizes(model) -> dict:
    found = model_record(model)
    return {name: found[name] for name in SIZES}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_families_that_name_their_sizes_differently_have_the_same(family):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family]))
    inside = 256 if family == "bloom" else 160  # Bloom has four times hidden, whatever the config says
    assert sizes(model) == {"layers": 3, "hidden": 64, "intermediate": inside, "heads": 4, "vocabulary": 61}
    found = model_record(model)
    assert found["width"] == 64 and all(one["count"] == 3 for one in found["modules"].values())
    assert found["gated"] is (family not in ("gpt_neox", "gpt2", "falcon", "opt", "bloom"))
    groups = [one["group"] for one in found["modules"].values()]
    assert groups.count("mlp") == (3 if found["gated"] and family != "phi3" else 2)
    ends = [one["source"].rpartition(" ")[2] for one in found["modules"].values()]
    assert ends.count("made") == 2  # the last of attention and of the MLP read what the others made


def test_the_matrices_are_believed_and_not_the_config(tiny_llama):
    model = tiny_llama()
    for name in ("num_hidden_layers", "intermediate_size", "hidden_size", "vocab_size"):
        setattr(model.config, name, 7)
    assert sizes(model) == LLAMA


@pytest.mark.parametrize("name", ["num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size"])
def test_a_config_without_a_size_is_enough(tiny_llama, name):
    model = tiny_llama()
    model.config = SimpleNamespace(**{key: value for key, value in model.config.to_dict().items() if key != name})
    assert sizes(model) == {**LLAMA, **({"heads": 1} if name == "num_attention_heads" else {})}


def test_sizes_nested_in_a_text_config_are_found(tiny_llama):
    model = tiny_llama()
    expected, text = model_record(model), model.config
    model.config = SimpleNamespace(get_text_config=lambda: text)
    assert model_record(model) == expected


def test_adapters_and_four_bits_change_nothing(nf4_base, tiny_llama):
    expected = {"layers": 30, "hidden": 576, "intermediate": 1536, "heads": 9, "vocabulary": 49152}
    assert sizes(nf4_base) == expected and model_record(nf4_base)["width"] == 576
    assert model_record(attach_adapter(tiny_llama(), Recipe(rank=2))) == model_record(tiny_llama())


def test_a_model_without_layers_has_sizes_too(tiny_llama):
    model = tiny_llama()
    model.model.layers = torch.nn.ModuleList()
    assert model_record(model)["layers"] == 1 and model_record(model)["intermediate"] == 4 * 64
