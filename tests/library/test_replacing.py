"""replacing: what is new appears whole or not at all, the old is there until then, and nothing foreign is touched."""

import ast
import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest
from file_trees import fill, mounted, tree

from lab_utils import files
from lab_utils.errors import LabError
from lab_utils.folders import ROOT

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
    paths = [path for path in sorted((ROOT / folder).rglob("*.py")) if path != ROOT / "lab_utils" / "replacing.py"]
    assert {path.name: calls(path) & banned for path in paths if calls(path) & banned} == {}
    assert {"os.fsync", "os.replace"} <= calls(ROOT / "lab_utils" / "replacing.py")


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


# Folders.


@pytest.fixture
def irregular(tmp_path):
    """A pipe, a socket, and links to both."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in ("pipe", "socket"):
        (tmp_path / f"link to a {name}").symlink_to(tmp_path / name)
    return [tmp_path / name for name in ("pipe", "socket", "link to a pipe", "link to a socket")]


def test_what_is_no_regular_file_is_never_replaced(tmp_path, irregular):
    before = {path: path.lstat() for path in irregular}
    for path in irregular:
        with pytest.raises(LabError, match=f"{path.name} is not a regular file but a device, a pipe or a socket"):
            files.write_text(path, "new")
        with pytest.raises(LabError, match="not a regular file"), files.replacing_files(tmp_path) as new:
            (new / path.name).write_text("new")
        with pytest.raises(LabError, match=r"holds .*pipe"), files.replacing_folder(tmp_path, lambda name: True) as new:
            (new / path.name).write_text("new")
    assert {path: path.lstat() for path in irregular} == before
    assert sorted(tmp_path.iterdir()) == sorted(irregular)


def test_a_folder_in_the_place_of_a_file_stays(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(LabError, match="a is a folder"), files.replacing_files(tmp_path) as new:
        (new / "a").write_text("new")
    assert (tmp_path / "a" / "b").is_dir() and [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("old", [{}, {"config_json": "old"}, {"config_json": "old", "weights": "old", "_hidden": "x"}])
def test_a_folder_is_replaced_and_hidden_entries_stay(tmp_path, old):
    folder = fill(tmp_path / "folder", **old)
    (folder / "lost+found").mkdir()
    write_new(folder)
    assert tree(folder) == NEW | ({".hidden": "x"} if "_hidden" in old else {})
    assert (folder / "lost+found").is_dir() and list(tmp_path.iterdir()) == [folder]
    write_new(folder)  # a template in its own folder is ours, too
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
    with mounted(tmp_path / "mounted") as folder:
        if yesterday:
            fill(folder, config_json="old")
        write_new(folder)
        assert tree(folder) == NEW


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


@pytest.mark.parametrize("failing", range(5))
def test_some_files_are_replaced_together_and_the_rest_is_left_alone(tmp_path, monkeypatch, failing):
    """One old file moves out and two new ones in; the first three rounds fail at one of these, the fourth at none."""
    folder = tmp_path / "folder"
    if failing < 4:
        fill(folder, config_json="old", thesis_docx="years of work")
    before, made = tree(tmp_path), []

    def refused(start: Path, end: Path) -> bool:
        made.append((start, end))
        return len(made) == failing + 1

    with refusing(monkeypatch, refused), contextlib.suppress(OSError), files.replacing_files(folder) as new:
        fill(new, config_json="new", weights="new")
    after = {"folder/config.json": "new", "folder/weights": "new"}
    assert tree(tmp_path) == (before if failing < 3 else before | after) and list(folder.glob(".*")) == []


def test_files_in_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(LabError, match="file is a file, and a folder"), files.replacing_files(tmp_path / "file"):
        pass
    with pytest.raises(ZeroDivisionError), files.replacing_files(tmp_path / "new"):
        raise ZeroDivisionError
    assert tree(tmp_path) == {"file": "text"} and not (tmp_path / "new").exists()


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
