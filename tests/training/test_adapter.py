"""Adapters on models that are not Llamas, and targets that are not linear layers."""

import warnings

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lab_utils.errors import LabError
from lab_utils.finetune.adapter import attach_adapter, put_on, take_off_adapter
from lab_utils.finetune.recipe import Recipe


@pytest.fixture
def gpt2():
    """A tiny GPT-2, whose linear layers are transformers' Conv1D."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_layer=1, n_embd=16, n_head=2, n_positions=32)).eval()


@pytest.mark.parametrize("targets", ["all-linear", ("c_attn",)])
def test_conv1d_is_a_linear_layer(gpt2, targets):
    """y = x W + b with W (in, out); the adapter changes W by (B A)ᵀ times the scaling."""
    ids, layer = torch.arange(8)[None], gpt2.transformer.h[0].attn.c_attn
    weight = layer.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = attach_adapter(gpt2, Recipe(rank=2, alpha=4.0, target_modules=targets)).eval()
    adapted = model.base_model.model.transformer.h[0].attn.c_attn
    assert adapted.lora_A["default"].weight.shape == (2, 16) and adapted.lora_B["default"].weight.shape == (48, 2)
    torch.nn.init.normal_(adapted.lora_B["default"].weight)
    change = 2 * (adapted.lora_B["default"].weight @ adapted.lora_A["default"].weight).T.detach()
    with torch.no_grad():
        ours = model(ids).logits
        bare = take_off_adapter(model)
        bare.transformer.h[0].attn.c_attn.weight.copy_(weight + change)
        torch.testing.assert_close(ours, bare(ids).logits)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("wte", r"'wte' is a Embedding and no linear layer\. It has: c_attn, c_fc, c_proj"),
        ("ln_f", "'ln_f' is a LayerNorm"),
        ("lm_head", "'lm_head' is the model's head"),
        ("attn_proj", "no linear layer 'attn_proj'"),
        ("proj", "no linear layer 'proj'"),  # the end of a name is not a name
        ("h.0", "'h.0' is a GPT2Block"),
    ],
)
def test_a_target_that_is_no_linear_layer_is_named(gpt2, target, words):
    with pytest.raises(LabError, match=words):
        attach_adapter(gpt2, Recipe(rank=2, target_modules=("c_attn", target)))


def test_the_rank_is_held_against_conv1d_too(gpt2):
    with pytest.raises(LabError, match=r"rank=17 is larger than layer .* \(48×16\).*1 to 16"):
        attach_adapter(gpt2, Recipe(rank=17, target_modules=("c_attn",)))


def test_a_model_without_linear_layers_is_named():
    class Bare(torch.nn.Module):
        def get_output_embeddings(self):
            return None

    with pytest.raises(LabError, match="Bare has no linear layer"):
        attach_adapter(Bare(), Recipe(rank=2))


def test_what_peft_refuses_is_said_in_words_and_leaves_the_base_bare(tiny_llama):
    from peft import LoraConfig

    model = tiny_llama()
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(LabError, match=r"peft cannot put these adapters on a LlamaForCausalLM \(ValueError: .*RMSNorm"):
        put_on(model, LoraConfig(r=2, target_modules=["q_proj", "norm"], task_type="CAUSAL_LM"))
    assert [name for name, _ in model.named_parameters()] == names
    attach_adapter(model, Recipe(rank=2))


def test_a_name_that_is_linear_in_one_place_only_is_refused_in_words(tiny_llama):
    model = tiny_llama()
    model.model.layers[1].self_attn.q_proj = torch.nn.Conv2d(1, 1, 1, groups=1)
    model.model.layers[1].self_attn.k_proj = torch.nn.Identity()
    with pytest.raises(LabError, match="peft cannot put these adapters"):
        attach_adapter(model, Recipe(rank=2, target_modules=("k_proj",)))
    assert not [name for name, _ in take_off_adapter(model).named_parameters() if "lora" in name]
