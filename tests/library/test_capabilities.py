"""The machine report: one row a thing, each with advice when something is missing."""

from types import SimpleNamespace

import pytest
import torch

from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.errors import LabError
from lab_utils.memory import step as memory
from lab_utils.models import capabilities
from lab_utils.models.registry import MODELS


def by_name():
    return {row["what"]: row for row in capabilities.report()}


def test_every_row_says_what_to_do():
    rows = capabilities.report()
    assert {row["what"] for row in rows} >= {"Python", "packages", "device", "4-bit weights", "memory", "disk"}
    for row in rows:
        assert set(row) == {"what", "found", "ok", "advice"} and row["found"] and row["advice"]


def test_four_bit_error_is_that_of_nf4_on_normal_numbers():
    # 0.0920 at block 64 on N(0, 1): Dettmers et al. 2023 give the code; the figure was computed for this course.
    assert capabilities.four_bit_error() == pytest.approx(0.092, abs=0.002)


def test_missing_bitsandbytes_is_reported_not_raised(monkeypatch):
    monkeypatch.setattr(capabilities, "four_bit_problem", lambda: "bitsandbytes cannot be imported (x)")
    row = by_name()["4-bit weights"]
    assert not row["ok"] and "bitsandbytes" in row["found"] and "Notebooks 01 to 07" in row["advice"]
    with pytest.raises(LabError, match="cannot be imported"):
        capabilities.require_four_bit()


def test_little_memory_is_noticed(monkeypatch):
    monkeypatch.setattr(capabilities, "free_memory_bytes", lambda kind: 2**30)
    assert not by_name()["memory"]["ok"]


def test_missing_package_gets_its_own_row(monkeypatch):
    monkeypatch.setattr(capabilities, "PACKAGES", ("torch", "no-such-package-at-all"))
    row = by_name()["package no-such-package-at-all"]
    assert not row["ok"] and "pip install no-such-package-at-all" in row["advice"]
    assert "torch" in by_name()["packages"]["found"]


def test_unwritable_cache_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "deeper" / "still"))
    monkeypatch.setattr(capabilities.os, "access", lambda path, mode: False)
    row = by_name()["disk"]
    assert not row["ok"] and "LORA_LAB_CACHE" in row["advice"]


def test_a_shared_cache_that_holds_the_model_need_not_be_writable(monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path))
    (tmp_path / capabilities.FOLDER).mkdir()
    monkeypatch.setattr(capabilities.os, "access", lambda path, mode: False)
    assert by_name()["disk"]["ok"]


def pretend_gpu(monkeypatch, name, gib, has_bf16, hub):
    monkeypatch.delenv("LORA_LAB_DEVICE", raising=False)
    bytes_ = int(gib * 2**30)
    for attribute, value in {
        "is_available": lambda: True,
        "get_device_name": lambda: name,
        "is_bf16_supported": lambda including_emulation=True: including_emulation or has_bf16,
        "current_device": lambda: 0,
        "get_arch_list": list,  # a CUDA build would go on to ask the driver
        "get_device_properties": lambda device: SimpleNamespace(total_memory=bytes_),
        "mem_get_info": lambda: (bytes_ - 2**28, bytes_),
    }.items():
        monkeypatch.setattr(torch.cuda, attribute, value)
    monkeypatch.setattr("lab_utils.models.capabilities.hub_reachable", lambda: hub)


@pytest.mark.parametrize(
    ("name", "gib", "has_bf16", "dtype"),
    [
        ("Tesla T4", 14.5, False, "float16"),
        ("NVIDIA L4", 22.0, True, "bfloat16"),
        ("NVIDIA A100-SXM4-40GB", 39.3, True, "bfloat16"),
    ],
)
def test_a_gpus_row_names_what_fits_and_no_less(monkeypatch, name, gib, has_bf16, dtype):
    """The estimate of page 07 decides: the model and the batch in the hint fit, the next larger ones do not."""
    pretend_gpu(monkeypatch, name, gib, has_bf16, hub=True)
    what, found, ok, advice = capabilities._processor()
    assert (what, ok) == ("device", True)
    assert name in found and f"computing in {dtype}" in found and f"{gib} GiB" in found
    how = {"method": "qlora", "rank": 8, "dtype": dtype, "moments": "8bit", "device": "cuda"}
    room = 0.9 * gib * 2**30

    def peak(model, batch, tokens, **more):
        return memory.estimate(model, batch_size=batch, sequence_length=tokens, **how, **more).total_bytes

    largest = advice.split("models up to ")[1].split(" train")[0]
    assert peak(largest, 1, 512, gradient_checkpointing=True) <= room
    for other, model in ARCHITECTURES.items():
        if "bert" not in other.lower() and model.total_parameters() > ARCHITECTURES[largest].total_parameters():
            assert peak(other, 1, 512, gradient_checkpointing=True) > room, other
    batch = int(advice.split("batches of up to ")[1].split(" ×")[0])
    assert "smollm2-1.7b takes" in advice and "make gpu-check" in advice
    assert peak("SmolLM2-1.7B", batch, 256) <= room < peak("SmolLM2-1.7B", 2 * batch, 256)


def test_a_gpu_without_the_hub_is_advised_on_the_embedded_model(monkeypatch):
    pretend_gpu(monkeypatch, "Tesla T4", 14.5, False, hub=False)
    assert "smollm2-135m takes batches of up to" in capabilities._processor()[3]


def test_a_tiny_gpu_is_told_so():
    assert "embedded model" in capabilities.gpu_hint(0.3, "float16", "smollm2-135m")


def test_every_default_model_has_a_batch_to_name():
    defaults = [name for name, model in MODELS.items() if model.min_gpu_gib is not None]
    assert set(defaults) <= {name.lower() for name in ARCHITECTURES}


def test_a_card_that_torch_was_not_built_for_is_in_the_table(monkeypatch):
    pretend_gpu(monkeypatch, "Tesla P100-PCIE-16GB", 15.9, False, hub=True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 0))
    row = by_name()["device"]
    assert row["ok"] and row["found"].startswith("cpu")
    assert "Tesla P100-PCIE-16GB (compute capability 6.0) is not used" in row["found"]
    assert "built for sm_75, sm_80, sm_90 only" in row["found"] and "CUDA 12.6" in row["advice"]


def test_a_setting_that_is_refused_is_a_row_and_not_the_end(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_LAB_DEVICE", "gpu")
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "file" / "cache"))
    rows = by_name()
    assert not rows["device"]["ok"] and "LORA_LAB_DEVICE='gpu'" in rows["device"]["advice"]
    assert not rows["disk"]["ok"] and "a file and not a folder" in rows["disk"]["found"]
    assert rows["embedded model"]["found"] == "not fetched yet"
