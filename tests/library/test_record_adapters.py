"""data/record_adapters.py: a recorded adapter stays until its successor is complete, and nothing else is touched."""

import json
from types import SimpleNamespace

import pytest
import torch
from data_scripts import load
from safetensors.torch import save_file

from lab_utils.errors import LabError


@pytest.fixture
def recorder(monkeypatch, tmp_path):
    """The script with a training that takes no time, and scores that are given."""
    module = load("record_adapters")
    adapter = tmp_path / "run"
    adapter.mkdir()
    save_file({"lora_A": torch.ones(2, 2)}, adapter / module.FILES[0])
    (adapter / module.FILES[1]).write_text(json.dumps({"target_modules": ["v_proj", "q_proj"]}))
    run = SimpleNamespace(adapter_dir=adapter, seconds=1.0, history=[{"loss": 0.5}])
    monkeypatch.setattr(module, "finetune", lambda *_, **__: run)
    monkeypatch.setattr(module, "measure", lambda *_: {})
    return module


def record(module, folder) -> None:
    module.record("style", module.RECIPES["style"], (None, None), None, folder)


def test_a_recorded_adapter_is_replaced_and_a_failed_run_leaves_it(recorder, tmp_path, monkeypatch):
    folder = tmp_path / "adapters"
    record(recorder, folder)
    assert sorted(path.name for path in (folder / "style").iterdir()) == sorted(recorder.FILES)
    (folder / "style" / "record.json").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "measure", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            record(recorder, folder)
    assert (folder / "style" / "record.json").read_text() == "old"
    record(recorder, folder)
    assert json.loads((folder / "style" / "record.json").read_text())["training_loss"] == [0.5]
    assert [path.name for path in folder.iterdir()] == ["style"]


def test_a_foreign_file_is_named_before_anything_is_trained(recorder, tmp_path, monkeypatch):
    (tmp_path / "adapters" / "style").mkdir(parents=True)
    (tmp_path / "adapters" / "style" / "thesis.docx").write_text("years of work")
    monkeypatch.setattr(recorder, "finetune", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(LabError, match=r"style holds thesis\.docx"):
        record(recorder, tmp_path / "adapters")
    assert (tmp_path / "adapters" / "style" / "thesis.docx").read_text() == "years of work"
