"""What an AdapterBank loads is all that the file holds, does what peft makes of it, and leaves the base alone; what
cannot be so is refused, and the bank is as before."""

import json
import math
import shutil

import pytest
import torch
from lora_models import build_gpt2, pefts_known_warnings
from safetensors.torch import load_file, save_file

from lab_utils.errors import LabError
from lab_utils.finetune.peft_adapters import adapter_tensors, load_tensors
from lab_utils.serving.adapter_records import task_of
from lab_utils.serving.bank import AdapterBank

pytestmark = pefts_known_warnings
IDS = torch.randint(3, 61, (3, 12), generator=torch.Generator().manual_seed(0))
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save(base, folder, seed=0, **changes):
    """Write a random adapter for `base` as peft would."""
    from peft import LoraConfig, get_peft_model

    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **changes}
    model = get_peft_model(base, LoraConfig(**config))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny_llama, tmp_path):
    return save(tiny_llama(), tmp_path / "one", 1)


@pytest.fixture
def bank(tiny_llama, folder):
    bank = AdapterBank(tiny_llama(), None)
    bank.load("one", folder)
    return bank


def by_peft(base, folder):
    from peft import PeftModel

    with torch.no_grad():
        return PeftModel.from_pretrained(base, folder).eval()(input_ids=IDS).logits


def changed(folder, tmp_path, state=None, config=None):
    """A copy of an adapter's folder with other tensors or another config."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    if state:
        save_file(state({key: one.clone() for key, one in load_file(copy / WEIGHTS).items()}), copy / WEIGHTS)
    if config:
        (copy / CONFIG).write_text(json.dumps({**json.loads((copy / CONFIG).read_text()), **config}))
    return copy


def assert_holds(model, state, name):
    """An adapter of a model has exactly the tensors of a file, by name and by value."""
    held = adapter_tensors(model, name)
    assert held.keys() == state.keys()
    assert all(torch.equal(one, state[key]) for key, one in held.items())


def refused(bank, folder, message):
    """Loading is refused with that message, and the bank answers and looks as before."""
    before, modules = bank.logits(IDS, "one"), [name for name, _ in bank.model.named_modules()]
    with pytest.raises(LabError, match=message):
        bank.load("bad", folder)
    with pytest.raises(LabError, match=message):
        bank.swap("one", folder)
    assert [name for name, _ in bank.model.named_modules()] == modules
    assert bank.names == ["one"] and torch.equal(bank.logits(IDS, "one"), before)


SPELLINGS = {
    "without peft's prefix": lambda key: key.removeprefix("base_model.model."),
    "with an adapter's name": lambda key: key.replace(".weight", ".default.weight"),
    "with DDP's prefix": lambda key: f"module.{key}",
    "from a compiled model": lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_keys_does_the_same(bank, tiny_llama, folder, tmp_path, spelling):
    expected = by_peft(tiny_llama(), folder)
    respelled = changed(folder, tmp_path, lambda state: {SPELLINGS[spelling](key): one for key, one in state.items()})
    bank.load("two", respelled)
    assert torch.equal(bank.logits(IDS, "two"), expected)
    assert not torch.equal(bank.logits(IDS, None), expected)
    bank.swap("one", respelled)
    assert torch.equal(bank.logits(IDS, "one"), expected)


KINDS = {
    "plain": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True}, "biases of B": {"lora_bias": True},
    "two ranks and alphas": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.1\..*q_proj": 3}},
    "embedding": {"target_modules": ["embed_tokens", "k_proj"]}, "head": {"target_modules": ["lm_head", "k_proj"]},
    "a pattern": {"target_modules": r".*\.1\..*(k|down)_proj"}, "eva": {"init_lora_weights": "eva"},
    "excluding": {"exclude_modules": ["layers.0.self_attn.q_proj"]}, "all linear": {"target_modules": "all-linear"},
    "a bias of none": {"bias": "all"}, "a module that is not there": {"modules_to_save": ["classifier"]},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_as_peft_makes_it(tiny_llama, folder, tmp_path, kind):
    saved = save(tiny_llama(), tmp_path / "kind", 5, **KINDS[kind])
    bank = AdapterBank(tiny_llama(), None)
    base = bank.logits(IDS, None)
    bank.load("first", saved)
    bank.load("one", folder)
    bank.load("layers", saved)  # a name that is in the names of modules too
    expected = by_peft(tiny_llama(), saved)
    for name in ("first", "layers"):
        assert torch.equal(bank.logits(IDS, name), expected)
        file = {key: one for key, one in load_file(saved / WEIGHTS).items() if ".lora_" in key}
        assert_holds(bank.model, file, name)
    assert torch.equal(bank.logits(IDS, None), base)
    assert torch.equal(bank.logits(IDS, "one"), by_peft(tiny_llama(), folder))
    if kind != "DoRA":  # which peft does not mix
        mixed = bank.logits(IDS, ["first", None, "one"])
        for row, name in enumerate(("first", None, "one")):
            assert torch.allclose(mixed[row], bank.logits(IDS, name)[row], atol=1e-4)


def test_gpt2s_transposed_layers_answer_as_peft_makes_them(tmp_path):
    saved = save(build_gpt2(), tmp_path, 5, target_modules=["c_attn", "c_proj", "wte"], fan_in_fan_out=True)
    bank = AdapterBank(build_gpt2(), None)
    bank.load("one", saved)
    assert torch.equal(bank.logits(IDS, "one"), by_peft(build_gpt2(), saved))
    by_hand = build_gpt2()
    for layer in bank.layers:
        if layer != "transformer.wte":
            by_hand.get_submodule(layer).weight.data += bank.delta("one", layer)
    table = by_hand.transformer.wte.weight.data.clone() + bank.delta("one", "transformer.wte")
    by_hand.transformer.wte.weight = torch.nn.Parameter(table)  # without the head, which is tied to it
    with torch.no_grad():
        assert torch.allclose(by_hand(input_ids=IDS).logits, bank.logits(IDS, "one"), atol=1e-4)


@pytest.mark.parametrize("how", ["cat", "linear", "svd"])
def test_sums_of_adapted_embeddings(tiny_llama, tmp_path, how):
    bank = AdapterBank(tiny_llama(), None)
    for seed, rslora in ((1, False), (2, True)):
        config = {"target_modules": ["embed_tokens", "k_proj"], "use_rslora": rslora}
        bank.load(f"a{seed}", save(tiny_llama(), tmp_path / str(seed), seed, **config))
    bank.combine("sum", {"a1": 1.0}, how)
    for layer in bank.layers:
        assert torch.allclose(bank.delta("sum", layer), bank.delta("a1", layer), atol=1e-5)
    bank.combine("both", {"a1": 0.3, "a2": 0.7})
    for layer in bank.layers:
        wanted = 0.3 * bank.delta("a1", layer) + 0.7 * bank.delta("a2", layer)
        assert bool(wanted.any()) and torch.allclose(bank.delta("both", layer), wanted, atol=1e-5)


KEY = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_adapter_that_is_not_finite_is_refused(bank, folder, tmp_path, value):
    def damage(state):
        state[KEY][7, 2] = value
        return state

    refused(bank, changed(folder, tmp_path, damage), r"layers\.1.*lora_B\.weight\[7, 2\] is (nan|inf).*not its base")


def test_a_number_beyond_float32_is_refused(bank, folder, tmp_path):
    def damage(state):
        return {key: one.double() + (1e300 if key == KEY else 0) for key, one in state.items()}

    with pytest.raises(LabError, match=r"lora_B\.weight\[0, 0\] is inf"):
        bank.load("bad", changed(folder, tmp_path, damage))
    assert bank.names == ["one"] and "bad" not in bank.model.peft_config


def test_tensors_that_config_or_base_do_not_have_are_refused(bank, folder, tmp_path):
    refused(bank, changed(folder, tmp_path, config={"target_modules": ["q_proj"]}), "leaves out .*v_proj")
    state = {key.replace("layers.1", "layers.9"): one for key, one in load_file(folder / WEIGHTS).items()}
    refused(bank, changed(folder, tmp_path, lambda _: state), r"no layer model\.layers\.9")
    more = {f"base_model.model.model.norm.lora_{part}.weight": torch.zeros(4, 4) for part in "AB"}
    named = changed(folder, tmp_path, lambda old: {**old, **more}, {"target_modules": ["q_proj", "v_proj", "norm"]})
    refused(bank, named, "model.norm is a LlamaRMSNorm, which LoRA cannot adapt|no layer model.layers.9")


@pytest.mark.parametrize("lost", ["layers.1.", ".v_proj.", "layers.1.self_attn.v_proj"])
@pytest.mark.parametrize("config", [{}, {"target_modules": r".*\.[qv]_proj"}, {"layers_to_transform": [0, 1]}])
def test_half_an_adapter_is_refused(bank, folder, tmp_path, lost, config):
    """peft's list of names may hold more than the model has, but what the model has needs its tensors."""
    half = changed(folder, tmp_path, lambda old: {key: one for key, one in old.items() if lost not in key}, config)
    refused(bank, half, r"changed is incomplete: .*target_modules=.*v_proj|q_proj of this base too")
    wider = {"target_modules": ["q_proj", "v_proj", "query_key_value"], "layers_to_transform": None}
    more = changed(folder, tmp_path, lambda _: load_file(folder / WEIGHTS), wider)
    bank.load("more", more)
    assert torch.equal(bank.logits(IDS, "more"), bank.logits(IDS, "one"))


def test_layers_that_the_config_names_and_leaves_out_need_no_tensors(tiny_llama, folder, tmp_path):
    bank = AdapterBank(tiny_llama(num_hidden_layers=3), None)
    with pytest.raises(LabError, match=r"incomplete: .*means model\.layers\.2\.self_attn\.q_proj of this base too"):
        bank.load("fewer", folder)
    bank.load("first", changed(folder, tmp_path, config={"layers_to_transform": [0, 1]}))
    bank.load("again", changed(folder, tmp_path, config={"exclude_modules": r".*layers\.2\..*"}))  # on peft's layers
    assert torch.equal(bank.logits(IDS, "again"), bank.logits(IDS, "first"))
    with pytest.raises(LabError, match="makes a model of 2 layers, and this base has 3 layers"):
        bank.load("cut", changed(folder, tmp_path, config={"layer_replication": [[0, 2]]}))


def test_what_cannot_be_a_path_is_named(bank):
    for path in ("a\0b", "a\ud800b", "a" * 300, None, 3):
        with pytest.raises(LabError, match="path"):
            bank.load("bad", path)
    assert bank.names == ["one"]


def test_the_base_that_it_was_trained_on_is_told(bank, folder, tmp_path):
    wide = {key: torch.zeros(4, 96) if "lora_A" in key else one for key, one in load_file(folder / WEIGHTS).items()}
    other = changed(folder, tmp_path, lambda _: wide, {"base_model_name_or_path": "somebody/wide"})
    refused(bank, other, r"lora_A of .*q_proj is 4×96, and the layer is 64×64\..*trained on somebody/wide")


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_moves_the_shared_base_is_refused(bank, folder, tmp_path, init):
    refused(bank, changed(folder, tmp_path, config={"init_lora_weights": init}), f"init_lora_weights='{init}'")


def test_weights_of_the_base_may_be_copied_not_changed(bank, tiny_llama, folder, tmp_path):
    base = bank.logits(IDS, None)
    table, key = tiny_llama().model.embed_tokens.weight.detach().clone(), "base_model.model.model.embed_tokens.weight"
    bank.load("with_table", changed(folder, tmp_path, lambda state: {**state, key: table}))
    assert torch.equal(bank.logits(IDS, "with_table"), bank.logits(IDS, "one"))
    bank.unload("with_table")
    trained = changed(folder, tmp_path, lambda state: {**state, key: table + 1})
    refused(bank, trained, r"holds model\.embed_tokens\.weight.*has other numbers.*cannot change it")
    assert torch.equal(bank.logits(IDS, None), base)


def test_modules_to_save_are_explained(bank, tiny_llama, folder, tmp_path):
    saved = save(tiny_llama(), tmp_path / "head", 3, modules_to_save=["lm_head"])
    bank.load("untrained", saved)  # its head is the base's still
    assert torch.equal(bank.logits(IDS, "untrained"), by_peft(tiny_llama(), saved))
    bank.unload("untrained")

    def train(state):
        return {key: one + (0.1 if "lm_head" in key else 0) for key, one in state.items()}

    refused(bank, changed(saved, tmp_path, train), "lm_head was trained as a whole.*Train without modules_to_save")
    refused(bank, changed(folder, tmp_path, config={"modules_to_save": ["lm_head"]}), "do not have that module")


def test_an_interrupted_load_leaves_nothing_behind(bank, folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lab_utils.finetune.peft_adapters.load_tensors", stop)
    with pytest.raises(KeyboardInterrupt):
        bank.load("bad", folder)
    assert "bad" not in bank.model.peft_config and bank.names == ["one"] and bank.active == "one"


def test_a_base_that_is_damaged_or_merged_is_refused(tiny_llama, bank):
    base = tiny_llama()
    base.model.layers[1].mlp.up_proj.weight.data[2, 3] = math.nan
    with pytest.raises(LabError, match=r"layers\.1\.mlp\.up_proj\.weight\[2, 3\] is nan"):
        AdapterBank(base, None)
    bank.model.merge_adapter()
    with pytest.raises(LabError, match="unmerge_adapter"):
        AdapterBank(bank.model, None)


def test_weights_of_a_sum_and_its_result_are_finite(bank):
    for weight in (math.nan, math.inf, "1", None, True, 10**400, -(10**5000)):
        with pytest.raises(LabError, match=r"weights\['one'\]=.*a finite number"):
            bank.combine("sum", {"one": weight})
    for how in ("cat", "linear", "svd"):
        with pytest.raises(LabError, match=r"sum is not finite|combine one by"):
            bank.combine("sum", {"one": 1e42}, how)
        assert bank.names == ["one"] and "sum" not in bank.model.peft_config and bank.active == "one"
    bank.combine("sum", {"one": 1.0})


def test_what_is_more_than_a_product_is_not_added_up(bank, tiny_llama, tmp_path):
    bank.load("dora", save(tiny_llama(), tmp_path / "dora", use_dora=True))
    with pytest.raises(LabError, match="DoRA"):
        bank.delta("dora", bank.layers[0])
    with pytest.warns(UserWarning, match="lora_bias"):
        bank.load("biased", save(tiny_llama(), tmp_path / "biased", lora_bias=True))
    with pytest.raises(LabError, match="biased has biases"):
        bank.combine("sum", {"biased": 1.0})


def test_swapping_takes_harmless_differences_of_the_config(bank, tiny_llama, folder, tmp_path):
    harmless = {"alpha_pattern": {"q_proj": 8}, "rank_pattern": {"q_proj": 4}, "revision": "x"}
    bank.swap("one", changed(folder, tmp_path, config=harmless))
    with pytest.raises(LabError, match="cannot take one's place, the scalings differ"):
        bank.swap("one", changed(folder, tmp_path, config={"alpha_pattern": {"q_proj": 9}}))


def test_load_tensors_takes_all_of_a_file_or_nothing(bank, folder):
    state = load_file(folder / WEIGHTS)
    fewer = {key: one for key, one in state.items() if key != KEY}
    with pytest.raises(LabError, match=r"the model has .*lora_B\.weight and the file does not.*7 tensors.*adapter 8"):
        load_tensors(bank.model, fewer, "one")
    with pytest.raises(LabError, match=r"the file has .*x\.lora_A.weight and the model does not"):
        load_tensors(bank.model, {**state, "x.lora_A.weight": torch.zeros(1, 1)}, "one")
    with pytest.raises(LabError, match=r"is \(1, 1\) in the file and \(64, 4\) in the model"):
        load_tensors(bank.model, {**state, KEY: torch.zeros(1, 1)}, "one")
    assert_holds(bank.model, state, "one")  # nothing was changed


def test_an_adapters_task_is_never_guessed(tiny_llama, tokenizer, tmp_path, folder):
    base = tiny_llama(len(tokenizer))
    bank = AdapterBank(base, tokenizer)
    bank.load("silent", save(tiny_llama(len(tokenizer)), tmp_path / "silent"))
    assert bank.tasks == {"silent": None}
    for tasks in (None, [None]):
        with pytest.raises(LabError, match=r"which task the adapter silent was trained on.*tasks='bookings'"):
            bank.answer(["hello"], ["silent"], tasks)
    assert len(bank.answer(["hello"], "silent", "bookings", max_new_tokens=1)) == 1
    bank.load("said", tmp_path / "silent", task="style")
    assert bank.tasks["said"] == "style" and len(bank.answer(["hello"], ["said"], max_new_tokens=1)) == 1
    bank.swap("said", tmp_path / "silent")
    assert bank.tasks["said"] is None
    with pytest.raises(LabError, match="Unknown task 'poems'"):
        bank.load("other", tmp_path / "silent", task="poems")
    for prompt, message in (("\ud83d", "half a character at place 0"), (3, "a text is needed")):
        with pytest.raises(LabError, match=rf"prompts\[1\].*{message}"):
            bank.answer(["hello", prompt], "silent", "bookings")


def test_a_task_is_read_from_the_record(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    assert task_of(adapter) is None
    for step, task in ((2, "bookings"), (10, "style")):
        (tmp_path / f"checkpoint-{step:06d}").mkdir()
        (tmp_path / f"checkpoint-{step:06d}" / "record.json").write_text(json.dumps({"recipe": {"task": task}}))
    assert task_of(adapter) == "style"  # the last checkpoint of its run
    (adapter / "record.json").write_bytes(b'\xef\xbb\xbf{"recipe": {"task": "dolly"}}')
    assert task_of(adapter) == "dolly"
    for record in ([], {"recipe": 3}, {"recipe": {"task": 3}}):
        (tmp_path / "record.json").write_text(json.dumps(record))
        assert task_of(tmp_path) is None
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(LabError, match=r"record\.json, line 1.*task='bookings', and the record is not read"):
        task_of(tmp_path)


def test_a_damaged_record_does_not_matter_if_the_task_is_named(bank, folder):
    (folder / "record.json").write_bytes(b"\xff{")
    with pytest.raises(LabError, match=r"record\.json is not UTF-8.*task='bookings'"):
        bank.load("two", folder)
    bank.load("two", folder, task="style")
    bank.swap("one", folder, task="style")
    assert bank.tasks == {"one": "style", "two": "style"}
