"""What tests of a run's folder share: the tiny model on disk, and a finished run of it."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the tiny model, and a finished run of three steps in `run`."""
    from run_folders import finished_run

    return finished_run(tmp_path_factory.mktemp("home"))


@pytest.fixture
def run(home, tmp_path):
    """A copy of that run's folder."""
    return Path(shutil.copytree(home / "run", tmp_path / "run"))


@pytest.fixture
def train(home):
    """`finetune` with the tiny model for the embedded one."""
    from run_folders import trainer_in

    return trainer_in(home)
