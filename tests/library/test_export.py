"""export: files that other programs load, and that then answer as the merged model did."""

import json
import os

import pytest
import torch
from export_models import TEXT, build_tokenizer
from merge_models import adapt, four_bit, logits

from lab_utils.errors import LabError
from lab_utils.merging import manifest
from lab_utils.merging.export import export_gguf, export_merged
from lab_utils.merging.places import into_dequantized
from lab_utils.merging.plain_model import require_finite

HALVES = {"F32": 0, "F16": 2.0**-11, "BF16": 2.0**-8, "Q8_0": 1 / 127}  # the largest relative error of a weight, about


@pytest.fixture(scope="module")
def small_tokenizer():
    return build_tokenizer()


def load(folder, **how):
    from transformers import AutoModelForCausalLM

    from lab_utils.quiet import quiet

    with quiet():
        return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **how)


def assert_same_chat(one, other) -> None:
    """Both write a conversation in the same way."""
    turns = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Done."}]
    texts = [tokenizer.apply_chat_template(turns, tokenize=False) for tokenizer in (one, other)]
    assert texts[0] == texts[1] and TEXT in texts[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantized", [True, False])
def test_the_folder_loads_without_us_and_gives_the_same_logits(tiny_llama, small_tokenizer, tmp_path, dtype, quantized):
    base = tiny_llama(len(small_tokenizer))
    merged = into_dequantized(adapt(four_bit(base) if quantized else base), dtype)
    folder = export_merged(merged, small_tokenizer, tmp_path / "merged")
    again = load(folder)
    assert again.dtype == dtype and torch.equal(logits(again), logits(merged))
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config and config["tie_word_embeddings"] is True
    assert "adapter_config.json" not in {file.name for file in folder.iterdir()}
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in folder.iterdir())  # others may read it


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapted_head_is_no_longer_the_embedding(tiny_llama, small_tokenizer, tmp_path):
    """With tied embeddings the update would otherwise be lost, or reach the embedding too."""
    model = adapt(tiny_llama(len(small_tokenizer)), target_modules=["lm_head", "q_proj"])
    merged = into_dequantized(model)
    assert torch.allclose(logits(merged), logits(model), atol=1e-4)
    assert not torch.equal(merged.lm_head.weight, merged.model.embed_tokens.weight)
    again = load(export_merged(merged, small_tokenizer, tmp_path / "merged"))
    assert torch.equal(logits(again), logits(merged))


def test_the_tokenizer_comes_along(tiny_llama, small_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(export_merged(tiny_llama(300), small_tokenizer, tmp_path / "merged"))
    assert again(TEXT)["input_ids"] == small_tokenizer(TEXT)["input_ids"]
    assert_same_chat(again, small_tokenizer)
    assert again.eos_token_id == small_tokenizer.eos_token_id and again.pad_token_id == small_tokenizer.pad_token_id


def test_an_old_export_is_replaced_and_nothing_else(tiny_llama, small_tokenizer, tmp_path):
    first, second = tiny_llama(300), tiny_llama(300)
    second.model.embed_tokens.weight.data += 1
    export_merged(first, small_tokenizer, tmp_path / "merged")
    (tmp_path / "merged" / "model-00001-of-00002.safetensors").write_text("of an older export")
    (tmp_path / "merged" / manifest.NAME).unlink()
    manifest.write(tmp_path / "merged")
    folder = export_merged(second, small_tokenizer, tmp_path / "merged")
    assert torch.equal(logits(load(folder)), logits(second))
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(LabError, match=r"merged holds thesis\.docx, which would be mixed.*an empty or a new folder"):
        export_merged(first, small_tokenizer, folder)
    assert (folder / "thesis.docx").read_text() == "years of work"
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]  # no scratch folder left


@pytest.mark.parametrize("name, text", [("vocab.txt", "words"), ("config.json", '{"port": 80}'), ("config.json", "")])
def test_what_only_looks_like_an_export_is_refused(tiny_llama, small_tokenizer, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(LabError, match=f"holds {name}, and no list of an earlier export.*would be lost"):
        export_merged(tiny_llama(300), small_tokenizer, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, text)]


def contents(folder) -> dict:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_base_models_own_folder_is_never_replaced(tiny_llama, small_tokenizer, tmp_path):
    """Nor an export without its list, as by an earlier version: the two look alike."""
    tiny_llama(300).save_pretrained(tmp_path / "base")
    small_tokenizer.save_pretrained(tmp_path / "base")
    old = export_merged(tiny_llama(300), small_tokenizer, tmp_path / "old")
    (old / manifest.NAME).unlink()
    for damage in (None, "", "{", "[]", '{"sha256": ["config.json"]}', '{"sha256": {"config.json": 3}}'):
        for folder in (tmp_path / "base", old):
            if damage is not None:
                (folder / manifest.NAME).write_text(damage)
            before = contents(folder)
            with pytest.raises(LabError, match=rf"{folder} holds .*config\.json.*would be lost.*delete the folder"):
                export_merged(tiny_llama(300), small_tokenizer, folder)
            assert contents(folder) == before


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt", "vocab.json", "model-00001-of-00002.safetensors", "a/b"])
def test_a_persons_file_among_an_exports_stays_whatever_its_name(tiny_llama, small_tokenizer, tmp_path, name):
    folder = export_merged(tiny_llama(300), small_tokenizer, tmp_path / "merged")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("words that I know")
    before = contents(folder)
    with pytest.raises(LabError, match=f"merged holds {name}, which would be mixed.*an empty or a new folder"):
        export_merged(tiny_llama(300), small_tokenizer, folder)
    assert contents(folder) == before


def test_a_change_of_an_exported_file_is_not_lost(tiny_llama, small_tokenizer, tmp_path):
    folder = export_merged(tiny_llama(300), small_tokenizer, tmp_path / "merged")
    assert set(json.loads((folder / manifest.NAME).read_text())["sha256"]) == contents(folder).keys() - {manifest.NAME}
    (folder / "tokenizer_config.json").write_text("{}")
    before = contents(folder)
    with pytest.raises(LabError, match=r"tokenizer_config\.json was changed since it was exported"):
        export_merged(tiny_llama(300), small_tokenizer, folder)
    assert contents(folder) == before
    (folder / "tokenizer_config.json").unlink()  # one that is gone is not missed
    export_merged(tiny_llama(300), small_tokenizer, folder)
    export_merged(tiny_llama(300), small_tokenizer, folder)


class Doubled:
    """A callable object of a person's own."""

    def __call__(self, *arguments):
        return None


@pytest.mark.parametrize("write", [export_merged, export_gguf])
def test_what_no_file_can_hold_is_refused(tiny_llama, small_tokenizer, tmp_path, write):
    """Forward hooks and a replaced forward change the answers; what transformers and accelerate add does not."""
    import functools

    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model = tiny_llama(300)
    layer = model.model.layers[1].mlp
    for register in (layer.register_forward_hook, layer.register_forward_pre_hook):
        for hook in (lambda *_: None, Doubled()):
            handle = register(hook)
            with pytest.raises(LabError, match=r"model\.layers\.1\.mlp has a forward hook .*handle\.remove"):
                write(model, small_tokenizer, tmp_path / "no")
            handle.remove()
    forward = layer.forward
    layer.forward = functools.wraps(forward)(lambda x: 2 * forward(x))
    with pytest.raises(LabError, match=r"model\.layers\.1\.mlp has another forward .*del module\.forward"):
        write(model, small_tokenizer, tmp_path / "no")
    del layer.forward
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        model(input_ids=torch.ones(1, 3).long(), output_hidden_states=True)
    model.enable_input_require_grads()
    add_hook_to_module(model.model.layers[0], AlignDevicesHook("cpu"))
    write(model, small_tokenizer, tmp_path / "yes")


@pytest.mark.parametrize("write", [export_merged, export_gguf])
@pytest.mark.parametrize("field, value", [
    ("rms_norm_eps", float("inf")), ("rms_norm_eps", float("nan")),
    ("rope_parameters.rope_theta", -float("inf")),
])  # fmt: skip
def test_a_number_of_the_config_that_is_none_is_named(tiny_llama, small_tokenizer, tmp_path, write, field, value):
    model = tiny_llama(300)
    if "." in field:
        model.config.rope_parameters["rope_theta"] = value
    else:
        setattr(model.config, field, value)
    with pytest.raises(LabError, match=rf"config\.{field} is {value}, which is not a number"):
        write(model, small_tokenizer, tmp_path / "no")
    model = tiny_llama(300)
    model.generation_config.temperature = value
    with pytest.raises(LabError, match=rf"generation_config\.temperature is {value}"):
        write(model, small_tokenizer, tmp_path / "no")
    assert list(tmp_path.iterdir()) == []


def test_infinity_that_a_config_has_by_itself_is_accepted():
    from types import SimpleNamespace

    from transformers import Mamba2Config

    model = SimpleNamespace(config=Mamba2Config(), state_dict=dict)
    assert float("inf") in model.config.time_step_limit
    require_finite(model)
    model.config.time_step_limit = (float("inf"), float("inf"))
    with pytest.raises(LabError, match=r"config\.time_step_limit\[0\] is inf"):
        require_finite(model)


@pytest.mark.parametrize("write", [export_merged, export_gguf])
def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tiny_llama, small_tokenizer, tmp_path, write):
    with pytest.raises(LabError, match=r"token 299, .* has no row in the model's embedding of 299 rows: model\.resize"):
        write(tiny_llama(299), small_tokenizer, tmp_path / "no")
    write(tiny_llama(301), small_tokenizer, tmp_path / "yes")
    assert [path.name for path in tmp_path.iterdir()] == ["yes"]


@pytest.mark.parametrize("write", [export_merged, export_gguf])
@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "a" * 300, None, 3], ids=ascii)
def test_what_cannot_be_a_path_is_named(tiny_llama, small_tokenizer, write, path):
    with pytest.raises(LabError, match="path"):
        write(tiny_llama(300), small_tokenizer, path)


def test_a_failed_write_leaves_the_old_export(tiny_llama, small_tokenizer, tmp_path, monkeypatch):
    folder = export_merged(tiny_llama(300), small_tokenizer, tmp_path / "merged")
    file = export_gguf(tiny_llama(len(small_tokenizer)), small_tokenizer, tmp_path / "model.gguf")
    before = file.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabError, match="No space left"):
        export_gguf(tiny_llama(len(small_tokenizer)), small_tokenizer, file)
    monkeypatch.setattr(type(small_tokenizer), "save_pretrained", full)
    with pytest.raises(LabError, match="No space left"):
        export_merged(tiny_llama(300), small_tokenizer, folder)
    assert file.read_bytes() == before and torch.equal(logits(load(folder)), logits(tiny_llama(300)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "model.gguf"]


@pytest.mark.parametrize("write", [export_merged, export_gguf])
def test_what_is_not_merged_is_refused(tiny_llama, small_tokenizer, tmp_path, write):
    with pytest.raises(LabError, match="not plain"):
        write(adapt(tiny_llama(300)), small_tokenizer, tmp_path / "out")
    with pytest.raises(LabError, match="not plain"):
        write(four_bit(tiny_llama(300)), small_tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quantization", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_loads_and_answers_as_the_model_did(tiny_llama, small_tokenizer, tmp_path, quantization, tied):
    """Grouped heads (4 and 2), so that q and k are reordered by their own numbers of heads."""
    merged = into_dequantized(adapt(tiny_llama(len(small_tokenizer), tie_word_embeddings=tied)))
    file = export_gguf(merged, small_tokenizer, tmp_path / "tiny.gguf", quantization)
    again = load(tmp_path, gguf_file=file.name, dtype=torch.float32)
    theirs, ours = again.state_dict(), merged.state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in ours.items():
        error = (theirs[name] - weight).abs().max() / weight.abs().max()
        assert error <= (HALVES[quantization] if weight.ndim > 1 else 0), name
    found, expected = logits(again), logits(merged)
    assert float((found - expected).norm() / expected.norm()) <= 8 * HALVES[quantization]
    if quantization == "F32":
        assert torch.equal(found, expected)


def test_the_gguf_file_carries_configuration_and_tokenizer(tiny_llama, small_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    from lab_utils.quiet import quiet

    rope = {"rope_type": "default", "rope_theta": 77000.0}
    model = tiny_llama(len(small_tokenizer) + 3, rope_parameters=rope, head_dim=32)
    file = export_gguf(model, small_tokenizer, tmp_path / "tiny.gguf")
    with quiet():
        again = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    config = load(tmp_path, gguf_file=file.name).config
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                 "head_dim", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings"):  # fmt: skip
        assert getattr(config, name) == getattr(model.config, name), name
    assert config.rms_norm_eps == pytest.approx(model.config.rms_norm_eps)
    assert config.rope_parameters["rope_theta"] == 77000.0
    text = f"<|im_start|>user\n{TEXT}<|im_end|>"
    assert again(text)["input_ids"] == small_tokenizer(text)["input_ids"]
    assert_same_chat(again, small_tokenizer)
    assert (again.bos_token_id, again.eos_token_id, again.pad_token_id) == (1, 2, 2)


def test_the_gguf_file_says_what_the_embedded_models_own_file_says(tiny_llama, tokenizer, tmp_path):
    """The tokenizer's fields of SmolLM2-135M-Instruct.Q4_1.gguf, which llama.cpp's own converter wrote.

    Only `pre` differs: transformers reads "smollm" as GPT-2's way to split text, and so the course's tokenizer does. No
    merge of this vocabulary joins digits, so both ways give the same tokens.
    """
    from gguf import GGUFReader

    reader = GGUFReader(export_gguf(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "tiny.gguf", "Q8_0"))
    expected = {
        "general.architecture": "llama", "general.quantization_version": 2, "general.file_type": 7,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 2,
        "llama.rope.dimension_count": 16, "llama.attention.head_count_kv": 2,
    }  # fmt: skip
    assert {key: reader.fields[key].contents() for key in expected} == expected
    tokens, merges = (reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    assert len(tokens) == 49152 and len(merges) == 48900
    assert tokens[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] and merges[:2] == ["Ġ t", "Ġ a"]
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    assert kinds[:17] == [3] * 17 and set(kinds[17:]) == {1}  # 17 control tokens, then normal ones
    digits = set("0123456789")
    assert not [pair for pair in merges if all(set(part.strip("Ġ")) & digits for part in pair.split())]


def test_digits_split_one_by_one_are_told_to_llama_cpp(tiny_llama, small_tokenizer, tmp_path):
    import copy

    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    other = copy.deepcopy(small_tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    reader = GGUFReader(export_gguf(tiny_llama(len(small_tokenizer)), other, tmp_path / "tiny.gguf"))
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    for wrong in (pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True)):
        other.backend_tokenizer.pre_tokenizer = wrong
        with pytest.raises(LabError, match="another kind"):
            export_gguf(tiny_llama(len(small_tokenizer)), other, tmp_path / "no.gguf")
    assert not (tmp_path / "no.gguf").exists()


def test_models_that_the_format_would_garble_are_refused(tiny_llama, small_tokenizer, tmp_path):
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    for changes, what in (({"attention_bias": True}, "attention_bias"), ({"rope_parameters": scaled}, "rope_type")):
        with pytest.raises(LabError, match=what):
            export_gguf(tiny_llama(len(small_tokenizer), **changes), small_tokenizer, tmp_path / "no.gguf")
    with pytest.raises(LabError, match="Unknown GGUF type 'Q4_K'"):
        export_gguf(tiny_llama(len(small_tokenizer)), small_tokenizer, tmp_path / "no.gguf", "Q4_K")
    large = tiny_llama(len(small_tokenizer))
    large.model.layers[0].mlp.up_proj.weight.data[0, 0] = 70_000
    with pytest.raises(LabError, match=r"ffn_up.*65504"):
        export_gguf(large, small_tokenizer, tmp_path / "no.gguf", "F16")
    export_gguf(large, small_tokenizer, tmp_path / "yes.gguf", "BF16")
    assert [path.name for path in tmp_path.iterdir()] == ["yes.gguf"]


def test_another_family_is_refused(small_tokenizer, tmp_path):
    from lora_models import build_gpt2

    with pytest.raises(LabError, match="gpt2"):
        export_gguf(build_gpt2(), small_tokenizer, tmp_path / "no.gguf")
