"""The machine report: one row a thing, each with advice when something is missing."""

import pytest

from lab_utils import capabilities
from lab_utils.errors import LabError


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
