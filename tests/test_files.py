"""files: what is written appears whole or not at all, nothing foreign is touched, and a refusal says the way out."""

import ast
import contextlib
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils import files
from lab_utils.errors import LabError

ROOT = Path(__file__).parent.parent
OURS = {"config.json", "weights", "templates/one.jinja"}.__contains__


@pytest.fixture
def windows(monkeypatch):
    """Flushing what was opened for reading is an error, as it is on Windows; returns the paths that were flushed."""
    flushed, fsync = [], os.fsync

    def strict(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    monkeypatch.setattr(os, "fsync", strict)
    return flushed


@contextlib.contextmanager
def refusing(monkeypatch, refused, number: int = errno.ENOSPC):
    """Moves fail whose (start, end) `refused` accepts; other moves are made."""
    with monkeypatch.context() as patch:
        for real in (os.replace, os.rename):

            def move(start, end, real=real):
                if refused(Path(start), Path(end)):
                    raise OSError(number, os.strerror(number), str(start))
                return real(start, end)

            patch.setattr(os, real.__name__, move)
        yield


def tree(folder: Path) -> dict[str, str]:
    """Every file in a folder, hidden ones too, with its text; links by what they lead to."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
    return {
        path.relative_to(folder).as_posix(): f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text()
        for path in paths
    }


def fill(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def write_new(folder: Path) -> None:
    """Put a new config.json and a template into a folder that may hold earlier ones."""
    with files.replacing_folder(folder, OURS) as new:
        (new / "config.json").write_text("new")
        (new / "templates").mkdir()
        (new / "templates" / "one.jinja").write_text("new")


NEW = {"config.json": "new", "templates/one.jinja": "new"}

# Only one module moves and flushes.


def calls(path: Path) -> set[str]:
    """The functions that a file calls, or hands on, as "os.fsync"; a path's rename and replace without its owner."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
            found |= {"replace"} if len(node.args) == 1 and not node.keywords else set()  # a text's has two arguments
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            found |= {f"{owner}.{node.attr}", node.attr if node.attr == "rename" else ""}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", ["lab_utils", "data"])
def test_flushing_and_moving_is_done_in_one_place(folder):
    """So that no file is flushed as only POSIX allows it, and nothing is deleted before its successor is there."""
    banned = {"os.fsync", "os.fdatasync", "os.replace", "os.rename", "os.renames", "shutil.move", "rename", "replace"}
    paths = [path for path in sorted((ROOT / folder).rglob("*.py")) if path != ROOT / "lab_utils" / "files.py"]
    assert {path.name: calls(path) & banned for path in paths if calls(path) & banned} == {}
    assert {"os.fsync", "os.replace"} <= calls(ROOT / "lab_utils" / "files.py")


def test_every_kind_of_write_is_flushed_through_a_handle_that_may_write(tmp_path, windows):
    files.write_text(tmp_path / "text", "one")
    files.append_text(tmp_path / "text", "two")
    with files.replacing_file(tmp_path / "file") as new:
        new.write_bytes(b"x")
        new.chmod(0o444)  # a file that nobody may write to is flushed, too, and stays so
    write_new(tmp_path / "folder")
    write_new(tmp_path / "folder")
    assert [Path(path).name for path in windows] == ["text", "text", "file", *["config.json", "one.jinja"] * 2]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_drive_that_cannot_flush_is_written_to(tmp_path, monkeypatch, number):
    def refuse(_):
        raise OSError(number, "cannot")

    monkeypatch.setattr(os, "fsync", refuse)
    files.write_text(tmp_path / "text", "one")
    assert (tmp_path / "text").read_text() == "one"


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


# Files.


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / ("ä" * 120)  # 240 bytes: a scratch name must not be longer than a name may be
    files.write_text(path, "old\n")
    with pytest.raises(ZeroDivisionError), files.replacing_file(path) as new:
        new.write_text("half")
        raise ZeroDivisionError
    with refusing(monkeypatch, lambda start, end: end == path), pytest.raises(OSError, match="No space"):
        files.write_text(path, "new\n")
    assert tree(tmp_path) == {f"deep/{path.name}": "old\n"}
    files.write_text(path, "neu: ü\n")
    assert path.read_bytes() == "neu: ü\n".encode()


def test_a_link_stays_a_link(tmp_path):
    files.write_text(tmp_path / "there" / "file", "old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == "new"


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


# Folders.


@pytest.mark.parametrize("old", [{}, {"config_json": "old"}, {"config_json": "old", "weights": "old", "_hidden": "x"}])
def test_a_folder_is_replaced_and_hidden_entries_stay(tmp_path, old):
    folder = fill(tmp_path / "folder", **old)
    (folder / "lost+found").mkdir()
    write_new(folder)
    assert tree(folder) == NEW | ({".hidden": "x"} if "_hidden" in old else {})
    assert (folder / "lost+found").is_dir() and list(tmp_path.iterdir()) == [folder]
    write_new(folder)  # a template in a folder of its own is ours, too
    assert {name: text for name, text in tree(folder).items() if name != ".hidden"} == NEW


def test_a_new_folder_appears_whole(tmp_path):
    folder = tmp_path / "deep" / "folder"
    with files.replacing_folder(folder, OURS) as new:
        (new / "weights").write_text("new")
        assert not folder.exists()
    assert tree(tmp_path) == {"deep/folder/weights": "new"}


@pytest.mark.parametrize("foreign", ["thesis.docx", "templates/two.jinja", "config.json/inner", "empty/"])
def test_foreign_files_are_named_and_nothing_is_touched(tmp_path, foreign):
    """A folder called as a file of ours is foreign by what is in it."""
    folder = fill(tmp_path / "folder", weights="old")
    if foreign.endswith("/"):
        (folder / foreign).mkdir()
    else:
        (folder / foreign).parent.mkdir(exist_ok=True)
        (folder / foreign).write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(LabError, match=rf"folder holds {foreign}, which would be mixed.*Choose an empty or a new"):
        write_new(folder)
    assert tree(tmp_path) == before


def test_what_appears_in_the_meantime_is_not_deleted(tmp_path):
    with pytest.raises(LabError, match="thesis"), files.replacing_folder(tmp_path / "folder", OURS) as new:
        fill(new, weights="new")
        fill(tmp_path / "folder", thesis_docx="years of work")
    assert tree(tmp_path) == {"folder/thesis.docx": "years of work"}


def test_a_link_in_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path):
    outside = fill(tmp_path / "outside", config_json="theirs")
    folder = fill(tmp_path / "folder")
    (folder / "config.json").symlink_to(outside / "config.json")
    (folder / "weights").symlink_to(outside)
    write_new(folder)
    assert tree(folder) == NEW and tree(outside) == {"config.json": "theirs"}


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_mounted_folder_is_written_to_without_being_moved(tmp_path, monkeypatch, number):
    folder = fill(tmp_path / "mounted", config_json="old", weights="old")
    with refusing(monkeypatch, lambda start, end: folder in (start, end), number):
        write_new(folder)
    assert tree(tmp_path) == {f"mounted/{name}": text for name, text in NEW.items()}


@pytest.mark.parametrize("yesterday", [True, False])
def test_a_really_mounted_folder(tmp_path, yesterday):
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        if yesterday:
            fill(folder, config_json="old")
        write_new(folder)
        assert tree(folder) == NEW
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("failing", range(4))
def test_a_move_that_fails_is_undone_with_all_before_it(tmp_path, monkeypatch, failing):
    """Two old files are moved out and two new entries in: each of the four moves may be the one that fails."""
    folder = fill(tmp_path / "folder", config_json="old", weights="old")
    before, made = tree(tmp_path), []

    def refused(start: Path, end: Path) -> bool:
        made.append((start, end))
        return len(made) == failing + 1

    with refusing(monkeypatch, refused), pytest.raises(OSError, match="No space"):
        write_new(folder)
    assert tree(tmp_path) == before and list(folder.glob(".*")) == []


def test_what_cannot_be_moved_back_is_kept(tmp_path, monkeypatch):
    folder = fill(tmp_path / "folder", config_json="old", weights="old")
    with refusing(monkeypatch, lambda _, end: end.parent == folder), pytest.raises(OSError, match="No space"):
        write_new(folder)
    assert sorted(tree(folder).values()) == ["old", "old"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_a_block_that_fails_leaves_the_folder_as_it_was(tmp_path, error, existed):
    if existed:
        fill(tmp_path / "folder", config_json="old")
    before = tree(tmp_path)
    with pytest.raises(error), files.replacing_folder(tmp_path / "folder", OURS) as new:
        (new / "config.json").write_text("half")
        raise error
    assert tree(tmp_path) == before and (tmp_path / "folder").exists() == existed


def test_a_folder_is_moved_to_where_nothing_is(tmp_path):
    start = fill(tmp_path / "start", weights="old")
    for end in (fill(tmp_path / "full", weights="other"), fill(tmp_path, file="text") / "file"):
        with pytest.raises(FileExistsError):
            files.move(start, end)
    fill(tmp_path / "empty")
    files.move(start, tmp_path / "empty")
    files.move(tmp_path / "empty", tmp_path / "new")
    assert tree(tmp_path) == {"file": "text", "full/weights": "other", "new/weights": "old"}


@pytest.mark.parametrize("dangling", [True, False])
def test_a_file_where_a_folder_is_wanted(tmp_path, dangling):
    path = tmp_path / "path"
    if dangling:
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("text")
    with pytest.raises(LabError, match="path is a file, and a folder is to be written there"):
        write_new(path)


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
def test_a_really_full_disk_is_known_whoever_writes(full_disk, write):
    files.write_text(full_disk / "file", "old")
    with pytest.raises(Exception) as caught, files.replacing_file(full_disk / "file") as new:
        write(new)
    assert "The disk is full: free some space." in files.explain(caught.value)
    assert (full_disk / "file").read_text() == "old" and len(list(full_disk.iterdir())) == 2


def test_an_error_that_nobody_knows_is_given_as_it_is():
    assert files.explain(RuntimeError("odd.\nmore")) == "odd." and files.explain(OSError()) == "OSError."
