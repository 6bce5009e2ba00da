"""A run's folder that holds what is not the run's, and a base that does not fit the tokens; with a tiny model."""

import json
from dataclasses import replace

import pytest
import torch
from run_folders import RECIPE, everything
from safetensors.torch import load_file, save_file
from unfolded import unfolded

from lab_utils.errors import LabError
from lab_utils.finetune import run as module
from lab_utils.finetune import training
from lab_utils.finetune.conversation import end_of_turn, padding_token
from lab_utils.finetune.full import train_full
from lab_utils.finetune.run_folders import checkpoints

MODEL = "adapter_model.safetensors"


def test_a_persons_own_adapter_is_kept(train, home, tmp_path):
    (tmp_path / "adapter").mkdir()
    for name in (MODEL, "adapter_config.json"):
        (tmp_path / "adapter" / name).write_text("mine")
    train(tmp_path)
    assert everything(tmp_path / "previous") == {f"adapter/{MODEL}": b"mine", "adapter/adapter_config.json": b"mine"}
    assert (tmp_path / "adapter" / MODEL).read_bytes() == (home / "run" / "adapter" / MODEL).read_bytes()


def test_the_adapter_of_a_run_whose_checkpoints_were_deleted_is_kept(train, run):
    import shutil

    before = everything(run / "adapter")
    for path in checkpoints(run):
        shutil.rmtree(path)
    train(run, replace(RECIPE, seed=7))
    assert (run / "previous" / "adapter" / MODEL).read_bytes() == before[MODEL]
    assert (run / "adapter" / MODEL).read_bytes() != before[MODEL]


def test_a_finished_run_that_is_loaded_changes_no_file(train, run):
    (run / "adapter" / "README.md").write_text("my own words")
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    config["target_modules"] = config["target_modules"][::-1]
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    before = everything(run)
    for _ in range(2):
        assert train(run).resumed_from == 3
    assert everything(run) == before


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("mine"), lambda path: path.symlink_to(path.name), lambda path: path.symlink_to("gone"),
], ids=["file", "link to itself", "link to nothing"])  # fmt: skip
def test_what_lies_in_a_checkpoints_place_is_refused_before_training(train, tmp_path, monkeypatch, make):
    make(tmp_path / "checkpoint-000002")
    monkeypatch.setattr(training, "load_base", lambda *_, **__: pytest.fail("loaded the base"))
    for resume in (True, False):
        with pytest.raises(LabError, match="checkpoint-000002 is in the way"):
            module.finetune(RECIPE, tmp_path, progress=False, resume=resume)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["checkpoint-000002"]


def test_another_programs_checkpoint_is_left_alone(train, tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "trainer_state.json").write_text("{}")
    assert len(train(tmp_path).history) == 3
    assert everything(tmp_path / "checkpoint-500") == {"trainer_state.json": b"{}"}
    assert not (tmp_path / "damaged").exists()


def test_a_checkpoint_whose_tensors_were_renamed_is_passed_over(train, run, capsys):
    path = run / "checkpoint-000003" / MODEL
    save_file({f"x.{name}": one for name, one in load_file(path).items()}, path)
    assert train(run).resumed_from == 2
    assert "adapter_model.safetensors is not the file that was written" in unfolded(capsys.readouterr().out)


@pytest.mark.parametrize("change", [
    lambda state: state["optimizer"].update(param_groups=5), lambda state: state["optimizer"].update(param_groups=[]),
    lambda state: state.update(random=[torch.zeros(3, dtype=torch.uint8)]),
], ids=["groups are 5", "no groups", "short random state"])  # fmt: skip
def test_a_state_that_does_not_fit_says_what_to_delete(train, run, change):
    folder = run / "checkpoint-000003"
    state = torch.load(folder / "state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "state.pt")
    record = json.loads((folder / "record.json").read_text())
    del record["files"]
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(LabError, match=r"state\.pt does not fit this run .*Delete checkpoint-000003"):
        train(run)


@pytest.mark.parametrize("folder", ["a\0b", "a\ud800b", "a" * 300], ids=ascii)
def test_a_folder_that_cannot_be_is_refused(train, folder):
    with pytest.raises(LabError, match="cannot be a path"):
        train(folder)


# A base and a tokenizer that do not belong together.


def gpt2(positions: int, vocabulary: int = 49152):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": positions, "vocab_size": vocabulary}
    return GPT2LMHeadModel(GPT2Config(**sizes))


ROWS = [{"prompt": "What?", "answer": "This."}] * 4
RANK_2 = replace(RECIPE, rank=2, alpha=4, steps=1)


@pytest.mark.parametrize(("build", "words"), [
    (lambda tiny_llama: tiny_llama(1000), r"tokenizer gives token .* embedding has 1000 rows"),
    (lambda tiny_llama: gpt2(16), r"more than the 16 positions .*Lower max_length"),
    (lambda tiny_llama: tiny_llama(49152).to("meta"), r"has no values: it is on the device 'meta'"),
], ids=["vocabulary", "positions", "meta"])  # fmt: skip
def test_a_base_that_the_tokens_do_not_fit_is_refused(tiny_llama, tokenizer, tmp_path, build, words):
    model = build(tiny_llama)
    with pytest.raises(LabError, match=words):
        module.finetune(RANK_2, tmp_path, base=(model, tokenizer), dataset=ROWS, progress=False)
    assert checkpoints(tmp_path) == []
    if "positions" not in words:  # GPT-2's matrices are not torch.nn.Linear: there is nothing to train in full
        with pytest.raises(LabError, match=words):
            train_full(model, tokenizer, RANK_2, ROWS)


def test_a_padding_token_beyond_the_embedding_is_refused_too(tiny_llama, tmp_path):
    from lab_utils.models.registry import load_tokenizer

    tokenizer = load_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|another|>"})
    with pytest.raises(LabError, match="tokenizer gives token 49152"):
        module.finetune(RANK_2, tmp_path, base=(tiny_llama(49152), tokenizer), dataset=ROWS, progress=False)


def test_a_tokenizer_without_a_padding_token_pads_with_the_end_of_turn(tiny_llama, tmp_path):
    from lab_utils.merging.costs import probe_batch
    from lab_utils.models.registry import load_tokenizer

    plain, without = load_tokenizer(), load_tokenizer()
    without.pad_token = None
    assert without.pad_token_id is None and padding_token(without) == end_of_turn(without)
    rows = [*ROWS, {"prompt": "A longer question?", "answer": "Yes."}]
    assert (probe_batch(without, rows)["input_ids"] == probe_batch(plain, rows)["input_ids"]).all()
    losses = [train_full(tiny_llama(49152), tokenizer, RANK_2, rows) for tokenizer in (plain, without)]
    assert losses[0] == losses[1]
    run = module.finetune(RANK_2, tmp_path, base=(tiny_llama(49152), without), dataset=rows, progress=False)
    assert len(run.history) == 1
