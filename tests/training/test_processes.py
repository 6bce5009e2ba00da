"""accelerate's state in this process: ours while we train, and afterwards as it was."""

import os

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from lab_utils.device import Device
from lab_utils.finetune.processes import accelerate

CPU = Device("cpu", "any", "float32", "")


@pytest.fixture(autouse=True)
def as_new():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_another_device_of_the_same_process_is_forgotten():
    """As after LORA_LAB_DEVICE was changed in one kernel: accelerate keeps a process's device for good."""
    PartialState(cpu=True)
    PartialState._shared_state["device"] = torch.device("cuda", 0)
    with accelerate(CPU) as accelerator:
        assert accelerator.device.type == "cpu"


def test_the_same_device_is_kept():
    state = PartialState(cpu=True)
    state._shared_state["noted"] = "kept"
    with accelerate(CPU):
        assert PartialState._shared_state["noted"] == "kept"


@pytest.mark.parametrize("before", [None, "false"])
def test_what_the_environment_tells_other_trainers_is_as_before(monkeypatch, before):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    if before:
        monkeypatch.setenv("ACCELERATE_USE_CPU", before)
    with accelerate(CPU):
        assert os.environ["ACCELERATE_USE_CPU"] == "true"
    assert os.environ.get("ACCELERATE_USE_CPU") == before
