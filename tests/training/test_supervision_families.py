"""supervision: the loss is the model's own, whatever a family does to its hidden states and logits on the way.

Tiny models with random weights, built from transformers' own classes. Where a family scales, caps or biases its logits,
it is set to do so strongly.
"""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from lab_utils.errors import LabError
from lab_utils.finetune.answer_loss import answer_logits, build_supervised
from lab_utils.finetune.batches import collate
from lab_utils.finetune.supervision import Encoded
from lab_utils.models.registry import base_model

SIZES = {
    "vocab_size": 61, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
GPT = {
    "vocab_size": 61, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA = {
    "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_expand": 2,
    "mamba_d_ssm": 128,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "head_dim": 8, "num_key_value_heads": 4, "first_k_dense_replace": 1,
}  # fmt: skip
# what its logits go through after the head, if anything: so a head called alone would be wrong
OWN_WAY = {
    "Granite": {"logits_scaling": 5.0}, "GraniteMoe": {"logits_scaling": 5.0, **EXPERTS},
    "HyperCLOVAX": {"logits_scaling": 5.0}, "Cohere": {"logit_scale": 0.3}, "Cohere2": {"logit_scale": 0.3},
    "Gemma2": {"final_logit_softcapping": 2.0}, "Gemma3": {"final_logit_softcapping": 2.0},
    "VaultGemma": {"final_logit_softcapping": 2.0}, "Beam": {"final_logit_softcapping": 2.0},
    "NanoChat": {"final_logit_softcapping": 2.0}, "FalconH1": {"lm_head_multiplier": 0.2, **MAMBA},
    "RecurrentGemma": {"logits_soft_cap": 2.0, "lru_width": 64},
    "Gemma3n": {
        "final_logit_softcapping": 2.0, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 61,
        "hidden_size_per_layer_input": 8, "laurel_rank": 8, "activation_sparsity_pattern": [0.0, 0.0],
        "layer_types": ["sliding_attention", "full_attention"],
    },
}  # fmt: skip
FAMILIES = {
    **{name: {**SIZES, **changes} for name, changes in OWN_WAY.items()},
    **{
        name: SIZES
        for name in (
            "Llama", "Mistral", "Qwen2", "Qwen3", "Phi", "Phi3", "Gemma", "Olmo2", "Glm", "Glm4", "StableLm",
            "Starcoder2", "Nemotron", "GPTNeoX", "SmolLM3", "BioGpt", "Persimmon", "Helium", "Exaone4",
        )
    },
    **{name: {**SIZES, **EXPERTS} for name in ("Mixtral", "Qwen2Moe", "Qwen3Moe", "Olmoe", "GptOss")},
    "Falcon": {key: value for key, value in SIZES.items() if key != "head_dim"},
    "DeepseekV3": {**SIZES, **LATENT},
    "GPT2": GPT, "GPTBigCode": GPT, "GPTJ": {**GPT, "rotary_dim": 8}, "CodeGen": {**GPT, "rotary_dim": 8},
    "Bloom": {"vocab_size": 61, "hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "Mpt": {"vocab_size": 61, "d_model": 64, "n_layers": 2, "n_heads": 4, "initializer_range": 0.2},
    "GPTNeo": {
        "vocab_size": 61, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]],
        "max_position_embeddings": 64, "initializer_range": 0.2,
    },
    "OPT": {**SIZES, "word_embed_proj_dim": 32, "ffn_dim": 96, "init_std": 0.2},
    "Mamba": {"vocab_size": 61, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.2},
}  # fmt: skip
CLASSES = {"GPT2": "GPT2LMHeadModel"}
CONFIGS = {"Gemma3": "Gemma3TextConfig", "Gemma3n": "Gemma3nTextConfig"}
BATCH = [Encoded([5, 6, 7, 8, 9, 2], 3), Encoded([9, 11, 2], 1), Encoded([4, 5, 6, 4, 2], 4)]  # 3 + 2 + 1 tokens


def build(name: str):
    """A tiny model of a family, the same one every time."""
    config = getattr(transformers, CONFIGS.get(name, f"{name}Config"))(**FAMILIES[name])
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config).eval()


def adapted(model):
    """With adapters on every linear layer but the head, which change something; peft allows Mamba fewer."""
    mamba = {"mamba": ["in_proj"], "falcon_h1": ["q_proj", "v_proj", "gate_proj", "down_proj"]}
    targets = mamba.get(model.config.model_type, "all-linear")
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")).eval()
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", list(FAMILIES))
def test_logits_and_loss_are_the_models_own(name):
    model, batch, before = build(name), collate(BATCH, pad_token_id=2), None
    for adapters in (False, True):
        model = adapted(model) if adapters else model
        with torch.no_grad():
            logits, targets, owners = answer_logits(model, **batch)
            loss = float(build_supervised(model)(**batch))
            own = model(**batch, use_cache=False)
        assert targets.tolist() == [8, 9, 2, 11, 2, 2] and owners.tolist() == [0, 0, 0, 1, 1, 2]
        torch.testing.assert_close(logits, own.logits[[0, 0, 0, 1, 1, 2], [2, 3, 4, 0, 1, 3]], rtol=1e-4, atol=1e-5)
        assert loss / 6 == pytest.approx(float(own.loss), rel=1e-4)
        assert loss != before  # the adapters do change it
        before = loss


@pytest.mark.parametrize("name", list(OWN_WAY))
def test_the_head_alone_would_be_wrong(name):
    """Else the test above would say nothing about what comes after the head."""
    model, seen = build(name), []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    batch = collate(BATCH, pad_token_id=2)
    with torch.no_grad():
        logits, targets, _ = answer_logits(model, **batch)
    handle.remove()
    assert len(seen) == 1 and seen[0].shape == (1, 6, 61)  # and the head reads only what is needed
    alone, right = (torch.nn.functional.cross_entropy(one, targets) for one in (seen[0][0], logits))
    assert abs(float(alone - right)) > 0.1


@pytest.mark.parametrize("name", ["Llama", "Granite", "Gemma2", "Cohere", "FalconH1", "GPT2", "OPT"])
def test_the_gradients_are_those_of_the_models_own_loss(name):
    gradients = []
    for ours in (True, False):
        model, batch = adapted(build(name)), collate(BATCH, pad_token_id=2)
        loss = build_supervised(model)(**batch) / 6 if ours else model(**batch, use_cache=False).loss
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert gradients[0] and gradients[0].keys() == gradients[1].keys()
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][parameter], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("part", ["lm_head", "modules_to_save"])
def test_an_adapted_head_is_used(part):
    target = {"target_modules": ["q_proj", "lm_head"]} if part == "lm_head" else {
        "target_modules": ["q_proj"], "modules_to_save": ["lm_head"],
    }  # fmt: skip
    model = build("Granite")
    model.config.tie_word_embeddings = False
    model = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **target)).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ("lm_head" in name) and "lora_A" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    batch = collate(BATCH, pad_token_id=2)
    with torch.no_grad():
        assert float(build_supervised(model)(**batch)) / 6 == pytest.approx(float(model(**batch).loss), rel=1e-4)
        with model.disable_adapter():
            bare = float(build_supervised(model)(**batch))
        assert float(build_supervised(model)(**batch)) != pytest.approx(bare, rel=1e-3)


def test_a_model_that_does_not_call_its_head_gives_all_logits_and_they_are_cut_afterwards(tiny_llama):
    model = tiny_llama()
    head = model.lm_head

    class Hidden(torch.nn.Module):
        """Computes as the head does, without calling it."""

        def forward(self, hidden):
            return 0.5 * hidden @ head.weight.T

    model.lm_head = Hidden()
    model.get_output_embeddings = lambda: head
    batch = collate(BATCH, pad_token_id=2)
    with torch.no_grad():
        assert float(build_supervised(model)(**batch)) / 6 == pytest.approx(float(model(**batch).loss), rel=1e-5)


def test_no_hook_stays_on_the_head_also_after_an_error(tiny_llama):
    model, batch = tiny_llama(), collate(BATCH, pad_token_id=2)
    answer_logits(model, **batch)
    with pytest.raises(IndexError):
        answer_logits(model, **{**batch, "input_ids": batch["input_ids"] + 1000})
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize(
    ("config", "model", "said"),
    [
        (
            transformers.T5Config(vocab_size=61, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4),
            "T5ForConditionalGeneration", "an encoder",
        ),
        (transformers.BertConfig(**SIZES), "BertLMHeadModel", "after a place too"),
        (transformers.BertConfig(**SIZES), "BertForMaskedLM", "after a place too"),
        (
            transformers.XLNetConfig(vocab_size=61, d_model=32, n_layer=1, n_head=4, d_inner=32),
            "XLNetLMHeadModel", "after a place too",
        ),
        (transformers.LlamaConfig(**SIZES), "LlamaModel", "no head"),
    ],
)  # fmt: skip
def test_models_that_do_not_write_token_by_token_are_refused(config, model, said):
    built = getattr(transformers, model)(config)
    with pytest.raises(LabError, match=rf"{type(built).__name__} .*{said}.*Take a causal language model"):
        answer_logits(built, **collate(BATCH, pad_token_id=2))


def test_a_bert_that_is_a_decoder_is_one():
    config = transformers.BertConfig(**SIZES, is_decoder=True)
    torch.manual_seed(0)
    model, batch = transformers.BertLMHeadModel(config).eval(), collate(BATCH, pad_token_id=2)
    with torch.no_grad():
        assert float(build_supervised(model)(**batch)) / 6 == pytest.approx(float(model(**batch).loss), rel=1e-4)
    assert base_model(model) is model
