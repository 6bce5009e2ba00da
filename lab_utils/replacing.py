"""Files and folders that take the place of others: whole or not at all, and nothing of anybody else's.

What is new is written beside the old, flushed to the disk, and moved into its place when it is complete. Until then the
old is as it was; a process that is killed leaves a hidden scratch folder, no half file. No other module of the library
flushes, moves or renames.
"""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import LabError

# What file systems and desktops put into a folder by themselves.
IGNORED = ("lost+found", "System Volume Information", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")
CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # network drives that have no such thing as flushing


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Write a new file in the `with` block, at the path it gives; at its end it takes the place of `path`.

    If the block raises, or the disk refuses, an old file at `path` is as before. A link stays a link: what it leads to
    is replaced.

    Raises
    ------
    LabError
        `path` is a folder, or leads to a device, a pipe or a socket.
    OSError
        The disk refuses; an old file is as before.
    """
    path = Path(path)
    refuse_a_folder(path)
    _refuse_a_device(path)
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
        `folder` is a file, or holds something foreign, which is named. Devices, pipes and sockets always are foreign.
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
            _swap(folder, new, entries(folder))
        else:
            move(new, folder)


@contextmanager
def replacing_files(folder: str | Path) -> Iterator[Path]:
    """Write files in the `with` block, in the folder it gives; at its end all of them are in `folder`, or none.

    Each takes the place of the one of its name; everything else in `folder` is left alone.

    Raises
    ------
    LabError
        `folder` is a file, or holds a folder, a device, a pipe or a socket where a file is to be written.
    OSError
        The disk refuses; the folder is as before.
    """
    folder = Path(folder)
    _refuse_a_file(folder)
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with scratch_folder(folder, "new") as new:
            yield new
            sync(new)
            for path in new.iterdir():
                if _is_file(path):
                    refuse_a_folder(folder / path.name)
                    _refuse_a_device(folder / path.name)
            _swap(folder, new, [])
    except BaseException:
        if not existed:
            with suppress(OSError):  # something else may be in it by now
                folder.rmdir()
        raise


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
    _refuse_a_file(folder)
    foreign = [
        name
        for entry in entries(folder)
        for name in ([entry] if _is_file(folder / entry) else _files(folder, entry) or [f"{entry}/"])
        if not is_ours(name) or _is_device(folder / name)
    ]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise LabError(
            f"{folder} holds {', '.join(foreign[:3])}{more}, which would be mixed with what is written. "
            "Choose an empty or a new folder."
        )


def refuse_a_folder(path: Path) -> None:
    """Raise a LabError if a file is to be written where a folder is."""
    if path.is_dir():
        raise LabError(f"{path} is a folder, and a file is to be written there. Name a file in it.")


def _refuse_a_device(path: Path) -> None:
    """Raise a LabError if a file is to be written where a device, a pipe or a socket is: it would be deleted."""
    if _is_device(path):
        raise LabError(f"{path} is not a regular file but a device, a pipe or a socket. Choose another path.")


def _is_device(path: Path) -> bool:
    """Does it lead to something that is neither a regular file nor a folder?"""
    return path.exists() and not path.is_file() and not path.is_dir()


def _refuse_a_file(folder: Path) -> None:
    """Raise a LabError if a folder is to be written where a file is, or a link that leads nowhere."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise LabError(f"{folder} is a file, and a folder is to be written there. Choose another path.")


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


def _swap(folder: Path, new: Path, leaving: list[str]) -> None:
    """Move everything in `new` into `folder`, and delete the entries `leaving` and those of the same names.

    If a move fails, all of them are undone.
    """
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder))
    names = [path.name for path in sorted(new.iterdir())]
    leaving = leaving + [name for name in names if name not in leaving and os.path.lexists(folder / name)]
    moved: list[tuple[Path, Path]] = []
    try:
        for start, end in (
            *((folder / name, old / name) for name in leaving),
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
            flush(file.fileno())
    finally:
        if not mode & stat.S_IWUSR:
            path.chmod(mode)


def flush(number: int) -> None:
    """Flush an open file, where the file system can."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
