"""Settings of sharding that are none are refused by the file's name; an adapter with NaN is not saved."""


import pytest
import torch

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune.fsdp import WholeAdapter, read_plugin
from lab_utils.folders import ROOT

BF16 = Device("cuda", "any", "bfloat16", "")
CONFIG = ROOT / "deploy" / "cluster" / "fsdp_qlora.yaml"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"- a list", b"hello", b"fsdp_config: null", b"fsdp_config: 3", b"fsdp_config: {fsdp_version: two}",
        b"fsdp_config: {fsdp_version: null}", b"fsdp_config: {unknown: 1, fsdp_version: 2}", b"\xff\xfe\x00", b"a: [",
        b"fsdp_config: [fsdp_version]",
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_named(tmp_path, content):
    path = tmp_path / "sharding.yaml"
    path.write_bytes(content)
    with pytest.raises(LabError, match=r"sharding\.yaml is refused"):
        read_plugin(path, BF16)


def test_a_file_that_is_missing_is_named():
    with pytest.raises(LabError, match=r"nowhere\.yaml is refused"):
        read_plugin("nowhere.yaml", BF16)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_home_is_expanded_and_a_bom_is_read_over(tmp_path, monkeypatch, bom):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sharding.yaml").write_bytes(bom + CONFIG.read_bytes())
    assert read_plugin("~/sharding.yaml", BF16) == read_plugin(CONFIG, BF16)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_an_adapter_with_a_number_that_is_none_is_not_saved(tmp_path, value):
    layer = torch.nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight[2, 1] = value
    with pytest.raises(LabError, match=r"adapter is not saved: weight\[2, 1\] is (nan|-inf)"):
        WholeAdapter(layer).save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
