"""gguf_file: every tensor of a Llama is in the file, equal to the model's, or the file is refused."""

import numpy as np
import pytest
import torch
from export_models import build_tokenizer, fields_of, read_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_models import logits

from lab_utils.errors import LabError
from lab_utils.merging import gguf_file
from lab_utils.merging.export import GGUF_TYPES, export_gguf


@pytest.fixture(scope="module")
def small_tokenizer():
    return build_tokenizer()


def load(file):
    from transformers import AutoModelForCausalLM

    from lab_utils.quiet import quiet

    with quiet():
        return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)


NAMES = {  # llama.cpp's names, in a block
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def expected(model) -> dict[str, np.ndarray]:
    """What a file of `model` holds by llama.cpp's names; q and k by its rule, row by row."""
    state = {key: tensor.float().numpy() for key, tensor in model.state_dict().items()}
    found = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    found["output.weight"] = state["lm_head.weight"]
    for layer in range(model.config.num_hidden_layers):
        for theirs, ours in NAMES.items():
            weight = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                size = model.config.head_dim
                order = [head + half * (size // 2) + pair for head in range(0, len(weight), size)
                         for pair in range(size // 2) for half in range(2)]  # fmt: skip
                weight = weight[order]
            found[f"blk.{layer}.{theirs}.weight"] = weight
    return found


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("head", ["tied", "own", "equal"])
def test_every_tensor_is_there_and_equal_whatever_the_config_says_of_the_head(
    tiny_llama, small_tokenizer, tmp_path, head, says
):
    """An own head is written even if the config calls it tied; a tied one may be left out only if it says so."""
    model = tiny_llama(len(small_tokenizer), tie_word_embeddings=head == "tied", num_attention_heads=8, head_dim=16)
    if head == "equal":
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    model.config.tie_word_embeddings = says
    file = export_gguf(model, small_tokenizer, tmp_path / "tiny.gguf", "F32")
    found, wanted = read_gguf(file), expected(model)
    if head != "own" and says:
        assert "output.weight" not in found
        del wanted["output.weight"]
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], weight) for name, weight in wanted.items())
    torch.testing.assert_close(logits(load(file)), logits(model))


def test_the_numbers_are_those_that_the_model_computes_with(tiny_llama, small_tokenizer, tmp_path):
    model = tiny_llama(
        len(small_tokenizer), num_hidden_layers=3, num_attention_heads=8, head_dim=16, intermediate_size=96,
        rms_norm_eps=1e-4, rope_parameters={"rope_type": "default", "rope_theta": 77000.0},
    )  # fmt: skip
    found = fields_of(export_gguf(model, small_tokenizer, tmp_path / "tiny.gguf"))
    attention, block = model.model.layers[0].self_attn, model.model.layers[0]
    wanted = {
        "block_count": len(model.model.layers), "embedding_length": block.input_layernorm.weight.numel(),
        "feed_forward_length": block.mlp.gate_proj.weight.shape[0], "attention.key_length": attention.head_dim,
        "attention.value_length": attention.head_dim, "rope.dimension_count": attention.head_dim,
        "attention.head_count": attention.q_proj.weight.shape[0] // attention.head_dim,
        "attention.head_count_kv": attention.k_proj.weight.shape[0] // attention.head_dim,
        "vocab_size": model.model.embed_tokens.weight.shape[0], "context_length": 512,
    }  # fmt: skip
    assert {name: found[f"llama.{name}"] for name in wanted} == wanted
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-4)
    frequencies = found["llama.rope.freq_base"] ** -(torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(frequencies, model.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("changes, key, name, width", [
    ({"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1}, "model.embed_tokens.weight",
     "token_embd.weight", 48),
    ({"intermediate_size": 100}, "model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", 100),
    ({"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 40}, "model.layers.0.self_attn.o_proj.weight",
     "blk.0.attn_output.weight", 40),
])  # fmt: skip
def test_rows_that_do_not_fill_blocks_are_refused(tiny_llama, small_tokenizer, tmp_path, changes, key, name, width):
    model = tiny_llama(len(small_tokenizer), **changes)
    what = rf"^{key} \({name} in the file\) has rows of {width} values, and Q8_0 packs 32 at a time.*'F16', 'BF16' or"
    with pytest.raises(LabError, match=what):
        export_gguf(model, small_tokenizer, tmp_path / "no.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == []
    for quantization in ("F16", "BF16", "F32"):
        found = logits(load(export_gguf(model, small_tokenizer, tmp_path / "a.gguf", quantization)))
        assert float((found - logits(model)).norm() / logits(model).norm()) < 0.03


@pytest.mark.parametrize("quantization", GGUF_TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused_for_every_type(tiny_llama, small_tokenizer, tmp_path, quantization, value):
    model = tiny_llama(len(small_tokenizer))
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = value
    with pytest.raises(LabError, match=rf"^model\.layers\.1\.mlp\.up_proj\.weight\[3, 5\] is {value}"):
        export_gguf(model, small_tokenizer, tmp_path / "no.gguf", quantization)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantization, value, wider", [
    ("F16", 65_520.0, "'F32' or 'BF16' or 'Q8_0'"), ("Q8_0", -8_400_000.0, "'F32' or 'BF16'"),
    ("BF16", 3.4e38, "'F32'"), ("F32", 1e39, None),
])  # fmt: skip
def test_what_would_become_infinite_is_refused(tiny_llama, small_tokenizer, tmp_path, quantization, value, wider):
    """In float64, so that a value beyond float32 exists too."""
    model = tiny_llama(len(small_tokenizer)).double()
    model.model.layers[0].self_attn.q_proj.weight.data[2, 7] = value
    way_out = rf"take quantization={wider}\.$" if wider else "no type"
    what = rf"q_proj\.weight\[2, 7\] is \S+ \(blk\.0\.attn_q\.weight in the file\).*{way_out}"
    with pytest.raises(LabError, match=what):
        export_gguf(model, small_tokenizer, tmp_path / "no.gguf", quantization)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantization", GGUF_TYPES)
def test_the_largest_number_of_a_type_stays_finite(tiny_llama, small_tokenizer, tmp_path, quantization):
    model = tiny_llama(len(small_tokenizer))
    model.model.layers[0].mlp.up_proj.weight.data[2, 7] = gguf_file.LARGEST[quantization]
    found = read_gguf(export_gguf(model, small_tokenizer, tmp_path / "yes.gguf", quantization))
    assert all(np.isfinite(weight).all() for weight in found.values())
    assert found["blk.0.ffn_up.weight"][2, 7] == pytest.approx(gguf_file.LARGEST[quantization], rel=1e-3)


def test_a_norm_beyond_float32_is_refused(tiny_llama, small_tokenizer, tmp_path):
    model = tiny_llama(len(small_tokenizer)).double()
    model.model.norm.weight.data[9] = 1e39
    with pytest.raises(LabError, match=r"model\.norm\.weight\[9\] is 1e\+39 .*no type"):
        export_gguf(model, small_tokenizer, tmp_path / "no.gguf")


def test_what_llama_cpp_would_compute_otherwise_is_refused(tiny_llama, small_tokenizer, tmp_path):
    from transformers import LlamaForSequenceClassification

    class Scaled(type(tiny_llama())):
        """A Llama with a forward that nobody else knows."""

    gelu, scaled = tiny_llama(len(small_tokenizer), hidden_act="gelu"), tiny_llama(len(small_tokenizer))
    scaled.__class__ = Scaled
    for model, what in (
        (gelu, "hidden_act='gelu'"),
        (scaled, "LlamaForCausalLM, the Llama family; this is 'Scaled'"),
        (LlamaForSequenceClassification(tiny_llama().config), "this is 'LlamaForSequenceClassification'"),
        (tiny_llama().model, "this is 'LlamaModel'"),
    ):
        with pytest.raises(LabError, match=what):
            export_gguf(model, small_tokenizer, tmp_path / "no.gguf")
    assert list(tmp_path.iterdir()) == []


@settings(derandomize=True, database=None, deadline=None)
@given(heads=st.integers(1, 6), half=st.integers(1, 5), columns=st.integers(1, 3))
def test_rows_are_paired_as_rotary_embedding_needs_them(heads, half, columns):
    """Row i of a head's first half and row i of its second, which transformers rotates together, become neighbours."""
    rows = np.arange(heads * 2 * half * columns).reshape(heads * 2 * half, columns)
    paired = gguf_file.paired(rows, heads)
    for head in range(heads):
        start = head * 2 * half
        for i in range(half):
            assert np.array_equal(paired[start + 2 * i], rows[start + i])
            assert np.array_equal(paired[start + 2 * i + 1], rows[start + half + i])


@pytest.mark.parametrize("quantization, value, finer", [
    ("F16", 2.0**-25, "'F32' or 'BF16'"), ("F16", -1e-8, "'F32' or 'BF16'"), ("BF16", 2.0**-135, "'F32'"),
    ("Q8_0", 2.0**-20, "'F32' or 'BF16' or 'F16'"),
])  # fmt: skip
def test_a_tensor_that_would_become_zero_is_refused(tiny_llama, small_tokenizer, tmp_path, quantization, value, finer):
    model = tiny_llama(len(small_tokenizer))
    weight = model.model.layers[1].mlp.up_proj.weight.data
    weight.zero_()
    export_gguf(model, small_tokenizer, tmp_path / "zeros.gguf", quantization)  # which were zeros before
    weight[3, 5] = value
    what = rf"^Every value of model\.layers\.1\.mlp\.up_proj\.weight \(blk\.1\.ffn_up\.weight in the file\).*{finer}\."
    with pytest.raises(LabError, match=what):
        export_gguf(model, small_tokenizer, tmp_path / "no.gguf", quantization)
    weight[3, 5] = value * 4
    found = read_gguf(export_gguf(model, small_tokenizer, tmp_path / "yes.gguf", quantization))
    assert found["blk.1.ffn_up.weight"][3, 5] != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["yes.gguf", "zeros.gguf"]
