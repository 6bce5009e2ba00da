"""serving: every adapter answers as it does alone, a sum of adapters is the sum of their updates, and what does not fit
is refused before it changes anything."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.errors import LabError
from lab_utils.serving.adapter_records import recorded_adapter
from lab_utils.serving.bank import AdapterBank
from lab_utils.serving.costs import file_sizes, latency

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.randint(3, 61, (3, 12), generator=torch.Generator().manual_seed(0))


def save(base, folder, seed: int = 0, **changes):
    """Write a random adapter for `base` as peft would, B not zero; `base` itself ends without it."""
    from peft import LoraConfig, get_peft_model

    from lab_utils.finetune.adapter import take_off_adapter

    config = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **changes}
    model = get_peft_model(base, LoraConfig(**config))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    take_off_adapter(model)
    return folder


SAVED = {}


@pytest.fixture
def folders(tiny_llama, tmp_path_factory):
    """Folders of two adapters of rank 4, one of rank 2 and one DoRA: written once, only read by tests."""
    if not SAVED:
        base, path = tiny_llama(), tmp_path_factory.mktemp("adapters")
        SAVED["one"] = save(base, path / "one", 1)
        SAVED["two"] = save(base, path / "two", 2)
        SAVED["thin"] = save(base, path / "thin", 3, r=2, lora_alpha=2)
        SAVED["dora"] = save(base, path / "dora", 4, use_dora=True)
    return SAVED


@pytest.fixture
def bank(tiny_llama, folders):
    """A bank with "one" and "two"; tokens come from tests, not from a tokenizer."""
    bank = AdapterBank(tiny_llama(), None)
    for name in ("one", "two"):
        bank.load(name, folders[name])
    return bank


def alone(tiny_llama, folder) -> torch.Tensor:
    """The logits of one adapter alone, by peft."""
    from peft import PeftModel

    with torch.no_grad():
        return PeftModel.from_pretrained(tiny_llama(), folder).eval()(input_ids=IDS).logits


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def test_each_adapter_answers_as_it_does_alone(bank, tiny_llama, folders):
    with torch.no_grad():
        base = tiny_llama()(input_ids=IDS).logits
    expected = {name: alone(tiny_llama, folders[name]) for name in ("one", "two")} | {None: base}
    assert not close(expected["one"], base) and not close(expected["one"], expected["two"])
    for name in ("one", None, "two", "one"):
        assert close(bank.logits(IDS, name), expected[name])
        bank.use(name)
        with torch.no_grad():
            assert close(bank.model(input_ids=IDS).logits, expected[name])
        assert bank.active == name


@pytest.mark.parametrize("rows", [["one", None, "two"], ["two", "two", "one"], ["one"] * 3])
def test_a_row_of_a_mixed_batch_is_what_its_adapter_makes_of_it(bank, rows):
    bank.use("two")
    mixed = bank.logits(IDS, rows)
    assert bank.active == "two"  # as before
    for row, name in enumerate(rows):
        assert close(mixed[row], bank.logits(IDS, name)[row])


def test_a_mixed_batch_honours_the_padding(bank):
    mask = torch.ones_like(IDS)
    mask[1, :5] = 0
    batch = {"input_ids": IDS, "attention_mask": mask}
    assert close(bank.logits(batch, ["one", "two", None])[1], bank.logits(batch, "two")[1])
    assert not close(bank.logits(batch, "two")[1, 6:], bank.logits(IDS, "two")[1, 6:])


def test_cat_is_the_weighted_sum_of_updates_and_linear_is_not(bank):
    bank.combine("sum", {"one": 0.3, "two": -1.5})
    bank.combine("line", {"one": 0.5, "two": 0.5}, "linear")
    assert bank.names == ["one", "two", "sum", "line"] and bank.active == "two"
    for layer in bank.layers:
        one, two = bank.delta("one", layer), bank.delta("two", layer)
        assert close(bank.delta("sum", layer), 0.3 * one - 1.5 * two)
        wanted = (one + two) / 2
        assert float((bank.delta("line", layer) - wanted).norm() / wanted.norm()) > 0.5
    module = bank.model.get_base_model().get_submodule(bank.layers[0])
    roots = {name: (module.lora_B[name].weight, module.lora_A[name].weight) for name in ("one", "two")}
    by_hand = (roots["one"][0] + roots["two"][0]) @ (roots["one"][1] + roots["two"][1])  # scaling 2 · weight 0.5 = 1
    assert close(bank.delta("line", bank.layers[0]), by_hand.detach())


def test_cat_takes_unequal_ranks_and_linear_refuses_them(bank, folders):
    bank.load("thin", folders["thin"])
    bank.combine("sum", {"one": 1.0, "thin": 2.0})
    layer = bank.layers[3]
    assert close(bank.delta("sum", layer), bank.delta("one", layer) + 2 * bank.delta("thin", layer))
    module = bank.model.get_base_model().get_submodule(layer)
    assert module.lora_A["sum"].weight.shape[0] == 6  # ranks add up: 4 + 2
    with pytest.raises(LabError, match="linear"):
        bank.combine("line", {"one": 1.0, "thin": 1.0}, "linear")
    assert "line" not in bank.names
    bank.combine("line", {"one": 1.0})  # the name is still free


@pytest.mark.parametrize("changes", [{"use_rslora": True}, {"target_modules": ["q_proj", "v_proj"], "r": 3}], ids=str)
def test_cat_is_exact_for_rslora_partial_adapters_and_bases_in_sixteen_bits(tiny_llama, folders, tmp_path, changes):
    bank = AdapterBank(tiny_llama().bfloat16(), None)
    bank.load("one", folders["one"])
    bank.load("other", save(tiny_llama(), tmp_path / "other", 9, **changes))
    bank.combine("first", {"one": 0.3, "other": 0.7})
    bank.combine("second", {"other": 0.7, "one": 0.3})
    for layer in bank.layers:
        wanted = 0.3 * bank.delta("one", layer) + 0.7 * bank.delta("other", layer)
        for name in ("first", "second"):
            assert float((bank.delta(name, layer) - wanted).norm() / wanted.norm()) < 1e-6


def test_a_combination_answers_as_its_updates_say(bank, tiny_llama):
    bank.combine("sum", {"one": 0.7, "two": 0.4})
    by_hand = tiny_llama()
    for layer in bank.layers:
        by_hand.get_submodule(layer).weight.data += 0.7 * bank.delta("one", layer) + 0.4 * bank.delta("two", layer)
    with torch.no_grad():
        assert close(bank.logits(IDS, "sum"), by_hand(input_ids=IDS).logits)


def test_swap_puts_new_numbers_into_the_same_tensors(bank, tiny_llama, folders, tmp_path):
    third = save(tiny_llama(), tmp_path / "third", 9)
    two, pointers = bank.logits(IDS, "two"), {id(parameter) for parameter in bank.model.parameters()}
    bank.swap("one", third)
    assert {id(parameter) for parameter in bank.model.parameters()} == pointers
    assert close(bank.logits(IDS, "one"), alone(tiny_llama, third))
    assert torch.equal(bank.logits(IDS, "two"), two)


def test_swapping_an_adapter_leaves_those_whose_names_contain_its_name(bank, tiny_llama, folders, tmp_path):
    """peft's own hotswap would take "one" in "one_more", and "proj" in every key, for the adapter to overwrite."""
    bank.load("one_more", folders["two"])
    bank.load("proj", folders["two"])
    before = bank.logits(IDS, "one_more")
    third = save(tiny_llama(), tmp_path / "third", 9, target_modules=["q_proj"])
    with pytest.raises(LabError, match="the layers differ: unload one"):
        bank.swap("one", third)
    bank.swap("proj", folders["one"])
    assert torch.equal(bank.logits(IDS, "one_more"), before)
    assert close(bank.logits(IDS, "proj"), bank.logits(IDS, "one"))


@pytest.mark.parametrize("changes", [{"use_rslora": True}, {"r": 2, "lora_alpha": 4}])
def test_swap_refuses_another_rank_or_scaling(bank, tiny_llama, tmp_path, changes):
    other, before = save(tiny_llama(), tmp_path / "other", 9, **changes), bank.logits(IDS, "one")
    with pytest.raises(LabError, match="cannot take one's place"):
        bank.swap("one", other)
    assert torch.equal(bank.logits(IDS, "one"), before)


def test_unloading_frees_the_adapter_and_keeps_the_rest(bank, tiny_llama, folders):
    expected = bank.logits(IDS, "two")
    bank.use("one")
    bank.unload("one")
    assert bank.names == ["two"] and bank.active is None
    assert torch.equal(bank.logits(IDS, "two"), expected)
    assert not [name for name, _ in bank.model.named_parameters() if ".one." in name]
    bank.unload("two")
    with torch.no_grad():
        assert torch.equal(bank.logits(IDS, None), tiny_llama()(input_ids=IDS).logits)
    assert not [name for name, _ in bank.model.named_parameters() if "lora" in name]
    bank.load("two", folders["two"])
    assert close(bank.logits(IDS, "two"), expected)


def test_unloading_another_adapter_leaves_the_one_in_use(bank):
    bank.unload("one")
    assert bank.active == "two"


def test_nothing_in_the_bank_asks_for_gradients(bank, folders):
    bank.load("dora", folders["dora"])
    bank.combine("sum", {"one": 1.0, "two": 1.0})
    bank.use("sum")
    assert not any(parameter.requires_grad for parameter in bank.model.parameters())
    assert not any(module.training for module in bank.model.modules())


def test_dora_is_served_but_not_added_up(bank, tiny_llama, folders):
    bank.load("dora", folders["dora"])
    expected = alone(tiny_llama, folders["dora"])
    assert close(bank.logits(IDS, "dora"), expected)
    assert close(bank.logits(IDS, ["dora"] * 3), expected)
    with pytest.raises(LabError, match="dora is a DoRA adapter, which peft cannot mix"):
        bank.logits(IDS, ["dora", "one", None])
    with pytest.raises(LabError, match="dora is a DoRA adapter"):
        bank.combine("sum", {"one": 1.0, "dora": 1.0})


TAKEN = ["half", "keys", "training", "values", "_modules", "__base__", "a.b", "", "a b", "lora_x"]


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_peft_would_stumble_over_are_refused(bank, folders, name):
    with pytest.raises(LabError, match="cannot be an adapter's name"):
        bank.load(name, folders["one"])
    with pytest.raises(LabError, match="cannot be an adapter's name"):
        bank.combine(name, {"one": 1.0})
    assert bank.names == ["one", "two"]


@settings(derandomize=True, database=None, deadline=None)
@given(st.one_of(st.sampled_from(sorted({*dir(torch.nn.ModuleDict()), *dir(torch.nn.ParameterDict())})), st.text()))
def test_a_name_that_is_taken_can_be_a_module_dict_key(name):
    """The bank accepts only names under which torch's containers, where peft keeps adapters, hold an entry."""
    bank = AdapterBank.__new__(AdapterBank)
    bank.tasks = {}
    try:
        bank._check_name(name)
    except LabError:
        return
    modules, parameters = torch.nn.ModuleDict(), torch.nn.ParameterDict()
    modules[name], parameters[name] = torch.nn.Identity(), torch.zeros(1)
    assert name in modules and name in parameters


def test_an_adapter_of_another_base_is_refused_and_changes_nothing(bank, tiny_llama, tmp_path):
    wide = save(tiny_llama(hidden_size=96, num_attention_heads=4), tmp_path / "wide")
    deep = save(tiny_llama(num_hidden_layers=3), tmp_path / "deep")
    before, modules = bank.logits(IDS, "one"), [name for name, _ in bank.model.named_modules()]
    with pytest.raises(LabError, match="It was trained on another model"):
        bank.load("wide", wide)
    with pytest.raises(LabError, match=r"no layer model\.layers\.2"):
        bank.load("deep", deep)
    assert [name for name, _ in bank.model.named_modules()] == modules
    assert bank.names == ["one", "two"] and torch.equal(bank.logits(IDS, "one"), before)


def damage(folder, tmp_path, how):
    copy = tmp_path / "damaged"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    if how == "cut off":
        data = (copy / "adapter_model.safetensors").read_bytes()
        (copy / "adapter_model.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "no A":
        from safetensors.torch import load_file, save_file

        state = load_file(copy / "adapter_model.safetensors")
        state.pop(next(name for name in state if "lora_A" in name))
        save_file(state, copy / "adapter_model.safetensors")
    elif how == "no weights":
        (copy / "adapter_model.safetensors").unlink()
    elif how == "no json":
        (copy / "adapter_config.json").write_text("{")
    elif how == "other kind":
        (copy / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "VERA"}))
    else:
        (copy / "adapter_config.json").write_text(json.dumps(config | {"r": 3}))
    return copy


DAMAGES = [("cut off", True), ("no weights", False), ("no json", False), ("other kind", False), ("wrong rank", False),
           ("no A", False)]  # fmt: skip


@pytest.mark.parametrize(("how", "first"), [*DAMAGES, ("wrong rank", True)])
def test_a_damaged_folder_is_refused_and_changes_nothing(tiny_llama, folders, tmp_path, how, first):
    bank = AdapterBank(tiny_llama(), None)
    if not first:
        bank.load("one", folders["one"])
    before = bank.logits(IDS, bank.active)
    with pytest.raises(LabError):
        bank.load("bad", damage(folders["two"], tmp_path, how))
    assert bank.names == ([] if first else ["one"]) and torch.equal(bank.logits(IDS, bank.active), before)
    assert not [name for name, _ in bank.model.named_modules() if ".bad" in name]
    bank.load("bad", folders["two"])  # the name is free


def test_mistakes_are_named(bank, folders):
    with pytest.raises(LabError, match="Unknown adapter 'three'"):
        bank.use("three")
    with pytest.raises(LabError, match="Unknown adapter 'three'"):
        bank.logits(IDS, ["one", "three", None])
    with pytest.raises(LabError, match="2 entries for 3 rows"):
        bank.logits(IDS, ["one", "two"])
    with pytest.raises(LabError, match="'one' already"):
        bank.load("one", folders["two"])
    with pytest.raises(LabError, match="is empty"):
        bank.combine("sum", {})
    with pytest.raises(LabError, match="way to combine"):
        bank.combine("sum", {"one": 1.0}, "magic")
    with pytest.raises(LabError, match="system message"):
        bank.answer(["hello"], None)
    with pytest.raises(LabError, match=r"no adapter_config\.json"):
        bank.load("none", folders["one"].parent)
    assert bank.active == "two"


def test_a_second_bank_on_the_same_base_starts_without_adapters(bank, tiny_llama, folders):
    """As when a page's cell is run again."""
    expected = bank.logits(IDS, "two")
    for model in (bank.model, bank.model.get_base_model()):
        again = AdapterBank(model, None)
        assert again.names == [] and again.layers == []
        with torch.no_grad():
            assert torch.equal(again.logits(IDS, None), tiny_llama()(input_ids=IDS).logits)
        again.load("two", folders["two"])
        assert torch.equal(again.logits(IDS, "two"), expected)


def test_answers_in_one_batch_are_those_of_each_row_alone(tiny_llama, tokenizer, tmp_path):
    """Left padding, another system message and another adapter for each row: none of it shows in the answers."""
    base = tiny_llama(len(tokenizer))
    one, two = (save(base, tmp_path / name, seed) for seed, name in enumerate(("one", "two")))
    (two / "record.json").write_text(json.dumps({"recipe": {"task": "style"}}))
    bank = AdapterBank(base, tokenizer)
    bank.load("one", one, "bookings")
    bank.load("two", two)
    assert bank.tasks == {"one": "bookings", "two": "style"}
    prompts = ["two drones on Sunday, thanks, Astrid", "Good day.", "My violin is missing two strings, I am afraid."]
    rows, tasks = ["one", "two", None], ["bookings", "style", "style"]
    answers = bank.answer(prompts, rows, tasks, max_new_tokens=6)
    for prompt, row, task, answer in zip(prompts, rows, tasks, answers, strict=True):
        assert bank.answer([prompt], row, task, max_new_tokens=6) == [answer]
    assert len(set(answers)) == 3 and bank.active == "two"
    assert bank.answer(prompts[:2], rows[:2], max_new_tokens=6) == answers[:2]  # each adapter's own task
    assert bank.answer([], "one") == []


@pytest.mark.parametrize("name", ["bookings", "style"])
def test_the_recorded_adapters_are_small_and_name_no_path(name):
    folder = recorded_adapter(name)
    record, config = (json.loads((folder / file).read_text()) for file in ("record.json", "adapter_config.json"))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000_000
    assert config["base_model_name_or_path"] is None and config["r"] == record["recipe"]["rank"]
    assert record["recipe"]["task"] == name and record["recipe"]["quantization"] == "nf4"
    assert record["scores"]["test"]["valid"] > 0.9 > 0.1 > record["scores"]["test, base without adapter"]["valid"]
    assert {"cpu", "date", "seconds", "versions"} <= record["provenance"].keys()
    assert not [text for text in ("/root", "/home", "/tmp", "/work") if text in (folder / "record.json").read_text()]


def test_the_recorder_stores_bfloat16_and_no_path(folders, tmp_path):
    from types import SimpleNamespace

    from data_scripts import load
    from safetensors.torch import load_file

    load("record_adapters").in_bfloat16(SimpleNamespace(adapter_dir=folders["one"]), tmp_path)
    stored, trained = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, folders["one"]))
    assert stored.keys() == trained.keys()
    assert all(torch.equal(one, trained[name].bfloat16()) for name, one in stored.items())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None and config["target_modules"] == sorted(TARGETS)


def test_the_recorded_adapters_fit_the_embedded_base(tokenizer):
    """Shapes are compared without weights: a model on the meta device is enough."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from lab_utils.models.embedded import embedded_folder

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(embedded_folder()))
    bank = AdapterBank(model, tokenizer)
    for name in ("bookings", "style"):
        bank._check_fits(recorded_adapter(name))


def test_an_adapter_that_was_never_recorded():
    with pytest.raises(LabError, match="bookings, style"):
        recorded_adapter("poems")


def test_a_recorded_adapter_with_a_file_missing(monkeypatch, tmp_path):
    from lab_utils.serving import adapter_records

    shutil.copytree(recorded_adapter("style"), tmp_path / "adapters" / "style")
    monkeypatch.setattr(adapter_records, "DATA", tmp_path)
    (tmp_path / "adapters" / "style" / "record.json").unlink()
    with pytest.raises(LabError, match=r"no record\.json.*--only style"):
        recorded_adapter("style")


def test_file_sizes_are_those_on_disk(tiny_llama, folders, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    rows = file_sizes({"one": folders["one"], "thin": folders["thin"]}, tmp_path / "base")
    assert [row["name"] for row in rows] == ["base", "one", "thin"] and rows[0]["times"] == 1
    whole, one, thin = (row["bytes"] for row in rows)
    parameters = sum(parameter.numel() for parameter in tiny_llama().parameters())
    shapes = 2 * (64 + 64 + 2 * (64 + 32) + 64 + 64 + 3 * (64 + 128))  # Σ (in + out) of both layers: q, k, v, o, MLP
    assert 0 <= whole - 4 * parameters < 4096  # float32 and a header
    assert 0 <= one - 4 * 4 * shapes < 8192 and 0 <= thin - 4 * 2 * shapes < 8192
    assert rows[1]["share"] == pytest.approx(one / whole) and rows[1]["times"] == pytest.approx(whole / one)
    with pytest.raises(LabError, match=r"no \*\.safetensors"):
        file_sizes({}, tmp_path / "nowhere")


def test_latency_takes_turns_and_reports_medians(bank, tiny_llama, monkeypatch):
    """The clock is replaced: each forward then takes as long as the model that runs it says."""
    from lab_utils.serving import costs as serving_costs

    bank.use("one")
    merged, turns, now = tiny_llama(), [], [0.0]

    def forward(model, ids):
        layer = next(module for module in bank.model.modules() if hasattr(module, "lora_A"))
        way = "merged" if model is merged else "base" if layer.disable_adapters else "adapter unmerged"
        turns.append((way, ids.shape[1]))
        extra = 10.0 if len(turns) in (1, 2, 3) else 0.0  # the first round is slow, as first rounds are
        return {"base": 2.0, "adapter unmerged": 3.0, "merged": 2.0}[way] + extra + now[0]

    monkeypatch.setattr(serving_costs, "_seconds", forward)
    rows = latency(bank.model, merged, prompt_tokens=7, repeats=3)
    order = ["base", "adapter unmerged", "merged"]
    assert turns == [(way, tokens) for tokens in (1, 7) for _ in range(4) for way in order]
    assert [(row["tokens"], row["way"]) for row in rows] == [(tokens, way) for tokens in (1, 7) for way in order]
    assert [row["milliseconds"] for row in rows] == [2000.0, 3000.0, 2000.0] * 2
    assert [row["ratio"] for row in rows] == [1.0, 1.5, 1.0] * 2


def test_latency_measures_and_leaves_the_adapter_on(bank, tiny_llama):
    bank.use("one")
    before = bank.logits(IDS, "one")
    rows = latency(bank.model, tiny_llama(), prompt_tokens=8, repeats=2)
    assert all(row["milliseconds"] > 0 for row in rows)
    with torch.no_grad():
        assert torch.equal(bank.model(input_ids=IDS).logits, before)
    with pytest.raises(LabError, match="prompt_tokens=1"):
        latency(bank.model, tiny_llama(), prompt_tokens=1)
