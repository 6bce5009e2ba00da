"""plain_model: what is exported is plain, finite, and what its config says; every sound model of any family passes."""

import copy
import math

import pytest
import torch
from merge_models import adapt, four_bit

from lab_utils.errors import LabError
from lab_utils.lora.whole_model import inject, merge, take_off
from lab_utils.merging.plain_model import honest_config, is_tied, require_as_configured, require_finite, require_plain

SMALL = {
    "vocab_size": 61, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "rope_theta": 500_000.0, "factor": 8.0}
FAMILIES = {
    "Llama": {}, "Qwen2": GROUPED, "Qwen3": GROUPED, "Phi3": {}, "GPTNeoX": {}, "Gemma2": GROUPED | {"head_dim": 16},
    "Gemma3": GROUPED | {"head_dim": 16}, "Granite": {}, "Cohere": {}, "Olmo2": {}, "Mistral": GROUPED,
    "Mixtral": GROUPED | {"num_local_experts": 2}, "GPT2": {},
}  # fmt: skip


def build(family: str, **changes):
    """A tiny random model of a family."""
    import transformers

    config = {"Gemma3": "Gemma3TextConfig"}.get(family, f"{family}Config")
    model = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**SMALL | FAMILIES[family] | changes)).eval()


def check(model) -> None:
    require_plain(model)
    require_finite(model)
    require_as_configured(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_model_passes_as_built_as_loaded_and_after_it_was_asked(family, dtype, tmp_path):
    model = build(family)
    check(copy.deepcopy(model).to(dtype))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=dtype)
    with torch.no_grad():
        again(input_ids=torch.arange(40)[None])
    check(again)


@pytest.mark.parametrize("rope", [YARN, {**YARN, "rope_type": "dynamic"}, {**YARN, "rope_type": "linear"}])
def test_scaled_rotary_embeddings_pass(tiny_llama, rope):
    check(tiny_llama(rope_parameters=rope))


CHANGES = {  # what was done to the config after the model was built -> what the refusal names
    "num_hidden_layers": (1, r"a tensor model\.layers\.1\.\S+, of which its config knows nothing"),
    "num_attention_heads": (8, r"q_proj\.weight has shape \(64, 64\), and the config says \(128, 64\)"),
    "num_key_value_heads": (4, r"k_proj\.weight has shape \(32, 64\), and the config says \(64, 64\)"),
    "head_dim": (8, r"q_proj\.weight has shape \(64, 64\), and the config says \(32, 64\)"),
    "vocab_size": (62, r"embed_tokens\.weight has shape \(61, 64\), and the config says \(62, 64\)"),
    "hidden_size": (32, r"has shape \(61, 64\), and the config says \(61, 32\)"),
    "intermediate_size": (100, r"gate_proj\.weight has shape \(128, 64\), and the config says \(100, 64\)"),
    "attention_bias": (True, r"asks for a tensor model\.layers\.0\.self_attn\.q_proj\.bias"),
    "mlp_bias": (True, r"asks for a tensor model\.layers\.0\.mlp\.gate_proj\.bias"),
    "rms_norm_eps": (1e-5, r"variance_epsilon is 1e-06, and the config says 1e-05"),
    "hidden_act": ("gelu", r"mlp\.act_fn is SiLU\w*, and the config says GELU"),
    "rope_parameters": ({"rope_type": "default", "rope_theta": 5e5}, r"rotary_emb\.\S+: the model turns q and k by"),
    "no rope": (None, "No model can be built from this config"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_that_says_something_else_than_the_tensors_is_refused(tiny_llama, name):
    value, what = CHANGES[name]
    model = tiny_llama()
    setattr(model.config, "rope_parameters" if name == "no rope" else name, value)
    with pytest.raises(LabError, match=what):
        check(model)


def test_heads_that_only_look_alike_are_told_apart(tiny_llama):
    """Eight heads of 8 have the shapes of four of 16, and split them at other places."""
    model = tiny_llama(num_key_value_heads=4)
    model.config.num_attention_heads, model.config.num_key_value_heads, model.config.head_dim = 8, 8, 8
    with pytest.raises(LabError, match=r"head_dim is 16, and the config says 8"):
        check(model)


def add_bias(model) -> None:
    model.model.layers[1].self_attn.q_proj.bias = torch.nn.Parameter(torch.ones(64))


def cut_a_layer(model) -> None:
    del model.model.layers[1]


def widen_the_head(model) -> None:
    model.lm_head = torch.nn.Linear(64, 70, bias=False)


def lose_a_tensor(model) -> None:
    model.model.norm.weight = None


def gather_nothing(model) -> None:
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.empty(0))


def exchange_a_norm(model) -> None:
    model.model.norm = torch.nn.RMSNorm(64)


def share_layers(model) -> None:
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight


def share_memory(model) -> None:
    model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(model.model.layers[0].mlp.up_proj.weight.data)


@pytest.mark.parametrize("change, what", [
    (add_bias, r"a tensor model\.layers\.1\.self_attn\.q_proj\.bias, of which its config knows nothing"),
    (cut_a_layer, r"The config asks for a tensor model\.layers\.1\."),
    (widen_the_head, r"lm_head\.weight has shape \(70, 64\), and the config says \(61, 64\)"),
    (lose_a_tensor, r"asks for a tensor model\.norm\.weight"),
    (gather_nothing, r"up_proj\.weight has shape \(0,\), and the config says \(128, 64\)"),
    (exchange_a_norm, r"model\.norm is RMSNorm, and the config says LlamaRMSNorm"),
    (share_layers, r"layers\.0\.mlp\.up_proj\.weight and model\.layers\.1\.mlp\.up_proj\.weight are one tensor"),
    (share_memory, r"layers\.0\.mlp\.up_proj\.weight and model\.layers\.1\.mlp\.up_proj\.weight are one tensor"),
])  # fmt: skip
def test_tensors_that_the_config_does_not_give_are_refused(tiny_llama, change, what):
    model = tiny_llama()
    change(model)
    with pytest.raises(LabError, match=what):
        check(model)


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_whether_a_head_is_tied_is_taken_from_the_tensors(tiny_llama, tied, says):
    model = tiny_llama(tie_word_embeddings=tied)
    model.config.tie_word_embeddings = says
    assert is_tied(model) == tied
    check(model)
    with honest_config(model):
        assert model.config.tie_word_embeddings == tied
    assert model.config.tie_word_embeddings == says


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key, place", [
    ("model.embed_tokens.weight", (60, 63)), ("model.layers.1.mlp.down_proj.weight", (3, 100)),
    ("model.norm.weight", (5,)),
])  # fmt: skip
def test_the_first_number_that_is_none_is_named(tiny_llama, value, key, place):
    model = tiny_llama().to(torch.bfloat16)
    with torch.no_grad():
        model.state_dict()[key][place] = value
    with pytest.raises(LabError, match=rf"^{key}\[{', '.join(map(str, place))}\] is {value}: the model is damaged"):
        require_finite(model)


def test_what_is_not_plain_is_told_how_it_becomes_so(tiny_llama):
    for model in (adapt(tiny_llama()), four_bit(tiny_llama())):
        with pytest.raises(LabError, match=r"not plain: it holds \w+\..*merging\.merge\(model, probe\)"):
            require_plain(model)
    ours = inject(tiny_llama(), ["q_proj"], rank=2, alpha=4)
    with pytest.raises(LabError, match=r"not plain: it holds lab_utils\..*lora\.merge\(model\), then lora\.take_off"):
        require_plain(ours)
    merge(ours)
    check(take_off(ours))


def test_weights_that_are_no_plain_numbers_are_refused(tiny_llama):
    with torch.device("meta"):
        away = tiny_llama()
    with pytest.raises(LabError, match=r"embed_tokens\.weight is not in memory"):
        require_plain(away)
    quantized = tiny_llama()
    weight = quantized.model.layers[0].mlp.up_proj.weight
    for dtype in (torch.int8, torch.float8_e4m3fn):
        quantized.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(LabError, match=rf"up_proj\.weight is {name}, which only means something to what"):
            require_plain(quantized)

    class Packed(torch.Tensor):
        """As torchao and FSDP keep weights."""

    quantized.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(weight.detach().as_subclass(Packed))
    with pytest.raises(LabError, match=r"up_proj\.weight is a Packed, not a plain tensor"):
        require_plain(quantized)
    for other in (torch.nn.Linear(2, 2), None, "smollm2-135m"):
        with pytest.raises(LabError, match=f"This is a {type(other).__name__}, and only transformers models"):
            require_plain(other)
