"""configurations: totals and matrices of tiny models that transformers builds from the same configuration."""

import json
from pathlib import Path

import pytest

from lab_utils.counts.architectures import ARCHITECTURES, Architecture
from lab_utils.counts.configurations import from_config
from lab_utils.counts.model_types import MODEL_TYPES
from lab_utils.counts.parameters import lora_parameters
from lab_utils.errors import LabError

SIZE = {
    "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 80,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**SIZE, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 16}  # 6 · 16 is not 48
GPT2 = {"vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 40, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
FALCON = {name: value for name, value in SIZE.items() if name != "intermediate_size"}
ENCODER = {**SIZE, "max_position_embeddings": 40}
DEBERTA = {**ENCODER, "relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True}
CASES = {
    "llama": ("Llama", GROUPED),
    "llama, as many keys as queries": ("Llama", SIZE),
    "llama, tied": ("Llama", {**GROUPED, "tie_word_embeddings": True}),
    "llama, attention bias": ("Llama", {**GROUPED, "attention_bias": True}),
    "llama, biases everywhere": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama, heads wider than the model": ("Llama", WIDE),
    "mistral": ("Mistral", GROUPED),
    "mistral, wide heads": ("Mistral", {**WIDE, "tie_word_embeddings": True}),
    "granite": ("Granite", {**GROUPED, "mlp_bias": True}),
    "smollm3": ("SmolLM3", GROUPED),
    "cohere": ("Cohere", GROUPED),
    "cohere, norms of queries and keys": ("Cohere", {**GROUPED, "use_qk_norm": True, "attention_bias": True}),
    "olmo": ("Olmo", GROUPED),
    "olmo2": ("Olmo2", GROUPED),
    "qwen2": ("Qwen2", GROUPED),
    "qwen2, tied": ("Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", WIDE),
    "qwen3, biases": ("Qwen3", {**WIDE, "attention_bias": True, "tie_word_embeddings": True}),
    "gemma": ("Gemma", WIDE),
    "gemma, untied": ("Gemma", {**WIDE, "tie_word_embeddings": False}),
    "gemma2": ("Gemma2", WIDE),
    "gemma3": ("Gemma3Text", WIDE),
    "phi3": ("Phi3", GROUPED),
    "gpt2": ("GPT2", GPT2),
    "gpt2, its own MLP": ("GPT2", {**GPT2, "n_inner": 100}),
    "gpt2, untied": ("GPT2", {**GPT2, "tie_word_embeddings": False}),
    "gpt_neox": ("GPTNeoX", SIZE),
    "gpt_neox, no attention bias": ("GPTNeoX", {**SIZE, "attention_bias": False}),
    "falcon, one key": ("Falcon", {**FALCON, "multi_query": True}),  # as Falcon-7B
    "falcon, groups": ("Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),  # as -40B, -180B
    "falcon, groups, one norm": (
        "Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}
    ),  # as -11B
    "falcon, in turn, biases": (
        "Falcon", {**FALCON, "multi_query": False, "parallel_attn": False, "bias": True, "alibi": True}
    ),  # as -RW-1B
    "falcon, its own MLP, untied": ("Falcon", {**FALCON, "ffn_hidden_size": 100, "tie_word_embeddings": False}),
    "falcon, keys of other families": ("Falcon", {**FALCON, "intermediate_size": 111, "num_key_value_heads": 3}),
    "falcon, width by another name": ("Falcon", {**FALCON, "n_embed": 96}),
    "gpt2, the usual names": (
        "GPT2", {**GPT2, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
                 "max_position_embeddings": 33}
    ),
    "roberta": ("Roberta", ENCODER),
    "roberta, untied": ("Roberta", {**ENCODER, "tie_word_embeddings": False}),
    "roberta, one token type": ("Roberta", {**ENCODER, "type_vocab_size": 1}),
    "deberta, distances in buckets": (
        "DebertaV2",
        {**DEBERTA, "position_buckets": 8, "position_biased_input": False, "norm_rel_ebd": "layer_norm",
         "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    "deberta, distances": ("DebertaV2", {**DEBERTA, "conv_kernel_size": 5, "conv_groups": 2}),
    "deberta, untied": ("DebertaV2", {**DEBERTA, "tie_word_embeddings": False}),
    "deberta, positions alone": ("DebertaV2", {**ENCODER, "type_vocab_size": 2}),
}  # fmt: skip


def build(kind: str, settings: dict):
    """A configuration, and its model without memory for weights."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**settings)
    masked = kind in ("Roberta", "DebertaV2")
    make = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return config, make.from_config(config)


@pytest.mark.parametrize("name", CASES)
def test_the_total_is_that_of_the_model_that_transformers_builds(name):
    config, model = build(*CASES[name])
    real = sum(parameter.numel() for parameter in model.parameters())
    one = from_config(config)
    assert one.total_parameters() == real
    assert from_config(config.to_dict()) == one


@pytest.mark.parametrize("name", CASES)
def test_the_matrices_are_those_that_peft_adapts(name):
    from peft import LoraConfig, get_peft_model

    config, model = build(*CASES[name])
    targets = LoraConfig(r=3, target_modules="all-linear", fan_in_fan_out=CASES[name][0] == "GPT2")
    adapted = get_peft_model(model, targets, low_cpu_mem_usage=True)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert lora_parameters(from_config(config), 3) == trained


@pytest.mark.parametrize("name", CASES)
def test_the_keys_as_a_person_writes_them_mean_the_same(name):
    """Without what transformers fills in: its defaults are ours, or the missing key is named."""
    kind, settings = CASES[name]
    config, _ = build(kind, settings)
    assert from_config({"model_type": config.model_type, **settings}, name="x").total_parameters() == (
        from_config(config).total_parameters()
    )


STRAY = {  # each is heeded by some families and ignored by others
    "intermediate_size": 111, "ffn_hidden_size": 112, "n_inner": 113, "head_dim": 24, "num_key_value_heads": 3,
    "num_kv_heads": 3, "attention_bias": True, "mlp_bias": True, "bias": True, "layer_norm_bias": True,
    "use_qk_norm": True, "tie_word_embeddings": False, "type_vocab_size": 3, "max_position_embeddings": 33,
    "n_positions": 34, "num_hidden_layers": 2, "n_layer": 2, "n_embd": 96, "n_embed": 96, "parallel_attn": False,
    "num_ln_in_parallel_attn": 1, "position_buckets": 4, "conv_kernel_size": 3,
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in CASES.values()}))
def test_a_key_counts_where_transformers_heeds_it_and_nowhere_else(kind):
    settings = next(settings for name, (own, settings) in CASES.items() if own == kind)
    for key, value in STRAY.items():
        try:
            config, model = build(kind, {**settings, key: value})
        except (ValueError, AttributeError):  # transformers refuses it
            continue
        total = from_config({"model_type": config.model_type, **settings, key: value}, name="x").total_parameters()
        assert total == sum(parameter.numel() for parameter in model.parameters()), key


def test_every_model_type_is_tried():
    assert {build(*case)[0].model_type for case in CASES.values()} == set(MODEL_TYPES)


def test_a_file_or_its_folder_is_read_and_a_saved_model_is_counted(tmp_path):
    config, _ = build(*CASES["qwen3"])
    config.save_pretrained(tmp_path)
    one = from_config(tmp_path / "config.json", name="mine")
    assert one == from_config(str(tmp_path), name="mine") and one.name == "mine"
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + text.encode())  # with a BOM
    assert from_config(tmp_path, name="mine") == one


def test_the_listed_models_by_their_published_configurations():
    """As on the hub: tiiuae/falcon-7b and -40b, whose totals without the norms are worked by hand."""
    falcon = {"model_type": "falcon", "vocab_size": 65024, "bias": False, "alibi": False, "parallel_attn": True}
    small = from_config({**falcon, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
                         "multi_query": True, "new_decoder_architecture": False})  # fmt: skip
    linears = 32 * (4544 * (4544 + 2 * 64) + 4544**2 + 8 * 4544**2)
    assert small.total_parameters() == linears + 65024 * 4544 + (32 + 1) * 2 * 4544 == 6_921_720_704
    large = from_config({**falcon, "hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128,
                         "new_decoder_architecture": True, "num_kv_heads": 8})  # fmt: skip
    linears = 60 * (8192 * (8192 + 16 * 64) + 8192**2 + 8 * 8192**2)
    assert large.total_parameters() == linears + 65024 * 8192 + (2 * 60 + 1) * 2 * 8192
    llama = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
             "num_hidden_layers": 32, "num_attention_heads": 32}  # fmt: skip
    assert from_config(llama).total_parameters() == ARCHITECTURES["Llama-2-7B"].total_parameters()


def test_falcon_by_its_family_alone_has_the_norms_of_its_heads():
    """One key and value head is Falcon-7B's architecture; anything else is said."""
    shape = {"name": "x", "family": "falcon", "hidden": 4544, "n_layers": 32, "heads": 71, "head_size": 64,
             "intermediate": 18176, "vocabulary": 65024}  # fmt: skip
    one = Architecture(**shape, kv_heads=1)
    assert one.total_parameters() == 6_921_720_704
    two = Architecture(**shape, kv_heads=1, norms_per_layer=2)
    assert two.total_parameters() - one.total_parameters() == 32 * 2 * 4544


LLAMA = {"model_type": "llama", **GROUPED}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": None}, "model_type is missing"), ({"model_type": "t5"}, "'t5'.*llama"),
        ({"model_type": ["llama"]}, r"\['llama'\]"), ({"model_type": "mixtral"}, "mixture of experts"),
        ({"model_type": "qwen3_moe"}, "mixture of experts"), ({"num_local_experts": 8}, "num_local_experts=8"),
        ({"hidden_size": None}, "hidden_size is missing"), ({"vocab_size": None}, "vocab_size is missing"),
        ({"hidden_size": "48"}, "hidden_size='48'"), ({"hidden_size": 48.0}, "hidden_size=48.0"),
        ({"hidden_size": True}, "hidden_size=True"), ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"intermediate_size": -1}, "intermediate_size=-1"), ({"vocab_size": float("nan")}, "vocab_size=nan"),
        ({"num_hidden_layers": [1, 2]}, r"num_hidden_layers=\[1, 2\]"), ({"head_dim": 0}, "head_dim=0"),
        ({"num_attention_heads": 5}, "5 heads do not divide the width 48"),
        ({"num_key_value_heads": 4}, "kv_heads=4 does not divide heads=6"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings='no'"), ({"attention_bias": 1}, "attention_bias=1"),
        ({"text_config": {}}, "text_config"), ({"add_cross_attention": True}, "cross_attention"),
        ({"hidden_size": 10**30}, "up to 9,007"),
        ({"vocab_size": 10**5000}, "bits"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named_with_the_file(change, named, tmp_path):
    config = {key: value for key, value in {**LLAMA, **change}.items() if value is not None}
    with pytest.raises(LabError, match=named):
        from_config(config)
    if change.get("vocab_size") != 10**5000:  # Python's JSON does not write that
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(LabError, match=named) as caught:
            from_config(file)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize("config", [None, 5, [], b"{}", len, "", "no/such/config.json", Path("no/such"), "a" * 5000])
def test_what_is_no_configuration_is_refused(config):
    with pytest.raises(LabError):
        from_config(config)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"model_type": "llama"', "7", '{"n": ' + 5000 * "9" + "}"])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=r"config\.json"):
        from_config(tmp_path)


def test_deberta_with_matrices_for_positions_is_refused_not_miscounted():
    for change in ({"share_att_key": False}, {"embedding_size": 24}, {"legacy": False}):
        with pytest.raises(LabError, match=next(iter(change))):
            from_config({"model_type": "deberta-v2", **DEBERTA, **change})
