"""Mixtures of experts: totals as transformers builds them, adapters as peft does, and a word for who did not ask."""

import pytest
import torch

from lab_utils.counts.configurations import from_config
from lab_utils.counts.experts import EXPERT_TYPES
from lab_utils.counts.parameters import as_records, lora_parameters
from lab_utils.errors import LabError

SIZE = {
    "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 80, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CASES = {
    "Mixtral": {"num_local_experts": 4}, "Olmoe": {"num_experts": 4},
    "Qwen3Moe": {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 16},
    "Qwen2Moe": {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 32},
    "GptOss": {"num_local_experts": 4, "head_dim": 16},
}  # fmt: skip


def build(kind: str):
    """A configuration, and its model without memory for weights."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZE, **CASES[kind])
    with torch.device("meta"):
        return config, transformers.AutoModelForCausalLM.from_config(config)


def trained(model, **targets) -> int:
    """Numbers that peft trains."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=3, **targets), low_cpu_mem_usage=True)
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("kind", CASES)
def test_counts_are_those_of_transformers_and_peft(kind):
    config, model = build(kind)
    one = from_config(config, experts=True)
    assert one.total_parameters() == sum(parameter.numel() for parameter in model.parameters())
    assert lora_parameters(one, 3) == trained(model, target_modules="all-linear")
    written = {"model_type": config.model_type, **SIZE, **CASES[kind]}
    assert from_config(written, name="x", experts=True).total_parameters() == one.total_parameters()


@pytest.mark.parametrize("kind", ["GptOss", "Qwen2Moe"])
def test_experts_that_all_linear_leaves_out_are_reached_as_parameters(kind):
    config, model = build(kind)
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    reached = trained(model, target_modules=[], target_parameters=parameters)
    assert lora_parameters(from_config(config, experts=True), 3, "experts") == reached


def test_every_kind_is_tried_and_refused_to_who_did_not_ask():
    kinds = {build(kind)[0].model_type: build(kind)[0] for kind in CASES}
    assert kinds.keys() == EXPERT_TYPES.keys()
    for config in kinds.values():
        with pytest.raises(LabError, match="experts=True"):
            from_config(config)
    for change, named in (
        ({"decoder_sparse_step": 2}, "decoder_sparse_step=2"), ({"mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"num_experts": None, "num_local_experts": None}, "num_experts is missing"),
        ({"model_type": "llama"}, "num_experts=4 is a mixture of experts"),
        ({"model_type": "glm4_moe"}, "num_experts=4"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=named):
            from_config({"model_type": "qwen3_moe", **SIZE, **CASES["Qwen3Moe"], **change}, experts=True)


def test_a_record_counts_every_expert():
    one = from_config(build("Mixtral")[0], name="mine", experts=True)
    record = as_records([one])[0]
    assert record["name"] == "mine" and record["total"] == one.total_parameters()
    counted = sum(3 * m["ranks"] * (m["out"] + m["in"]) * m["count"] for m in record["modules"])
    assert counted == lora_parameters(one, 3)
    # by hand: attention, the router's 4 × 48, and four experts' gate and up (two ranks) and down, in two layers
    assert counted == 2 * 3 * ((96 + 64 + 64 + 96) + (4 + 48) + 4 * (2 * (160 + 48) + (48 + 80)))


def test_a_name_on_the_hub_is_read_from_what_this_machine_has(tmp_path, monkeypatch):
    """Without a network: the hub's cache, and a plain word where it has nothing."""
    import json

    snapshot = tmp_path / "models--somebody--tiny" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "qwen3", **SIZE, "head_dim": 16}))
    refs = tmp_path / "models--somebody--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert from_config("somebody/tiny").hidden == 48
    with pytest.raises(LabError, match=r"somebody/else.*config\.json"):
        from_config("somebody/else")
