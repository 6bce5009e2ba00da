"""memory.free: what is free below the limits of a container, and keeping freed memory."""

from types import SimpleNamespace

import pytest

from lab_utils.memory import free as free_module
from lab_utils.memory.free import free_memory_bytes, keep_freed_memory


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Pretend a machine with 10,000 bytes available, and control groups whose files a test writes."""
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    places = {"/sys/fs/cgroup": tmp_path / "groups", "/proc/self/cgroup": tmp_path / "own"}
    monkeypatch.setattr(free_module, "Path", places.__getitem__)

    def write(limit: str, current: int = 0, stat: str = "anon 1\n", *, group: str = ""):
        folder = tmp_path / "groups" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(stat)
        (tmp_path / "own").write_text(f"0::/{group}\n")

    return write


def test_free_memory_without_a_container(memory):
    assert free_memory_bytes("cpu") == 10_000


@pytest.mark.parametrize(
    ("limit", "current", "free"),
    [
        ("max", 4_000, 10_000),  # no limit
        ("3000", 1_000, 2_000),  # the container's rest
        ("50000", 1_000, 10_000),  # the machine's rest is smaller
        ("3000", 3_500, 0),  # over the limit: none, not less than none
        ("nonsense", 0, 10_000),
    ],
)
def test_free_memory_in_a_container(memory, limit, current, free):
    memory(limit, current)
    assert free_memory_bytes("cpu") == free


@pytest.mark.parametrize(
    ("unit", "slice_", "free"), [("3000", "max", 2_000), ("max", "2500", 1_500), ("9000", "4000", 3_000)]
)
def test_free_memory_in_a_unit_of_systemd_is_the_least_on_the_way_up(memory, unit, slice_, free):
    memory(slice_, 1_000, group="user.slice")
    memory(unit, 1_000, group="user.slice/student.service")
    assert free_memory_bytes("cpu") == free


def test_file_cache_of_a_container_counts_as_free(memory):
    memory("3000", 2_900, "anon 400\ninactive_file 2500\nactive_file 0\n")
    assert free_memory_bytes("cpu") == 3_000 - (2_900 - 2_500)


def test_free_memory_of_a_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7, 16))
    assert free_memory_bytes("cuda") == 7
    # 5 bytes taken from the driver, 2 of them in use: torch gives the other 3 to the next tensor.
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 2)
    assert free_memory_bytes("cuda") == 10


def test_keeping_freed_memory_is_harmless_everywhere(monkeypatch):
    import ctypes
    import platform

    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")

    class OtherLibrary:
        def __init__(self, name):
            pass

    monkeypatch.setattr(ctypes, "CDLL", OtherLibrary)
    assert keep_freed_memory() is False
