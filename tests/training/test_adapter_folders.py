"""lora.folders: what is not an adapter is named for what it is, what is damaged by tensor and place, and nothing is
unpickled."""

import errno
import json
import os
import pickle

import pytest
import torch
from lora_models import pefts_known_warnings
from safetensors.torch import load_file, save_file

from lab_utils.errors import LabError
from lab_utils.lora.files import read_adapter, save_adapter
from lab_utils.lora.folders import CONFIG, WEIGHTS, read_files, read_tensors
from lab_utils.lora.states import load_adapter
from lab_utils.lora.whole_model import inject

pytestmark = pefts_known_warnings
KEY = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def folder(tiny_llama, tmp_path):
    return save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path / "adapter")


def rewrite(folder, change) -> None:
    """Give the weights' file other tensors: `change` gets its dict."""
    state = {key: one.clone() for key, one in load_file(folder / WEIGHTS).items()}
    save_file(change(state) or state, folder / WEIGHTS)


class Trap:
    """What a pickle does when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_a_config_with_a_bom_is_read(folder):
    plain = read_adapter(folder)
    (folder / CONFIG).write_bytes(b"\xef\xbb\xbf" + (folder / CONFIG).read_bytes())
    assert read_adapter(folder).settings == plain.settings


def test_a_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert read_files("~/adapter").folder == folder
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert read_adapter("~/adapter").settings == read_adapter(folder).settings


def test_a_file_without_a_tensor_is_one_of_a_sharded_model(folder):
    save_file({}, folder / WEIGHTS, metadata={"format": "pt"})
    assert (folder / WEIGHTS).stat().st_size == 40
    with pytest.raises(LabError, match=r"\(40 bytes\) holds no tensor.*ZeRO-3.*gathered"):
        read_adapter(folder)


@pytest.mark.parametrize("shape", [(0,), (64,), (3, 4, 5)])
def test_a_part_of_a_matrix_is_one_of_a_sharded_model(folder, shape):
    rewrite(folder, lambda state: state.update({KEY: torch.zeros(shape)}))
    with pytest.raises(LabError, match=r"layers\.1\.self_attn\.q_proj\.lora_B.*is not a matrix.*ZeRO-3"):
        read_adapter(folder)


def test_rank_zero_is_named(folder):
    rewrite(folder, lambda state: {key: torch.zeros((0, 64) if "lora_A" in key else (64, 0)) for key in state})
    with pytest.raises(LabError, match=r"lora_[AB]\.weight has shape \((0, 64|64, 0)\), so rank or width is 0"):
        read_adapter(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_what_is_not_finite_is_named_by_place(folder, value, dtype):
    def change(state):
        state[KEY][5, 1] = value
        return {key: one.to(dtype) for key, one in state.items()}

    rewrite(folder, change)
    with pytest.raises(LabError, match=rf"{WEIGHTS}: .*layers\.1.*lora_B\.weight\[5, 1\] is -?(nan|inf).*not its base"):
        read_adapter(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_numbers_that_are_not_floating_point_are_refused(folder, dtype):
    rewrite(folder, lambda state: {key: one.to(dtype) for key, one in state.items()})
    with pytest.raises(LabError, match="not floating-point numbers"):
        read_adapter(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_every_floating_point_dtype_is_read(folder, tiny_llama, dtype):
    rewrite(folder, lambda state: {key: one.to(dtype) for key, one in state.items()})
    state, settings = read_adapter(folder)
    load_adapter(inject(tiny_llama(), **settings), state)


@pytest.mark.parametrize("data", [b"", b"\0", b"x" * 200, b"\xff" * 16, b"\x10\0\0\0\0\0\0\0" + b"[]" * 8])
def test_bytes_that_are_no_safetensors_file_are_refused(folder, data):
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(LabError, match=f"{WEIGHTS} is damaged"):
        read_adapter(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[1, 2", b"\xff\xfe{", b"[" * 100_000, "{ü".encode("latin-1")])
def test_bytes_that_are_no_config_are_refused(folder, data):
    (folder / CONFIG).write_bytes(data)
    with pytest.raises(LabError, match=CONFIG):
        read_adapter(folder)


def test_keys_in_odd_places_are_mapped_or_refused(folder, tiny_llama):
    plain = read_adapter(folder).state
    bare = lambda key: key.removeprefix("base_model.model.").replace("lora_A.weight", "lora_A.mine.weight")  # noqa: E731
    rewrite(folder, lambda state: {bare(key): one for key, one in state.items()})
    assert read_adapter(folder).state.keys() == plain.keys()
    rewrite(folder, lambda state: {**state, "m.q.lora_A.two.names.weight": torch.zeros(2, 2)})
    with pytest.raises(LabError, match=r"lora_A\.two\.names.*no layer of LoRA uses"):
        read_adapter(folder)
    rewrite(folder, lambda state: {k: v for k, v in state.items() if ".two." not in k and not KEY.endswith(k)})
    with pytest.raises(LabError, match=r"damaged: they have .*lora_A.* but not .*lora_B"):
        read_adapter(folder)


def test_a_pickle_is_named_and_not_opened(folder):
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(LabError, match=r"adapter_model\.bin, a pickle.*weights_only=True"):
        read_adapter(folder)


@pytest.mark.parametrize("renamed", [True, False])
def test_an_mlx_folder_is_named(folder, renamed):
    """mlx-lm writes another config under the same name, and transposed matrices."""
    (folder / CONFIG).write_text(json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 8}, "model": "x"}))
    if not renamed:
        (folder / WEIGHTS).rename(folder / "adapters.safetensors")
    with pytest.raises(LabError, match=r"MLX \(mlx-lm\).*mlx_lm\.fuse"):
        read_adapter(folder)


def test_a_run_and_a_whole_model_are_named(folder, tiny_llama, tmp_path):
    with pytest.raises(LabError, match=rf"no {CONFIG} and no {WEIGHTS}.*inside it: give .*adapter"):
        read_adapter(tmp_path)
    tiny_llama().save_pretrained(tmp_path / "model")
    with pytest.raises(LabError, match="a whole model, which is used as a base"):
        read_adapter(tmp_path / "model")


def test_a_file_and_a_folder_that_is_not_there(folder, tmp_path, monkeypatch):
    for name in (WEIGHTS, CONFIG):
        with pytest.raises(LabError, match=f"is a file. Give the folder that it is in: {folder}"):
            read_adapter(folder / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match=r"no folder somebody/lora .*hf download somebody/lora"):
        read_adapter("somebody/lora")
    with pytest.raises(LabError, match=r"There is no folder .*nowhere"):
        read_adapter(tmp_path / "nowhere")


def test_one_of_the_two_files_and_other_names(folder):
    (folder / CONFIG).rename(folder / "config_of_old")
    with pytest.raises(LabError, match=f"no {CONFIG} in .*scaling alpha / rank is not known"):
        read_adapter(folder)
    (folder / "config_of_old").rename(folder / CONFIG)
    (folder / WEIGHTS).rename(folder / "lora.safetensors")
    with pytest.raises(LabError, match=rf"no {WEIGHTS} in .*has lora\.safetensors"):
        read_adapter(folder)


def test_an_adapter_two_folders_down_is_found(folder, tmp_path):
    (tmp_path / "run" / "checkpoint-10").mkdir(parents=True)
    folder.rename(tmp_path / "run" / "checkpoint-10" / "adapter")
    with pytest.raises(LabError, match=f"in folders inside it: give {tmp_path}/run/checkpoint-10/adapter"):
        read_adapter(tmp_path / "run")


@pytest.mark.parametrize("name, message", [
    ("pytorch_lora_weights.safetensors", "a LoRA of diffusers.*load_lora_weights"), ("adapters.npz", r"MLX \(mlx-lm\)"),
    ("ggml-adapter.gguf", "ggml-adapter.gguf, a file of llama.cpp.*--lora"),
    ("bookings-f16.gguf", "bookings-f16.gguf, a file of llama.cpp"),
])  # fmt: skip
@pytest.mark.parametrize("with_config", [True, False])
def test_adapters_of_other_programs_are_named(folder, name, message, with_config):
    (folder / WEIGHTS).rename(folder / name)
    if not with_config:
        (folder / CONFIG).unlink()
    with pytest.raises(LabError, match=message):
        read_adapter(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(LabError, match=f"{name} is not a file that can be read"):
        read_adapter(folder)


def test_a_git_lfs_pointer_is_named(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(LabError, match=r"Git LFS pointer.*git lfs pull"):
        read_tensors(folder / WEIGHTS)


def test_a_folder_that_may_not_be_read_is_explained(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(folder), "iterdir", refuse)
    with pytest.raises(LabError, match=r"cannot be read.*Permission denied"):
        read_files(folder)


def test_a_disk_that_can_only_be_read_is_explained(tiny_llama, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(LabError, match="That disk can only be read: choose another folder") as caught:
        save_adapter(inject(tiny_llama(), ["q_proj"], 2, 4), tmp_path / "new")
    assert "space" not in str(caught.value) and not (tmp_path / "new").exists()
