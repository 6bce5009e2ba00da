"""Your own model, in a folder: ten families and a mixture of experts, each through all that the lab does with it.

They are tiny, with random weights, built from transformers' configurations. What is not loaded is refused in words.
"""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from export_models import build_tokenizer
from tiny_runs import stopping_after
from unfolded import unfolded

from lab_utils.decoding import generate
from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune import Recipe, attach_adapter, finetune, speed_up
from lab_utils.finetune.conversation import end_of_turn, padding_token, render
from lab_utils.merging.checked import distance
from lab_utils.merging.export import export_gguf, export_merged
from lab_utils.merging.places import into_dequantized, into_original
from lab_utils.models import load_base, load_tokenizer, name_of
from lab_utils.models.catalogue import float16_warning
from lab_utils.models.chat_template import give_template
from lab_utils.models.sources import find_source, model_name
from lab_utils.serving.adapter_records import base_of, recorded_adapter
from lab_utils.serving.answers import load_bank

SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "initializer_range": 0.1,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
GPT2 = {
    "vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.1,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
LLAMA_LIKE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
FAMILIES = {  # model_type: (settings, linear layers by name, in one layer)
    "llama": (SIZES, LLAMA_LIKE),
    "qwen2": (SIZES, LLAMA_LIKE),
    "qwen3": (SIZES, LLAMA_LIKE),
    "phi3": (SIZES, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    "gemma2": ({**SIZES, "query_pre_attn_scalar": 16}, LLAMA_LIKE),
    "gemma3_text": ({**SIZES, "query_pre_attn_scalar": 16}, LLAMA_LIKE),
    "mistral": (SIZES, LLAMA_LIKE),
    "gpt2": (GPT2, {"c_attn", "c_proj", "c_fc"}),
    "olmo2": (SIZES, LLAMA_LIKE),
    "granite": (SIZES, LLAMA_LIKE),
    "qwen3_moe": ({**SIZES, **EXPERTS}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
}
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
ROWS = [
    {"prompt": f"put {count} {thing} down", "answer": f"{count} {thing}, arr"}
    for count, thing in ((3, "pens"), (7, "cups"), (2, "maps"), (9, "jars"))
]
EXACT = Device("cpu", "any", "float32", "so that runs agree to rounding")


def save(folder: Path, family: str, template: str | None = CHAT, tokenizer: bool = True) -> Path:
    """Write a family's tiny model and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family][0]))
    model.save_pretrained(folder)
    if tokenizer:
        found = build_tokenizer()
        found.chat_template = template
        found.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function that gives a family's folder, written once: GPT-2 without a template, Gemma without a system role."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            template = {"gpt2": None, "gemma2": NO_SYSTEM}.get(family, CHAT)
            made[family] = save(tmp_path_factory.mktemp(family), family, template)
        return made[family]

    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_everything(folders, tmp_path, family):
    """Targets, nf4, steps that lower the loss, resume, answers, merge, export."""
    from bitsandbytes.nn import Linear4bit

    folder = folders(family)
    base = load_base(folder, "nf4", EXACT, verbose=False)
    assert name_of(base[0]) == str(folder.resolve())
    packed = {name.rpartition(".")[2] for name, one in base[0].named_modules() if isinstance(one, Linear4bit)}
    assert packed == FAMILIES[family][1]

    recipe = Recipe(task="style", rank=4, steps=3, learning_rate=0.02, checkpoint_every=1)
    run = finetune(recipe, tmp_path / "run", base=base, dataset=ROWS, progress=False)
    assert run.recipe.model == str(folder.resolve())
    adapted = [name.partition(".lora_A")[0] for name, _ in run.model.named_parameters() if "lora_A" in name]
    targets = {name.removesuffix(".base_layer").rpartition(".")[2] for name in adapted}
    assert targets == packed | ({"gate", "experts"} if family == "qwen3_moe" else set())
    assert run.history[-1]["loss"] < 0.95 * run.history[0]["loss"]
    learned = {name: one.detach().clone() for name, one in run.model.named_parameters() if one.requires_grad}

    with contextlib.suppress(KeyboardInterrupt), stopping_after(2):
        finetune(recipe, tmp_path / "again", base=base, dataset=ROWS, progress=False)
    again = finetune(recipe, tmp_path / "again", base=base, dataset=ROWS, progress=False)
    assert again.resumed_from == 2
    for name, one in again.model.named_parameters():
        assert not one.requires_grad or torch.equal(one, learned[name]), name

    model, tokenizer = again.model.eval(), again.tokenizer
    assert len(generate(model, tokenizer, [ROWS[0]["prompt"]], "style", max_new_tokens=4)) == 1
    if family == "qwen3_moe":
        with pytest.raises(LabError, match=r"mlp\.experts has an adapter of peft's kind .* cannot be merged here"):
            into_dequantized(model)
        return
    merged = into_dequantized(model)
    ids = torch.tensor([[5, 9, 70, 41, 2]])
    torch.testing.assert_close(merged(ids).logits, model(ids).logits, rtol=1e-3, atol=1e-3)
    exported = export_merged(merged, tokenizer, tmp_path / "merged")
    back, _ = load_base(exported, "none", EXACT, verbose=False)
    assert torch.equal(back(ids).logits, merged(ids).logits)
    if family == "llama":
        assert export_gguf(merged, tokenizer, tmp_path / "merged.gguf").stat().st_size > 0
    else:
        with pytest.raises(LabError, match="Llama"):
            export_gguf(merged, tokenizer, tmp_path / "merged.gguf")


def test_gpt2_merges_into_its_original_weights_too(folders, tmp_path):
    """Its matrices are (in, out), and (out, in) in 4 bits."""
    base = load_base(folders("gpt2"), "nf4", EXACT, verbose=False)
    recipe = Recipe(task="style", rank=4, steps=2, learning_rate=0.02)
    model = finetune(recipe, tmp_path / "run", base=base, dataset=ROWS, progress=False).model.eval()
    original, tokenizer = load_base(folders("gpt2"), "none", EXACT, verbose=False)
    exported = export_merged(into_original(model, original), tokenizer, tmp_path / "merged")
    back, ids = load_base(exported, "none", EXACT, verbose=False)[0], torch.tensor([[5, 9, 70, 41, 2]])
    change, rounding = distance(back, original, ids), distance(model, into_original(model, original), ids)
    assert change > 0 and rounding < 10  # finite
    layer = model.get_submodule("base_model.model.transformer.h.1.attn.c_attn")
    update = layer.scaling["default"] * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)
    expected = original.transformer.h[1].attn.c_attn.weight + update.T
    torch.testing.assert_close(back.transformer.h[1].attn.c_attn.weight, expected)


# ---- conversations ----


def test_without_a_chat_template_there_is_a_plain_one_and_that_is_said(folders, capsys):
    _, tokenizer = load_base(folders("gpt2"), "none", EXACT)
    assert "no chat template" in (said := unfolded(capsys.readouterr().out)) and "blank lines" in said
    talk = [{"role": role, "content": text} for role, text in (("system", "S"), ("user", "U"), ("assistant", "A"))]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "S\n\nU\n\nA<|im_end|>\n\n"
    assert render(tokenizer, talk[:2]) == "S\n\nU\n\n"
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
    assert load_tokenizer(folders("gpt2")).chat_template == tokenizer.chat_template
    assert "no chat template" in unfolded(capsys.readouterr().out)
    load_base(folders("llama"), "none", EXACT)
    assert "no chat template" not in unfolded(capsys.readouterr().out)


def test_a_template_is_left_alone_and_one_without_an_end_of_text_is_not_made(tokenizer):
    before = tokenizer.chat_template
    assert give_template(tokenizer) == "" and tokenizer.chat_template == before
    bare = build_tokenizer()
    bare.chat_template, bare.eos_token = None, None
    assert give_template(bare) == "" and bare.chat_template is None


def test_without_a_system_role_its_text_opens_the_first_user_turn(folders):
    _, tokenizer = load_base(folders("gemma2"), "none", EXACT, verbose=False)
    text = render(tokenizer, [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}])
    assert text == "<|im_start|>user\nBe kind.\n\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_padding_token_there_is_one_and_both_ways_of_loading_agree(tmp_path):
    folder = save(tmp_path / "m", "llama", tokenizer=False)
    bare = build_tokenizer()
    bare.chat_template, bare.pad_token = CHAT, None
    bare.save_pretrained(folder)
    (model, one), other = load_base(folder, "none", EXACT, verbose=False), load_tokenizer(folder)
    assert one.pad_token_id == other.pad_token_id == one.eos_token_id == padding_token(one)
    assert model.generation_config.pad_token_id is not None


def test_what_its_authors_recommend_for_sampling_does_not_change_greedy_answers(folders, tmp_path):
    """A repetition penalty works without sampling too."""
    import shutil

    folder = Path(shutil.copytree(folders("llama"), tmp_path / "m"))
    theirs = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 2, "eos_token_id": [2, 0], "max_length": 30}
    (folder / "generation_config.json").write_text(json.dumps(theirs))
    plain, _ = load_base(folders("llama"), "none", EXACT, verbose=False)
    model, _ = load_base(folder, "none", EXACT, verbose=False)
    assert model.generation_config.eos_token_id == [2, 0]
    ids = torch.tensor([[5, 9, 70, 41]])
    answers = [one.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None) for one in (model, plain)]
    assert torch.equal(*answers)


# ---- by name ----


def test_a_recipe_and_the_command_line_take_a_folder_or_a_hub_name(folders, tmp_path, monkeypatch):
    folder = folders("llama")
    assert Recipe(model=folder).model == Recipe(model=str(folder)).model == str(folder.resolve())
    monkeypatch.chdir(folder.parent)
    assert model_name(folder.name) == model_name(f"./{folder.name}") == str(folder.resolve())
    assert Recipe.from_text({"model": f"./{folder.name}"}).model == str(folder.resolve())
    assert Recipe(model="somebody/some-model_1.5").model == "somebody/some-model_1.5"
    assert Recipe(model="/gone/model").model == "/gone/model"  # of a record from another machine
    for wrong in ("gpt-9", "", "a b/c", 7, None, ["smollm2-135m"]):
        with pytest.raises(LabError, match=r"Unknown model .*folder.*owner/name"):
            Recipe(model=wrong)
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(LabError, match=r"is a file\. Name the folder"):
        model_name(str(tmp_path / "model.safetensors"))


def test_a_folder_is_trained_by_its_name_alone_and_the_record_has_it(folders, tmp_path):
    folder = folders("llama")
    recipe = Recipe(model=folder, task="style", rank=4, steps=1, checkpoint_every=1)
    run = finetune(recipe, tmp_path, dataset=ROWS, progress=False)
    record = json.loads((tmp_path / "checkpoint-000001" / "record.json").read_text())
    assert record["recipe"]["model"] == run.recipe.model == str(folder.resolve())
    assert record["identity"]["base"]["weights"]  # a digest: a folder of that name with other weights is another base
    assert Recipe(**record["recipe"]) == run.recipe


def test_an_adapter_is_served_on_the_base_that_its_record_names(folders, tmp_path):
    runs = {}
    for family in ("llama", "qwen2"):
        recipe = Recipe(model=folders(family), task="style", rank=4, steps=1)
        runs[family] = finetune(recipe, tmp_path / family, dataset=ROWS, progress=False).adapter_dir
    bank = load_bank({"mine": runs["qwen2"]})
    assert name_of(bank.model) == str(folders("qwen2").resolve()) and bank.names == ["mine"]
    assert base_of(recorded_adapter("style")) == "smollm2-135m"
    with pytest.raises(LabError, match=r"trained on different bases \(llama on .*, qwen2 on"):
        load_bank(runs)


def test_a_hub_model_without_a_network_says_so(monkeypatch):
    def offline(where):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("lab_utils.models.registry._tokenizer", offline)
    with pytest.raises(LabError, match=r"somebody/else .*could not be loaded from the Hugging Face hub"):
        load_base("somebody/else", verbose=False)


# ---- what is not loaded ----


def pickled(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def config(**changes):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def without(*names: str):
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


REFUSED = {
    "pickle": (pickled, r"is refused: its weights are a pickle \(pytorch_model\.bin\).*save_pretrained.*safetensors"),
    "code": (
        config(model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}),
        r"is refused: it needs a program .*trust_remote_code",
    ),
    "unknown": (config(model_type="not_yet_known"), "transformers has no causal language model of this architecture"),
    "stored in 4 bits": (config(quantization_config={"quant_method": "gptq"}), r"stored quantized .*: gptq"),
    "reads first": (config(is_encoder_decoder=True), "is_encoder_decoder"),
    "no config": (without("config.json"), "has no config.json"),
    "an adapter": (an_adapter, "holds an adapter and no model: name the base"),
    "no weights": (without("model.safetensors"), "has no weights"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), r"has no tokenizer.*save_pretrained"),
    "damaged config": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json, line 1"),
    "no table": (lambda folder: (folder / "config.json").write_text("[]"), "no table of keys and values"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_loaded_is_refused_with_the_reason(folders, tmp_path, what):
    import shutil

    change, words = REFUSED[what]
    folder = Path(shutil.copytree(folders("llama"), tmp_path / "m"))
    change(folder)
    with pytest.raises(LabError, match=words) as caught:
        load_base(folder, "none", EXACT, verbose=False)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_gone_is_named():
    with pytest.raises(LabError, match="There is no model folder /gone/model"):
        find_source("/gone/model")
    with pytest.raises(LabError, match="names no model yet"):
        find_source("auto")


def test_a_model_that_reads_what_comes_after_is_no_language_model(tmp_path):
    from transformers import BertConfig, BertLMHeadModel

    settings = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")}
    torch.manual_seed(0)
    BertLMHeadModel(BertConfig(**settings, num_attention_heads=4, initializer_range=0.2)).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LabError, match=r"BertLMHeadModel\) reads the words after a place"):
        load_base(tmp_path, "none", EXACT, verbose=False)


def test_a_model_that_does_not_compute_in_4_bits_is_refused(tmp_path):
    """Mamba takes its weights out of its layers."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=64, num_hidden_layers=1, state_size=8)).save_pretrained(
        tmp_path
    )
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LabError, match=r"does not compute .*quantization='none'"):
        load_base(tmp_path, "nf4", EXACT, verbose=False)


def test_what_an_adapted_layer_gives_may_be_changed_in_place(folders):
    """Gemma 3n scales it so."""
    model = attach_adapter(load_base(folders("llama"), "nf4", EXACT, verbose=False)[0], Recipe(rank=2))
    assert speed_up(model) == 14
    layer = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.1)
    x, gradients = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0)), []
    for in_place in (True, False):
        model.zero_grad()
        y = layer(x)
        if in_place:
            y *= 2
        else:
            y = y * 2
        y.square().sum().backward()
        gradients.append(layer.lora_A["default"].weight.grad.clone())
    assert torch.equal(*gradients)


def test_experts_are_mentioned(folders, capsys):
    load_base(folders("qwen3_moe"), "none", EXACT)
    assert "experts in tensors of three dimensions" in unfolded(capsys.readouterr().out)


@pytest.mark.parametrize(("family", "dtype", "warned"), [("qwen2", "float16", True), ("qwen2", "bfloat16", False),
                                                         ("gemma3_text", "float16", True), ("llama", "float16", False)])
def test_float16_is_warned_of_where_it_is_known_to_overflow(family, dtype, warned):
    assert bool(float16_warning("mine", family, dtype)) is warned
