"""Whole runs under Windows' rules (tests/support/windows.py): trained, resumed, restarted, read and exported."""

import sys

import pytest
import torch
from run_folders import RECIPE, finished_run, trainer_in
from windows import open_files_stay, without_unix

from lab_utils.lora import read_adapter
from lab_utils.merging import export_merged, merge

__all__ = ["open_files_stay", "without_unix"]  # fixtures
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows itself holds to its rules")


def test_a_run_is_trained_resumed_restarted_and_exported(without_unix, open_files_stay, tmp_path):
    home = finished_run(tmp_path)
    finetune, folder = trainer_in(home), home / "run"
    read = read_adapter(folder / "adapter")
    run = finetune(folder)
    assert run.resumed_from == RECIPE.steps and read.state
    assert finetune(folder, resume=False).resumed_from == 0 and (folder / "previous").is_dir()
    merged = merge(run.model, torch.arange(20).reshape(2, 10))
    for _ in range(2):  # the second time over the first, whose files were just written
        export_merged(merged, run.tokenizer, tmp_path / "merged")
