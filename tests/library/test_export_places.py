"""export: where files are written. What is there stays until the new is complete, what is not ours stays for good."""

import errno
import json
import os
import socket
import subprocess

import pytest
import torch
from export_models import build_tokenizer
from file_trees import mounted
from merge_models import logits
from safetensors import safe_open

from lab_utils.errors import LabError
from lab_utils.merging.export import export_gguf, export_merged


@pytest.fixture(scope="module")
def small_tokenizer():
    return build_tokenizer()


def load(folder):
    from transformers import AutoModelForCausalLM

    from lab_utils.quiet import quiet

    with quiet():
        return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


@pytest.fixture
def other(tiny_llama):
    """Another model than `tiny_llama(300)`."""
    made = tiny_llama(300)
    made.model.norm.weight.data += 1
    return made


@pytest.fixture
def refusing(monkeypatch):
    """A function: from now on, moves whose start or end is `path` fail with the error `number`."""

    def refuse(path, number):
        for real in (os.replace, os.rename):

            def move(start, end, real=real):
                if path in (type(path)(start), type(path)(end)):
                    raise OSError(number, os.strerror(number), str(path))
                return real(start, end)

            monkeypatch.setattr(os, real.__name__, move)

    return refuse


@pytest.mark.parametrize("yesterday", [True, False])
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_folder_that_cannot_be_moved_is_written_to(
    tiny_llama, other, small_tokenizer, tmp_path, refusing, yesterday, number
):
    folder = tmp_path / "mounted"
    folder.mkdir()
    (folder / "lost+found").mkdir()
    if yesterday:
        export_merged(tiny_llama(300), small_tokenizer, folder)
    refusing(folder, number)
    assert torch.equal(logits(load(export_merged(other, small_tokenizer, folder))), logits(other))
    assert [path.name for path in tmp_path.iterdir()] == ["mounted"] and (folder / "lost+found").is_dir()


def test_a_really_mounted_folder(tiny_llama, other, small_tokenizer, tmp_path):
    with mounted(tmp_path / "mounted") as folder:
        for model in (tiny_llama(300), other):
            assert torch.equal(logits(load(export_merged(model, small_tokenizer, folder))), logits(model))
        big = tiny_llama(300, hidden_size=512, intermediate_size=2048)
        subprocess.run(["mount", "-o", "remount,size=4m", folder], check=True)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for write, path in ((export_merged, folder), (export_gguf, folder / "new.gguf")):
            model = big if write is export_merged else tiny_llama(300, hidden_size=512, intermediate_size=2048)
            with pytest.raises(LabError, match=r"could not be written: .*The disk is full: free some space"):
                write(model, small_tokenizer, path)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_yesterdays_export_is_there_until_the_new_one_is_complete(
    tiny_llama, other, small_tokenizer, tmp_path, monkeypatch
):
    folder = export_merged(tiny_llama(300), small_tokenizer, tmp_path / "merged")
    seen = []
    save = type(small_tokenizer).save_pretrained

    def last(tokenizer, where):
        seen.append(torch.equal(logits(load(folder)), logits(tiny_llama(300))))
        return save(tokenizer, where)

    monkeypatch.setattr(type(small_tokenizer), "save_pretrained", last)
    export_merged(other, small_tokenizer, folder)
    assert seen == [True] and torch.equal(logits(load(folder)), logits(other))


@pytest.mark.parametrize("number, way_out", [
    (errno.EROFS, "That disk can only be read"), (errno.EACCES, "You may not do that there"),
    (errno.ENOSPC, "The disk is full: free some space"),
])  # fmt: skip
def test_a_disk_that_refuses_is_not_called_full_unless_it_is(
    tiny_llama, small_tokenizer, tmp_path, monkeypatch, number, way_out
):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    for write, model in ((export_merged, tiny_llama(300)), (export_gguf, tiny_llama(300))):
        with pytest.raises(LabError, match=rf"out could not be written: .*{way_out}") as caught:
            write(model, small_tokenizer, tmp_path / "out")
        assert ("free some space" in str(caught.value)) == (number == errno.ENOSPC)


def test_a_path_may_start_at_home(tiny_llama, small_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert export_merged(tiny_llama(300), small_tokenizer, "~/x/merged") == tmp_path / "x" / "merged"
    assert export_gguf(tiny_llama(300), small_tokenizer, "~/x/tiny.gguf") == tmp_path / "x" / "tiny.gguf"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["merged", "tiny.gguf"]


def test_files_and_folders_in_the_way_are_named(tiny_llama, small_tokenizer, tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    for write, model, path, what in (
        (export_merged, tiny_llama(300), tmp_path / "file", "file is a file, and a folder is to be written there"),
        (export_merged, tiny_llama(300), tmp_path / "file" / "merged", "A file is in the way"),
        (export_gguf, tiny_llama(300), tmp_path / "folder", "folder is a folder, and a file is to be written there"),
        (export_gguf, tiny_llama(300), tmp_path / "file" / "tiny.gguf", "A file is in the way"),
        (export_gguf, tiny_llama(300), tmp_path / "file", "file is there already and is not a GGUF file: it would be"),
    ):
        with pytest.raises(LabError, match=what):
            write(model, small_tokenizer, path)
    assert (tmp_path / "file").read_text() == "text" and list((tmp_path / "folder").iterdir()) == []


def test_pipes_and_sockets_stay(tiny_llama, small_tokenizer, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in ("pipe", "socket"):
        with pytest.raises(LabError, match=f"{name} is not a regular file but a device, a pipe or a socket"):
            export_gguf(tiny_llama(300), small_tokenizer, tmp_path / name)
        with pytest.raises(LabError, match=f"{name} is a file, and a folder"):
            export_merged(tiny_llama(300), small_tokenizer, tmp_path / name)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "socket").is_socket()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "socket"]


def test_a_gguf_file_replaces_an_old_or_an_empty_one(tiny_llama, small_tokenizer, tmp_path):
    (tmp_path / "tiny.gguf").touch()
    sizes = {export_gguf(tiny_llama(300), small_tokenizer, tmp_path / "tiny.gguf", kind).stat().st_size
             for kind in ("F32", "F16")}  # fmt: skip
    assert len(sizes) == 2


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.filterwarnings("error")
def test_the_written_config_says_of_the_head_what_is_so(tiny_llama, small_tokenizer, tmp_path, tied, says):
    """Other programs take the config's word: its own head would be dropped, a missing one be made of noise."""
    model = tiny_llama(300, tie_word_embeddings=tied)
    model.config.tie_word_embeddings = says
    folder = export_merged(model, small_tokenizer, tmp_path / "merged")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] == tied
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) != tied
    assert torch.equal(logits(load(folder)), logits(model)) and model.config.tie_word_embeddings == says


def test_an_odd_generation_config_is_no_foreign_error(tiny_llama, small_tokenizer, tmp_path):
    model = tiny_llama(300)
    model.generation_config.temperature = -1.0
    with pytest.raises(LabError, match=r"transformers does not write this model or tokenizer.*`?temperature`?.*-1\.0"):
        export_merged(model, small_tokenizer, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
