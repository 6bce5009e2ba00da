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
from lab_utils.lora import LoRALinear, adapted_layers, adapter_state, inject, load_adapter
from lab_utils.lora import files as lora_files
from lab_utils.lora.files import read_adapter, save_adapter

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
        ({"exclude_modules": ["q_proj"]}, "exclude_modules="), ({"kasa_config": {"x": 1}}, "kasa_config="),
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


def test_whichever_move_fails_both_files_stay(tiny_llama, tmp_path, monkeypatch):
    """Two files are set aside and two are moved in: four moves, of which the third is the config's."""
    save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace, moves = os.replace, []

    for failing in range(4):

        def fail_once(source, target, failing=failing):
            moves.append(os.path.basename(target))
            if len(moves) == failing + 1:
                raise PermissionError(13, "Permission denied")
            replace(source, target)

        moves.clear()
        monkeypatch.setattr(os, "replace", fail_once)
        with pytest.raises(LabError, match="Permission denied"):
            save_adapter(inject(tiny_llama(), ["q_proj", "k_proj"], 3, 4), tmp_path)
        assert moves[failing] == (lora_files.CONFIG, lora_files.WEIGHTS)[failing % 2]
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_saved(tiny_llama, tmp_path, value):
    model = inject(tiny_llama(), ["q_proj"], 2, 4)
    folder = save_adapter(model, tmp_path / "adapter")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with torch.no_grad():
        model.get_submodule("model.layers.1.self_attn.q_proj").lora_B[5, 1] = value
    for place in (folder, tmp_path / "new"):
        with pytest.raises(LabError, match=rf"layers\.1\.self_attn\.q_proj\.lora_B\.weight\[5, 1\] is {value}: the"):
            save_adapter(model, place)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [lora_files.CONFIG, lora_files.WEIGHTS])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_in_the_place_of_a_file_stay(tiny_llama, tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(LabError, match=f"{name} is (not a regular file|a folder)"):
        save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and not (tmp_path / name).is_file()


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "a" * 300, None, 3], ids=ascii)
def test_what_cannot_be_a_path_is_named(tiny_llama, path):
    for call in (read_adapter, lambda path: save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), path)):
        with pytest.raises(LabError, match="path"):
            call(path)


NARROWED = {
    "two names": {"target_modules": ["q_proj", "v_proj"]}, "excluding": {"exclude_modules": ["k_proj"]},
    "excluding by pattern": {"exclude_modules": ".*k_proj"}, "numbers": {"layers_to_transform": [0, 1]},
    "numbers of a stack": {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
    "another module": {"target_modules": ["q_proj", "v_proj", "query_key_value"]}, "a pattern": {
        "target_modules": r".*\.(q|v)_proj"}, "replicating nothing": {"layer_replication": [[0, 2]]},
}  # fmt: skip
LOST = {"a layer": "layers.1.", "a target": ".v_proj.", "one of both": "layers.1.self_attn.v_proj"}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("case", NARROWED)
def test_half_an_adapter_does_not_go_onto_a_model(tiny_llama, tmp_path, case, lost):
    """The judge is peft, which knows from the config where tensors belong."""
    from safetensors.torch import load_file, save_file

    theirs = peft_random(tiny_llama(), r=4, target_modules=["q_proj", "v_proj"])
    theirs.save_pretrained(tmp_path)
    path = tmp_path / lora_files.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **NARROWED[case]}))
    state, values = read_adapter(tmp_path)
    assert_same_bits(logits(load_adapter(inject(tiny_llama(), **values), state)), logits(theirs))
    whole = load_file(tmp_path / lora_files.WEIGHTS)
    save_file({key: one for key, one in whole.items() if LOST[lost] not in key}, tmp_path / lora_files.WEIGHTS)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        peft.PeftModel.from_pretrained(tiny_llama(), tmp_path)
    with pytest.raises(LabError, match=r"is incomplete: .*_proj of this base too|does not fit the model: missing"):
        state, values = read_adapter(tmp_path)
        load_adapter(inject(tiny_llama(), **values), state)


def test_layers_that_the_config_leaves_out_need_no_tensors(tiny_llama, tmp_path):
    for number, change in enumerate(
        ({"layers_to_transform": [1]}, {"layers_to_transform": 0, "layers_pattern": "layers"},
         {"exclude_modules": ["layers.0.self_attn.v_proj"]}, {"exclude_modules": r".*\.1\..*v_proj"})
    ):  # fmt: skip
        theirs = peft_random(tiny_llama(), r=4, target_modules=["q_proj", "v_proj"], **change)
        theirs.save_pretrained(tmp_path / str(number))
        state, values = read_adapter(tmp_path / str(number))
        assert_same_bits(logits(load_adapter(inject(tiny_llama(), **values), state)), logits(theirs))
