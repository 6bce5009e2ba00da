"""Reading and writing files so that nothing is lost: UTF-8 with or without a BOM, and whole files or none.

A file or folder that replaces another is written beside it, flushed to the disk, and moved into its place when it is
complete. Until then the old one is as it was; a process that is killed leaves a hidden scratch folder, no half file.
"""

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import LabError

# What file systems and desktops put into a folder by themselves.
IGNORED = ("lost+found", "System Volume Information", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")
WAYS_OUT = {  # what a person can do, by the number of an operating system's error
    errno.ENOSPC: "The disk is full: free some space.",
    errno.EDQUOT: "Your quota is used up: delete something, or choose another disk.",
    errno.EACCES: "You may not do that there: choose a folder of your own, or ask its owner for the right.",
    errno.EPERM: "You may not do that there: choose a folder of your own, or ask its owner for the right.",
    errno.EROFS: "That disk can only be read: choose another folder.",
    errno.ENOTDIR: "A file is in the way: choose another path.",
    errno.EEXIST: "A file is in the way: choose another path.",
    errno.ENOTEMPTY: "A folder is in the way: choose another path.",
    errno.EISDIR: "That is a folder: name a file.",
    errno.ENOENT: "Check the path.",
    errno.EBUSY: "It is in use, or mounted there: choose another path.",
    errno.EXDEV: "It is mounted there: choose another path.",
    errno.ENAMETOOLONG: "The name is too long: choose a shorter one.",
    errno.EFBIG: "The file is too large for that disk: choose another disk.",
    errno.EIO: "The disk reports an error: choose another disk, and check this one.",
}
IN_WORDS = {  # how torch and numpy put the same errors; the four of a full disk were seen on one
    "No space left": errno.ENOSPC, "file write failed": errno.ENOSPC, "unexpected pos": errno.ENOSPC,
    " requested and ": errno.ENOSPC, "Permission denied": errno.EACCES, "Read-only file system": errno.EROFS,
    "Is a directory": errno.EISDIR, "Disk quota exceeded": errno.EDQUOT, "Parent directory": errno.ENOENT,
}  # fmt: skip
CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # network drives that have no such thing as flushing


def user_path(path: str | Path) -> Path:
    """A path that a person wrote, `~` expanded.

    Raises
    ------
    LabError
        The path starts with `~`, and this account (or the one named after it) has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise LabError(f"{path}: there is no home folder for the ~ in it. Write the path in full.") from error


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a BOM, whatever the machine's locale is.

    Raises
    ------
    LabError
        The file is missing, cannot be read, or is not UTF-8: the file and the first wrong byte are named.
    """
    path = Path(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise LabError(
            f"{path} is not UTF-8: byte {error.start}, in line {line}, is 0x{error.object[error.start]:02x}. "
            "Save it as UTF-8."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise LabError(f"{path} cannot be read: {explain(error)}") from error


def read_json(path: str | Path) -> object:
    """What a JSON file holds; read as `read_text` does.

    Raises
    ------
    LabError
        As `read_text`; or the file is not JSON: file, line and column are named.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LabError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise LabError(f"{path} is nested too deeply to be read.") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise LabError(f"{path} cannot be read: {explain(error)}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all.

    Raises
    ------
    LabError
        `path` is a folder, or the text holds half a character (a lone surrogate), which UTF-8 cannot say.
    OSError
        The disk refuses; an old file is as before.
    """
    data = _utf8(path, text)
    with replacing_file(path) as scratch:
        scratch.write_bytes(data)


def append_text(path: str | Path, text: str) -> None:
    """Add to the end of a UTF-8 file, or begin it, and flush it to the disk.

    A last line that lacks its end gets it first. If the disk refuses in the middle, what was added is taken off again.

    Raises
    ------
    LabError, OSError
        As `write_text`.
    """
    path = Path(path)
    data = _utf8(path, text)
    _refuse_a_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    existed = path.exists()
    with open(path, "a+b", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        if length:
            file.seek(length - 1)
            data = data if file.read(1) == b"\n" else b"\n" + data
        try:
            while data:
                data = data[file.write(data) :]
            _flush(file.fileno())
        except BaseException:
            file.truncate(length)
            raise
        finally:
            if not existed and os.fstat(file.fileno()).st_size == 0:
                with suppress(OSError):
                    path.unlink()


def _utf8(path: str | Path, text: str) -> bytes:
    """The text's bytes; a LabError names a character that has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise LabError(
            f"{path}, line {line}: U+{ord(text[error.start]):04X} is half a character and cannot be written as UTF-8. "
            "Take it out of the text."
        ) from error


def _refuse_a_folder(path: Path) -> None:
    """Raise a LabError if a file is to be written where a folder is."""
    if path.is_dir():
        raise LabError(f"{path} is a folder, and a file is to be written there. Name a file in it.")


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Write a new file in the `with` block, at the path it gives; at its end it takes the place of `path`.

    If the block raises, or the disk refuses, an old file at `path` is as before. A link stays a link: what it leads to
    is replaced.

    Raises
    ------
    LabError
        `path` is a folder.
    OSError
        The disk refuses; an old file is as before.
    """
    path = Path(path)
    _refuse_a_folder(path)
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path.parent, path.name) as scratch:
        new = scratch / path.name
        yield new
        sync(new)
        os.replace(new, path)


@contextmanager
def replacing_folder(folder: str | Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """Write a new folder in the `with` block, at the path it gives; at its end its files take the place of the old.

    What is in `folder` already stays as it is until every new file is complete and on the disk. Then old files are set
    aside, new ones are moved in, and the old ones are deleted last; if a move fails, all of them are moved back. Files
    are moved one by one, never the folder, so a mounted folder works too. Hidden entries are left alone. A folder that
    did not exist appears whole.

    Parameters
    ----------
    folder : path; it need not exist
    is_ours : function of a file's path in the folder, as "config.json" or "templates/one.jinja": may it be replaced or
        removed? Any other file is foreign.

    Raises
    ------
    LabError
        `folder` is a file, or holds something foreign, which is named.
    OSError
        The disk refuses; the folder is as before.
    """
    folder = Path(folder)
    refuse_foreign(folder, is_ours)
    existed = folder.is_dir()
    beside = folder if existed else folder.parent
    beside.mkdir(parents=True, exist_ok=True)
    with scratch_folder(beside, "new" if existed else folder.name) as scratch:
        new = scratch / "new"
        new.mkdir()
        yield new
        sync(new)
        refuse_foreign(folder, is_ours)  # again: something may have been put there in the meantime
        if folder.is_dir():
            _swap(folder, new)
        else:
            move(new, folder)


def move(start: Path, end: Path) -> None:
    """Move a file or a folder, whole, to where nothing is, or an empty folder.

    Raises
    ------
    OSError
        Something is there (FileExistsError), or the disk refuses; nothing is moved.
    """
    if os.path.lexists(end):
        if _is_file(end) or any(end.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(end))
        end.rmdir()
    os.rename(start, end)


def refuse_foreign(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Raise a LabError if `folder` is a file, or holds anything but hidden entries and what `is_ours` accepts."""
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise LabError(f"{folder} is a file, and a folder is to be written there. Choose another path.")
    foreign = [
        name
        for entry in entries(folder)
        for name in ([entry] if _is_file(folder / entry) else _files(folder, entry) or [f"{entry}/"])
        if not is_ours(name)
    ]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise LabError(
            f"{folder} holds {', '.join(foreign[:3])}{more}, which would be mixed with what is written. "
            "Choose an empty or a new folder."
        )


def _is_file(path: Path) -> bool:
    """Is it anything but a real folder? A link to a folder is moved and deleted like a file."""
    return path.is_symlink() or not path.is_dir()


def _files(folder: Path, below: str = "") -> list[str]:
    """The paths in `folder` of all files in it, or in its folder `below`."""
    found = [path for path in sorted((folder / below).rglob("*")) if _is_file(path)]
    return [path.relative_to(folder).as_posix() for path in found]


def entries(folder: Path) -> list[str]:
    """What a folder holds, hidden entries left out."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name not in IGNORED)


def _swap(folder: Path, new: Path) -> None:
    """Move everything in `new` into `folder` and delete what was there; if a move fails, undo them all."""
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder))
    names = [path.name for path in sorted(new.iterdir())]
    hidden = [name for name in names if name.startswith(".") and os.path.lexists(folder / name)]
    moved: list[tuple[Path, Path]] = []
    try:
        for start, end in (
            *((folder / name, old / name) for name in (*entries(folder), *hidden)),
            *((new / name, folder / name) for name in names),
        ):
            os.replace(start, end)
            moved.append((start, end))
    except BaseException:
        for start, end in reversed(moved):
            with suppress(OSError):  # what cannot be moved back stays in `old`
                os.replace(end, start)
        with suppress(OSError):
            old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A fresh, hidden folder in `parent`, so that what is written there is moved and not copied; gone afterwards."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{name[:40]}-", dir=parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a written file, or all files in a folder, to the disk.

    A file is opened for writing: Windows does not flush one that was opened for reading.
    """
    if not _is_file(path):
        for name in _files(path):
            sync(path / name)
        return
    mode = path.stat().st_mode
    if not mode & stat.S_IWUSR:
        path.chmod(mode | stat.S_IWUSR)
    try:
        with open(path, "r+b") as file:
            _flush(file.fileno())
    finally:
        if not mode & stat.S_IWUSR:
            path.chmod(mode)


def _flush(number: int) -> None:
    """Flush an open file, where the file system can."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def explain(error: BaseException) -> str:
    """What went wrong with a file, and what a person can do about that: a sentence or two.

    Full disks, missing rights, read-only file systems and the like are told apart by their number; what torch and
    safetensors raise instead of an OSError is told apart by its text.
    """
    text = str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__
    number = getattr(error, "errno", None)
    if getattr(error, "winerror", None) in (32, 33):
        return f"{text}. Another program has it open: close it there."
    if found := re.search(r"\(os error (\d+)\)", text):  # as Rust writes it
        number = int(found[1])
    if number not in WAYS_OUT:
        number = next((number for words, number in IN_WORDS.items() if words in text), None)
    return f"{text}. {WAYS_OUT[number]}" if number else f"{text}."
