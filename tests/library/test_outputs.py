"""Output folders and files of the commands: nobody's work is overwritten, files are whole, the disk is explained."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.errors import LabError
from lab_utils.files import explain
from lab_utils.folders import ROOT
from lab_utils.outputs import (
    explained,
    home_for_jupyter,
    output_folder,
    print_anything,
    refuse_others,
    save,
    temporary_folder,
    write_over_own,
)

ODD = ["Kurs [2026]", "a b", "ä ö", "a*b", "a?b", "#1", "50%41", "'a' \"b\"", "-x", "{y}", "$HOME", "a;b&c", "~b"]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_is_made_and_left_empty(tmp_path, name):
    folder = output_folder(tmp_path / name / "below")
    assert folder.is_dir() and list(folder.iterdir()) == []
    assert save(folder / f"{name}.txt", "ä\udc80").read_bytes() == b"\xc3\xa4\\udc80"
    assert [path.name for path in folder.iterdir()] == [f"{name}.txt"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder("~/site") == tmp_path / "site" and (tmp_path / "site").is_dir()


@pytest.mark.parametrize(("part", "reason"), [
    ("file", "cannot be written"), ("file/below", "cannot be written"), ("a\0b", "holds a null character"),
])  # fmt: skip
def test_where_no_folder_can_be_the_reason_is_given(tmp_path, part, reason):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LabError, match=reason):
        output_folder(tmp_path / part)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_refuses_is_explained_and_the_old_file_stays(tmp_path, monkeypatch):
    save(tmp_path / "a.html", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LabError, match=r"a\.html cannot be written: .*free some space"):
        save(tmp_path / "a.html", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_can_only_be_read_is_told_at_once(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(LabError, match=r"cannot be written: .*Permission denied.*choose a folder of your own"):
        output_folder(tmp_path)
    with pytest.raises(LabError, match="A temporary folder cannot be written"), temporary_folder("x-"):
        pass


def test_what_was_written_may_be_replaced_and_nothing_else(tmp_path):
    def own(name, content):
        return content.startswith(b"ours")

    write_over_own(tmp_path, {"a": b"ours 1", "sub/b": b"ours 1"}, own)
    write_over_own(tmp_path, {"a": b"ours 2", "sub/b": b"ours 2"}, own)
    (tmp_path / "thesis.docx").write_text("mine")
    (tmp_path / "sub" / "b").write_text("changed by hand")
    with pytest.raises(LabError, match=r"sub/b\. They would be lost"):
        write_over_own(tmp_path, {"a": b"ours 3", "sub/b": b"ours 3"}, own)
    assert (tmp_path / "a").read_text() == "ours 2" and (tmp_path / "sub" / "b").read_text() == "changed by hand"
    write_over_own(tmp_path, {"sub/b": b"changed by hand"}, own)  # the same already
    assert (tmp_path / "thesis.docx").read_text() == "mine"


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "broken link"])
def test_what_is_no_file_is_not_written_over(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(LabError, match=r"/a cannot be read"):
        write_over_own(tmp_path, {"a": b"new"}, lambda *_: True)
    assert (tmp_path / "a").is_dir() or (tmp_path / "a").is_symlink()


def test_the_first_foreign_file_is_named(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    refuse_others([tmp_path / "a", tmp_path / "none"], lambda content: content == b"a")
    with pytest.raises(LabError, match=r"/b is a file that was not written here"):
        refuse_others([tmp_path / "a", tmp_path / "b"], lambda content: content == b"a")


def test_only_what_the_disk_says_is_explained(tmp_path):
    with pytest.raises(KeyError), explained(tmp_path):
        raise KeyError
    with pytest.raises(LabError, match=r"cannot be read: .*Check the path"), explained(tmp_path, "read"):
        (tmp_path / "none").read_bytes()
    assert explain(OSError(28, "No space left on device"))


def test_every_character_can_be_printed(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    print_anything()
    print("ä ✓ \udc80", flush=True)
    assert bytes_.getvalue() == rb"\xe4 \u2713 \udc80" + b"\n"
    monkeypatch.setattr("sys.stdout", io.StringIO())  # as in a notebook
    print_anything()


def test_an_account_without_a_home_has_one_for_jupyter_and_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with home_for_jupyter():
        assert Path.home() == tmp_path
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with home_for_jupyter():
        home = Path.home()
        (home / ".jupyter").mkdir()
    assert "HOME" not in os.environ and not home.exists()


NOTEBOOK = """
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
page = new_notebook(cells=[new_markdown_cell("# 01 · Ä ✓\\n\\n**Wie groß?**"), new_code_cell("print('ß ✓'); 1/0 # ä")])
nbformat.write(page, "01_ä.ipynb")
"""
GRADING = ["lab_utils.classroom", "grading", "--notebooks", ".", "--output"]
EDITIONS = ["lab_utils.classroom", "editions", "student", "--notebooks", ".", "--output"]
COMMANDS = {
    "site": (["lab_utils.classroom", "site", "--notebooks", ".", "--output", "Seite ü"], 1, "Seite ü/01_ä.html"),
    "student": ([*EDITIONS, "ü"], 0, "ü/01_ä.ipynb"),
    "grading": ([*GRADING, "ü"], 0, "ü/source/01_ä/01_ä.ipynb"),
    "home": ([*GRADING, "~/ü"], 2, None),
    "colab": (["lab_utils.notebook.colab"], 0, None),
    "pattern": ([*GRADING, "ü [1]"], 2, None),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_in_a_locale_without_letters_and_without_a_home(command, tmp_path):
    """LC_ALL=C and PYTHONUTF8=0: what Python opens without naming an encoding is ASCII.

    No HOME, and no entry in the list of accounts, as in a container that runs under a number.
    """
    modules, status, written = COMMANDS[command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HOME"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text("import pwd\npwd.getpwuid = {}.__getitem__\n")
    environment |= {"PYTHONPATH": f"{tmp_path / 'start'}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-c", NOTEBOOK], cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "-m", *modules], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == status and b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert written is None or "ß ✓" in (tmp_path / written).read_text(encoding="utf-8")
