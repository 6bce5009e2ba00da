"""files: text is UTF-8 with or without a BOM, written whole or not at all, and an error says the way out."""

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from file_trees import tree

from lab_utils import files
from lab_utils.errors import LabError
from lab_utils.folders import ROOT

# Writing.


def test_a_flush_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_text(tmp_path / "text", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for act in (files.write_text, files.append_text):
        with pytest.raises(OSError, match="No space left"):
            act(tmp_path / "text", "new")
        with pytest.raises(OSError, match="No space left"):
            act(tmp_path / "other", "new")
    assert tree(tmp_path) == {"text": "old"}


@pytest.mark.parametrize("act", [files.write_text, files.append_text])
def test_a_folder_where_a_file_is_wanted_and_a_character_without_bytes(tmp_path, act):
    with pytest.raises(LabError, match=r"is a folder, and a file is to be written there\. Name a file in it"):
        act(tmp_path, "text")
    with pytest.raises(LabError, match=r"text, line 2: U\+D83D is half a character"):
        act(tmp_path / "text", "a\nb\ud83d")
    assert tree(tmp_path) == {}


def test_what_is_appended_begins_a_line(tmp_path):
    for text in ("a\n", "b", "c\n"):
        files.append_text(tmp_path / "deep" / "table", text)
    assert (tmp_path / "deep" / "table").read_text() == "a\nb\nc\n"


# Reading.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_is_utf8_with_or_without_a_bom_whatever_the_locale(tmp_path, encoding):
    path = tmp_path / "file.json"
    path.write_bytes('{"name": "Zoë"}\r\n'.encode(encoding))
    code = "import sys; from lab_utils.files import read_json, read_text; path = sys.argv[1]; "
    code += "print(ascii((read_text(path), read_json(path))))"
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}):
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | locale)
        assert ast.literal_eval(done.stdout) == ('{"name": "Zoë"}\r\n', {"name": "Zoë"})


@pytest.mark.parametrize("content, what", [
    (b'{"a": 1,\n "b": x}', r"file\.json, line 2, column 7: not JSON"),
    (b"", r"file\.json, line 1, column 1: not JSON"),
    (b"[" * 100_000, r"file\.json is nested too deeply"),
    (b"1" * 5000, r"file\.json cannot be read: .*4300 digits"),
    ('{"a":\n"Zoë"}'.encode("latin-1"), r"file\.json is not UTF-8: byte 9, in line 2, is 0xeb"),
    ('{"a": 1}'.encode("utf-16"), r"file\.json is not UTF-8: byte 0, in line 1, is 0xff"),
])  # fmt: skip
def test_json_that_cannot_be_read_is_refused_with_its_place(tmp_path, content, what):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(LabError, match=what):
        files.read_json(tmp_path / "file.json")


def test_json_lines_end_at_a_newline_alone_and_a_damaged_one_is_named(tmp_path):
    """A separator of lines that is unescaped in a text is a part of the text."""
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "one\u2028two"}\r\n\n[1]\n'.encode())
    assert files.read_json_lines(path) == [{"a": "one\u2028two"}, [1]]
    for damaged, what in (('{"a": ', r", column 7: not JSON"), ("[" * 100_000, r", is nested too deeply"),
                          ("1" * 5000, r", cannot be read: .*4300 digits")):  # fmt: skip
        path.write_text(f'{{"a": 1}}\n\n{damaged}\n', encoding="utf-8")
        with pytest.raises(LabError, match=rf"a\.jsonl, line 3{what}"):
            files.read_json_lines(path)


def test_what_is_no_file_is_refused_with_its_path(tmp_path):
    for path, what in (
        (tmp_path / "none", r"none cannot be read: .*No such file.*Check the path\.$"),
        (tmp_path, r"cannot be read: .*That is a folder: name a file\.$"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(LabError, match=what):
            files.read_text(path)


def test_a_persons_path(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert files.user_path("~/x") == Path("/somewhere/x") and files.user_path("x/~y") == Path("x/~y")
    for path in ("~nobody-by-that-name/x", "~/x"):
        with monkeypatch.context() as patch:
            if path == "~/x":  # neither HOME nor an entry in the list of accounts
                patch.delenv("HOME")
                patch.setattr("pwd.getpwuid", lambda number: {}[number])
            with pytest.raises(LabError, match=f"{path}: there is no home folder for the ~.*Write the path in full"):
                files.user_path(path)


IMPOSSIBLE = {
    "a\0b": "null character", "a\ud800b": r"U\+D800 is half a character", "~\0/x": "null character",
    "a/" + "é" * 128: "takes 256 bytes, and 255 are allowed", "~/" + "x" * 300: "takes 300 bytes",
    "ab/" * 1400: "is too long: 4200 bytes",
    None: "None is not a path", 5: "5 is not a path", b"bytes": "is not a path", 2.5: "is not a path",
}  # fmt: skip


@pytest.mark.parametrize("path", IMPOSSIBLE, ids=lambda path: ascii(path)[:20])
def test_what_no_file_can_be_called_is_refused_by_all_that_take_a_path(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    acts = [files.user_path, files.read_text, files.read_json]
    acts += [lambda path: files.write_text(path, "x"), lambda path: files.append_text(path, "x")]
    for act in acts:
        with pytest.raises(LabError, match=IMPOSSIBLE[path]):
            act(path)
    assert tree(tmp_path) == {}


def test_the_longest_name_and_one_that_is_no_utf8_are_paths(tmp_path):
    for name in ("é" * 127, "x" * 200, os.fsdecode(b"caf\xe9")):
        path = files.user_path(tmp_path / name)
        files.write_text(path, "x")
        assert files.read_text(str(path)) == "x"


# What an error says.


@pytest.mark.parametrize("error, way_out", [
    (OSError(errno.ENOSPC, "No space left on device", "/x"), "The disk is full"),
    (RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0: file "
                  "write failed"), "The disk is full"),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "The disk is full"),
    (OSError("100000 requested and 18432 written"), "The disk is full"),
    (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "The disk is full"),
    (RuntimeError("[enforce fail at inline_container.cc:747] . open file failed with strerror: Read-only file system"),
     "That disk can only be read"),
    (RuntimeError("Parent directory /x does not exist"), "Check the path"),
    (Exception("Error while serializing: I/O error: Permission denied (os error 13)"), "You may not do that there"),
    (Exception("I/O error: Disk quota exceeded (os error 122)"), "Your quota is used up"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), "You may not do that there"),
    (OSError(errno.EROFS, "Read-only file system", "/x"), "That disk can only be read"),
    (FileExistsError(errno.EEXIST, "File exists", "/x"), "A file is in the way"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), "A file is in the way"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), "That is a folder"),
    (OSError(errno.EBUSY, "Device or resource busy", "/x"), "It is in use, or mounted"),
    (OSError(errno.EFBIG, "File too large"), "too large for that disk"),
])  # fmt: skip
def test_an_error_says_its_way_out_and_only_a_full_disk_is_called_full(error, way_out):
    text = files.explain(error)
    assert text.startswith(str(error).splitlines()[0]) and way_out in text
    assert ("free some space" in text) == (way_out == "The disk is full")


@pytest.fixture
def full_disk(tmp_path):
    """A mounted folder with 100 kB left."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    (tmp_path / "fill").write_bytes(b"x" * 900_000)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)  # at once: torch closes a file late


def with_torch(path: Path) -> None:
    import torch

    torch.save({"tensor": torch.zeros(100_000)}, path)


def with_safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"tensor": torch.zeros(100_000)}, path)


def with_numpy(path: Path) -> None:
    import numpy as np

    np.zeros(100_000).tofile(path)


def with_python(path: Path) -> None:
    path.write_bytes(bytes(10**6))


@pytest.mark.parametrize("write", [with_torch, with_safetensors, with_numpy, with_python])
def test_a_really_full_disk_is_known_in_every_way_of_writing(full_disk, write):
    files.write_text(full_disk / "file", "old")
    with pytest.raises(Exception) as caught, files.replacing_file(full_disk / "file") as new:
        write(new)
    assert "The disk is full: free some space." in files.explain(caught.value)
    assert (full_disk / "file").read_text() == "old" and len(list(full_disk.iterdir())) == 2


def test_an_error_that_nobody_knows_is_given_as_it_is():
    assert files.explain(RuntimeError("odd.\nmore")) == "odd." and files.explain(OSError()) == "OSError."
