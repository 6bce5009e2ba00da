"""environment: what a person sets with environment variables."""

from pathlib import Path

import pytest

from lab_utils.environment import fast_mode, runs_folder
from lab_utils.errors import LabError


def test_fast_mode_is_off_unless_set_to_1(monkeypatch):
    monkeypatch.delenv("LORA_LAB_FAST", raising=False)
    assert fast_mode() is False
    monkeypatch.setenv("LORA_LAB_FAST", "0")
    assert fast_mode() is False
    monkeypatch.setenv("LORA_LAB_FAST", "1")
    assert fast_mode() is True


@pytest.mark.parametrize(("value", "fast"), [("yes", True), ("TRUE", True), ("on", True), ("no", False), ("", False)])
def test_fast_mode_understands_yes_and_no(monkeypatch, value, fast):
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.setenv("LORA_LAB_FAST", value)
    assert fast_mode() is fast


def test_fast_mode_refuses_what_is_neither(monkeypatch):
    monkeypatch.setenv("LORA_LAB_FAST", "quick")
    with pytest.raises(LabError, match="LORA_LAB_FAST='quick'"):
        fast_mode()


def test_the_runs_folder_expands_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LORA_LAB_RUNS", "~/runs")
    assert runs_folder() == tmp_path / "runs"
    for unset in ("", " "):
        monkeypatch.setenv("LORA_LAB_RUNS", unset)
        assert runs_folder() == Path("runs")
