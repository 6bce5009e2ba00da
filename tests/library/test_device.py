"""device: what is chosen for a machine, from facts that the tests make up."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import lab_utils.device as device_module
from lab_utils.device import (
    Device,
    decide_dtype,
    fast_mode,
    find_device,
    free_memory_bytes,
    hub_reachable,
    runs_folder,
    use_threads,
)
from lab_utils.errors import LabError
from lab_utils.finetune.optimizer import decide_optimizer
from lab_utils.folders import ROOT


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


def test_optimizer_is_paged_on_cuda_only():
    assert decide_optimizer("cuda") == "paged_adamw_8bit"
    assert decide_optimizer("cuda", paged=False) == "adamw"
    assert decide_optimizer("cpu") == "adamw"


def test_device_is_frozen():
    with pytest.raises(AttributeError):
        Device("cpu", "x", "float32", "y").kind = "cuda"


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Pretend a machine with 10,000 bytes available, and control groups whose files a test writes."""
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    places = {"/sys/fs/cgroup": tmp_path / "groups", "/proc/self/cgroup": tmp_path / "own"}
    monkeypatch.setattr(device_module, "Path", places.__getitem__)

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


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_means_that_nobody_is_asked(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("asked the network"))
    assert hub_reachable() is False


class Asked(http.server.BaseHTTPRequestHandler):
    """A hub, or a proxy, on this machine: notes what it is asked for and answers with the server's status."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    do_CONNECT = do_HEAD

    def log_message(self, *_):
        pass


@pytest.fixture
def loopback():
    """A function that starts such a server and returns it."""
    servers = []

    def start(status: int = 200):
        server = http.server.HTTPServer(("127.0.0.1", 0), Asked)
        server.asked, server.status, server.address = [], status, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(question: str, **environment: str) -> str:
    """What a fresh process answers, with these settings of the network and no others: the hub's client reads them
    once.
    """
    names = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    code = f"from lab_utils import device; print(device.{question})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**kept, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize(("status", "found"), [(200, True), (401, True), (404, True), (502, False)])
def test_the_hub_is_the_one_in_hf_endpoint(loopback, status, found):
    hub = loopback(status)
    assert ask("hub_reachable(20)", HF_ENDPOINT=hub.address) == str(found)
    assert len(hub.asked) == 1 and hub.asked[0].endswith("config.json")
    assert ask("hub_reachable(20)", HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1") == "False"
    assert len(hub.asked) == 1


def test_a_proxy_that_leads_out_is_used_and_no_proxy_is_honoured(loopback):
    """The hub's name exists for the proxy alone."""
    proxy = loopback()
    away = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": proxy.address}
    assert ask("hub_reachable(20)", **away) == "True"
    assert proxy.asked == [f"http://hub.invalid/{device_module.A_FILE}"]
    assert ask("hub_reachable(20)", **away, NO_PROXY="hub.invalid") == "False"
    assert len(proxy.asked) == 1


def test_a_proxy_that_lets_nothing_through_is_no_hub(loopback):
    proxy = loopback(407)
    assert ask("hub_reachable(20)", HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=proxy.address) == "False"
    assert ask("hub_reachable(20)", HTTPS_PROXY=proxy.address) == "False"
    assert proxy.asked[-1] == "huggingface.co:443"
    assert ask("answers('kaggle.invalid', 20)", HTTPS_PROXY=proxy.address) == "False"
    assert proxy.asked[-1] == "kaggle.invalid:443"


@pytest.mark.parametrize(
    "environment",
    [{"HF_ENDPOINT": "nonsense"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}, {"HTTPS_PROXY": "foo://bar"}],
)
def test_nonsense_in_the_networks_settings_is_no_hub(environment):
    assert ask("hub_reachable(1)", **environment) == "False"


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


def test_keeping_freed_memory_is_harmless_everywhere(monkeypatch):
    import ctypes
    import platform

    assert device_module.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")

    class OtherLibrary:
        def __init__(self, name):
            pass

    monkeypatch.setattr(ctypes, "CDLL", OtherLibrary)
    assert device_module.keep_freed_memory() is False
