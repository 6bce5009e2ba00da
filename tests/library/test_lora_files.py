"""Adapters on disk: peft loads ours, we load peft's, and a failed save harms nothing."""

import json
import os
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import (
    CASES,
    assert_same_bits,
    builder,
    logits,
    peft,
    peft_random,
    pefts_known_warnings,
    randomise_adapters,
)
from torch import nn

from lab_utils.errors import LabError
from lab_utils.lora import files as lora_files
from lab_utils.lora.files import read_adapter, save_adapter
from lab_utils.lora.whole_model import LoRALinear, adapted_layers, adapter_state, inject, load_adapter

pytestmark = pefts_known_warnings


@pytest.mark.parametrize(("family", "targets"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_loads_our_adapter(request, tmp_path, family, targets, rslora):
    build = builder(request, family)
    model = randomise_adapters(inject(build(), targets, 4, 6, dropout=0.1, use_rslora=rslora))
    save_adapter(model, tmp_path / "new" / "adapter")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs = peft.PeftModel.from_pretrained(build(), tmp_path / "new" / "adapter")
    assert not [w for w in caught if re.search("missing|unexpected|fan_in_fan_out", str(w.message).lower())]
    assert not torch.equal(logits(model), logits(build()))
    assert_same_bits(logits(theirs), logits(model))
    config = theirs.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (4, 6, 0.1, rslora)


@pytest.mark.parametrize(("family", "targets"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("rslora", [False, True])
def test_we_load_pefts_adapter(request, tmp_path, family, targets, rslora):
    build = builder(request, family)
    theirs = peft_random(
        build(), r=4, lora_alpha=6, lora_dropout=0.1, use_rslora=rslora, target_modules=targets,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    state, values = read_adapter(tmp_path)
    model = load_adapter(inject(build(), **values), state)
    assert_same_bits(logits(model), logits(theirs))
    layer = next(iter(adapted_layers(model).values()))
    assert (layer.rank, layer.alpha, layer.dropout.p, layer.use_rslora) == (4, 6, 0.1, rslora)
    again = save_adapter(model, tmp_path / "again")  # and back once more
    assert_same_bits(logits(peft.PeftModel.from_pretrained(build(), again)), logits(theirs))


def test_the_file_holds_pefts_names_and_short_targets(tiny_llama, tmp_path):
    from safetensors import safe_open

    model = inject(tiny_llama(), "all-linear", 2, 4)
    save_adapter(model, tmp_path)
    with safe_open(tmp_path / lora_files.WEIGHTS, "pt") as file:
        names, metadata = list(file.keys()), file.metadata()
    assert "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight" in names
    assert len(names) == 28 and metadata == {"format": "pt"}
    config = json.loads((tmp_path / lora_files.CONFIG).read_text())
    assert config["target_modules"] == "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj".split()
    assert sorted(os.listdir(tmp_path)) == ["adapter_config.json", "adapter_model.safetensors"]


def test_an_end_that_means_other_layers_too_is_written_out(tmp_path, tiny_llama):
    save_adapter(inject(tiny_llama(), ["model.layers.1.mlp.down_proj"], 2, 4), tmp_path)
    assert read_adapter(tmp_path).settings["target_modules"] == ["model.layers.1.mlp.down_proj"]


@given(
    rank=st.integers(1, 7), alpha=st.floats(0.1, 100) | st.integers(1, 100), dropout=st.floats(0, 0.99),
    rslora=st.booleans(),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_settings_and_weights_survive_the_disk(tmp_path_factory, rank, alpha, dropout, rslora):
    folder = tmp_path_factory.mktemp("adapter")
    model = randomise_adapters(inject(nn.Sequential(nn.Linear(12, 7)), ["0"], rank, alpha, dropout, rslora))
    state, values = read_adapter(save_adapter(model, folder))
    assert values == {
        "target_modules": ["0"], "rank": rank, "alpha": alpha, "dropout": dropout, "use_rslora": rslora
    }  # fmt: skip
    assert state.keys() == adapter_state(model).keys()
    for key, value in adapter_state(model).items():
        assert_same_bits(state[key], value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "use_dora=True"), ({"rank_pattern": {"q_proj": 2}}, "rank_pattern="),
        ({"alpha_pattern": {r"layers\.1\..*": 2}}, "alpha_pattern="),
        ({"lora_bias": True}, "lora_bias=True"), ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"), ({"layers_to_transform": [1]}, "layers_to_tr"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules="), ({"a_new_option": 1}, "a_new_option=1"),
        ({"peft_type": "VERA"}, "'VERA' and not 'LORA'"), ({"r": None}, "does not say r"),
        ({"target_modules": None}, "does not say target_modules"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_we_do_not_have_are_named(tiny_llama, tmp_path, change, named):
    peft.get_peft_model(tiny_llama(), peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    path = tmp_path / lora_files.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(LabError, match=named):
        read_adapter(tmp_path)


def test_targets_that_pefts_model_did_not_have_are_left_out(tiny_llama, tmp_path):
    theirs = peft_random(tiny_llama(), target_modules=["q_proj", "query_key_value"])
    theirs.save_pretrained(tmp_path)
    state, values = read_adapter(tmp_path)
    assert values["target_modules"] == ["q_proj"]
    assert_same_bits(logits(load_adapter(inject(tiny_llama(), **values), state)), logits(theirs))


def test_missing_and_damaged_files_are_named(tiny_llama, tmp_path):
    with pytest.raises(LabError, match=r"no adapter_config\.json"):
        read_adapter(tmp_path)
    save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path)
    for name in (lora_files.WEIGHTS, lora_files.CONFIG):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(LabError, match="damaged"):
            read_adapter(tmp_path)
        (tmp_path / name).write_bytes(content)
    (tmp_path / lora_files.CONFIG).write_text("[]")
    with pytest.raises(LabError, match="not 'LORA'"):
        read_adapter(tmp_path)
    (tmp_path / lora_files.WEIGHTS).unlink()
    with pytest.raises(LabError, match=r"no adapter_model\.safetensors"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("failing", ["safetensors.torch.save_file", "os.fsync"])
def test_a_failed_save_leaves_the_folder_as_it_was(tiny_llama, tmp_path, monkeypatch, failing):
    model = inject(tiny_llama(), ["q_proj"], 2, 4)
    folder = save_adapter(model, tmp_path / "adapter")
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    randomise_adapters(model)
    monkeypatch.setattr(failing, full)
    with pytest.raises(LabError, match="No space left"):
        save_adapter(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_that_cannot_be_is_an_error(tiny_llama, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"file is a file, and a folder is to be written there. Choose another path"):
        save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path / "file")


def test_layers_with_different_settings_do_not_fit_in_one_file(tmp_path):
    model = nn.Sequential(LoRALinear(nn.Linear(4, 4), 1, 2), LoRALinear(nn.Linear(4, 4), 2, 2))
    with pytest.raises(LabError, match=r"differ in \(rank.*\(1, 2, 0.0, False\), \(2, 2, 0.0, False\)"):
        save_adapter(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_saving_flushes_as_every_system_allows_and_leaves_other_files(tiny_llama, tmp_path, monkeypatch):
    """Windows refuses to flush a file that was opened for reading."""
    fcntl = pytest.importorskip("fcntl")
    flush, flushed = os.fsync, []

    def strict(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed.append(handle)
        flush(handle)

    monkeypatch.setattr(os, "fsync", strict)
    (tmp_path / "README.md").write_text("mine")
    first = randomise_adapters(inject(tiny_llama(), ["q_proj"], 2, 4))
    for model in (first, inject(tiny_llama(), ["k_proj"], 3, 4)):
        save_adapter(model, tmp_path)
        assert read_adapter(tmp_path).state.keys() == adapter_state(model).keys()
    assert len(flushed) >= 4 and (tmp_path / "README.md").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["README.md", lora_files.CONFIG, lora_files.WEIGHTS]


def test_weights_that_cannot_be_replaced_keep_their_config(tiny_llama, tmp_path, monkeypatch):
    """As on Windows while another program has them open."""
    save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace

    def held(source, target):
        if str(target).endswith(lora_files.WEIGHTS):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", held)
    with pytest.raises(LabError, match="Permission denied"):
        save_adapter(inject(tiny_llama(), ["q_proj", "k_proj"], 3, 4), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
