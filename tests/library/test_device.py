"""device: what is chosen for a machine, from facts that the tests make up."""

import pytest

from lab_utils.device import Device, decide_dtype, find_device, use_threads
from lab_utils.errors import LabError


def pretend_gpu(monkeypatch, name: str, capability: int) -> None:
    """A GPU as torch reports it: emulated bfloat16 counts as supported unless one asks without emulation."""
    import torch

    monkeypatch.delenv("LORA_LAB_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or capability >= 80
    )


def pretend_cpu(monkeypatch, **capabilities) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("name", "capability", "dtype", "mixed_precision", "reason"),
    [
        ("Tesla T4", 75, "float16", "fp16", "T4"),
        ("Tesla V100-SXM2-16GB", 70, "float16", "fp16", "bfloat16"),
        ("NVIDIA A100-SXM4-40GB", 80, "bfloat16", "bf16", "bfloat16"),
        ("NVIDIA L4", 89, "bfloat16", "bf16", "bfloat16"),
    ],
)
def test_gpu(monkeypatch, name, capability, dtype, mixed_precision, reason):
    import torch

    pretend_gpu(monkeypatch, name, capability)
    found = find_device()
    assert (found.kind, found.name, found.compute_dtype) == ("cuda", name, dtype)
    assert found.mixed_precision == mixed_precision
    assert found.torch_dtype is getattr(torch, dtype)
    assert reason in found.reason and name in str(found) and dtype in str(found)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_cpu_computes_in_bfloat16_only_where_the_hardware_does(monkeypatch, capabilities, dtype):
    pretend_cpu(monkeypatch, cpu_name="Some processor", **capabilities)
    found = find_device()
    assert (found.kind, found.name, found.compute_dtype) == ("cpu", "Some processor", dtype)
    assert found.mixed_precision == "no"  # autocast belongs to CUDA


def test_a_cpu_without_a_name_still_has_one(monkeypatch):
    pretend_cpu(monkeypatch)
    assert find_device().name


def test_lora_lab_device_hides_a_gpu(monkeypatch):
    pretend_gpu(monkeypatch, "Tesla T4", 75)
    monkeypatch.setenv("LORA_LAB_DEVICE", "cpu")
    assert find_device().kind == "cpu"


@pytest.mark.parametrize("value", ["gpu", "cuda:0", "mps", "0"])
def test_a_device_that_is_none_is_named(monkeypatch, value):
    monkeypatch.setenv("LORA_LAB_DEVICE", value)
    with pytest.raises(LabError, match=f"LORA_LAB_DEVICE='{value}' .*cpu or cuda"):
        find_device()


def test_a_gpu_that_is_insisted_on_must_be_there(monkeypatch):
    pretend_cpu(monkeypatch)
    monkeypatch.setenv("LORA_LAB_DEVICE", "cuda")
    with pytest.raises(LabError, match="LORA_LAB_DEVICE=cuda, and torch sees no GPU"):
        find_device()
    for harmless in ("", " CPU "):
        monkeypatch.setenv("LORA_LAB_DEVICE", harmless)
        assert find_device().kind == "cpu"


def test_a_reason_is_given_for_every_dtype():
    facts = [("cuda", True), ("cuda", False), ("cpu", True), ("cpu", False)]
    assert [decide_dtype(*fact)[0] for fact in facts] == ["bfloat16", "float16", "bfloat16", "float32"]
    assert all(len(decide_dtype(*fact)[1]) > 20 for fact in facts)


def test_device_is_frozen():
    with pytest.raises(AttributeError):
        Device("cpu", "x", "float32", "y").kind = "cuda"


@pytest.fixture
def restored_threads():
    import torch

    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_threads_follow_the_environment(monkeypatch, restored_threads):
    import torch

    for wanted in (3, 1):
        monkeypatch.setenv("LORA_LAB_THREADS", str(wanted))
        assert use_threads() == wanted == torch.get_num_threads()
    monkeypatch.delenv("LORA_LAB_THREADS")
    assert use_threads() == 1  # unset: left as it is


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "²", "99999999999", "1,000"])
def test_a_thread_count_that_is_none_is_named(monkeypatch, restored_threads, value):
    monkeypatch.setenv("LORA_LAB_THREADS", value)
    with pytest.raises(LabError, match=f"LORA_LAB_THREADS='{value}'"):
        use_threads()
