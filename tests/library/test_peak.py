"""peak: what is measured is what was taken; on CUDA, that CUDA is asked in the right order."""

import pytest
import torch

from lab_utils.memory.peak import measured_peak, tensor_peak


def test_an_error_comes_through_and_the_watcher_ends():
    import threading

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        measured_peak(lambda: 1 / 0, "cpu")
    assert threading.active_count() == before


def test_the_allocators_peak_is_exact(capfd):
    """1,000 floats live, 2,000 more that die, then 1,500: the peak is 3,000 floats."""

    def step():
        first = torch.ones(1000)
        view = first[8:]  # a view costs nothing
        second = first.new_zeros(2000)
        del second
        third = torch.ones(1500)
        view.add_(1), third.add_(1)

    assert tensor_peak(step) == 4 * 3000
    assert capfd.readouterr() == ("", "")  # the profiler talks to itself


def test_the_allocator_sees_inside_operators():
    """A product of transposed bfloat16 matrices in a batch takes copies that no Python code ever sees."""
    x = torch.ones(4, 300, 300)
    inner = tensor_peak(lambda: torch.nn.functional.softmax(x, dim=1, dtype=torch.float64))
    assert inner == 2 * 8 * x.numel()  # the input in float64, and the result


def test_on_cuda_the_peak_is_reset_after_the_work_before_and_read_after_the_step(monkeypatch):
    calls, memory = [], {"now": 700, "peak": 9000}

    def reset():
        calls.append("reset")
        memory["peak"] = memory["now"]

    def step():
        calls.append("step")
        memory["peak"] = memory["now"] + 300

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: memory["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: calls.append("read") or memory["peak"])
    assert measured_peak(step, "cuda") == 300
    assert calls == ["wait", "reset", "step", "wait", "read"]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_machine_decides_unless_told(monkeypatch, kind):
    from lab_utils.device import Device
    from lab_utils.memory import peak

    monkeypatch.setattr(peak, "find_device", lambda: Device(kind, "any", "float32", "none"))
    asked = []
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: asked.append(1))
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    assert measured_peak(lambda: None) >= 0
    assert bool(asked) == (kind == "cuda")
