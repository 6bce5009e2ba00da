"""device: what is chosen for a machine, from facts that the tests make up."""

import pytest

from lab_utils.device import Device, decide_dtype, find_device, is_built_for, use_threads
from lab_utils.errors import LabError


def pretend_gpu(monkeypatch, name: str, capability: int) -> None:
    """A GPU as torch reports it: emulated bfloat16 counts as supported unless one asks without emulation."""
    import torch

    monkeypatch.delenv("LORA_LAB_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)  # a CUDA build would go on to ask the driver
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or capability >= 80
    )


def pretend_cpu(monkeypatch, **capabilities) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


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


def test_a_torch_that_does_not_know_the_processor_still_computes(monkeypatch):
    """Before release 2.11 there is no `get_capabilities`."""
    import torch

    pretend_cpu(monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch._C._cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert find_device().compute_dtype == "bfloat16"
    monkeypatch.delattr(torch._C._cpu, "_is_avx512_bf16_supported")
    found = find_device()
    assert (found.kind, found.compute_dtype) == ("cpu", "float32") and "does not tell" in found.reason


CUDA_12_8, CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"], ["sm_75", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((6, 0), CUDA_12_8, False),  # P100
        ((7, 0), CUDA_12_8, False),  # V100
        ((7, 5), CUDA_12_8, True),  # T4
        ((8, 9), CUDA_12_8, True),  # L4, by what was made for 8.0
        ((8, 7), CUDA_12_8, False),  # Jetson Orin
        ((8, 7), ["sm_87"], True),
        ((8, 0), ["sm_86"], False),  # an older minor number
        ((12, 1), CUDA_12_8, True),
        ((13, 0), CUDA_12_8, False),
        ((13, 0), CUDA_13, True),  # compiled by the driver
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_90a", "compute_90a"], False),  # for that one kind
        ((10, 3), ["sm_100f"], True),
        ((9, 0), ["gfx90a", "gfx942"], True),  # AMD's names say nothing of it
    ],
)
def test_code_runs_on_the_cards_that_nvidia_promises(capability, built, runs):
    assert is_built_for(capability, built) is runs


def test_a_card_that_torch_was_not_built_for_is_left_alone_and_that_is_said(monkeypatch):
    """torch sees it, and the first operation on it fails."""
    import torch

    pretend_gpu(monkeypatch, "Tesla V100-SXM2-16GB", 70)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: CUDA_12_8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    found = find_device()
    assert (found.kind, found.unused_gpu) == ("cpu", "Tesla V100-SXM2-16GB")
    assert "Tesla V100-SXM2-16GB (compute capability 7.0) is not used, because" in found.reason
    assert "was built for sm_75, sm_80" in str(found)
    monkeypatch.setenv("LORA_LAB_DEVICE", "cuda")
    with pytest.raises(LabError, match=r"LORA_LAB_DEVICE=cuda, and the GPU Tesla V100.*was built for sm_75"):
        find_device()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert find_device().kind == "cuda" and not find_device().unused_gpu


def test_a_kind_that_is_asked_for_comes_before_the_environment(monkeypatch):
    pretend_gpu(monkeypatch, "Tesla T4", 75)
    assert find_device("cpu").kind == "cpu" and find_device("cuda").kind == "cuda"
    monkeypatch.setenv("LORA_LAB_DEVICE", "cuda")
    assert find_device("cpu").kind == "cpu"
    with pytest.raises(LabError, match="Unknown device 'gpu'"):
        find_device("gpu")
    pretend_cpu(monkeypatch)
    with pytest.raises(LabError, match="device='cuda', and torch sees no GPU"):
        find_device("cuda")


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
