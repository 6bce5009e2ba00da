"""Reading and writing files: UTF-8 with or without a BOM, whole files or none, and errors that say the way out."""

import errno
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from .errors import LabError, shown
from .replacing import (
    entries,
    flush,
    move,
    refuse_a_folder,
    refuse_foreign,
    replacing_file,
    replacing_files,
    replacing_folder,
    scratch_folder,
    sync,
)

__all__ = [
    "append_text", "entries", "explain", "move", "read_json", "read_text", "refuse_foreign", "replacing_file",
    "replacing_files", "replacing_folder", "scratch_folder", "sync", "user_path", "write_text",
]  # fmt: skip
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, in the file systems in use
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


def user_path(path: str | Path) -> Path:
    """A path that a person wrote, `~` expanded.

    Raises
    ------
    LabError
        It is not a path, or one that no file can have: a null character or half a character in it, or a name that is
        too long; or it starts with `~`, and this account (or the one named after it) has no home folder.
    """
    try:
        return _possible(_possible(path).expanduser())
    except RuntimeError as error:
        raise LabError(f"{path}: there is no home folder for the ~ in it. Write the path in full.") from error


def _possible(path: str | Path) -> Path:
    """A path as it is; a LabError if it is none, or if no file can have it."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise LabError(f"{shown(path)} is not a path: write it as a text, such as 'runs/bookings'.")
    if "\0" in text:
        raise LabError(f"{shown(text)} cannot be a path: it holds a null character. Take it out.")
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise LabError(f"{shown(text)} cannot be a path: {half} is half a character. Take it out.") from error
    longest = max(map(len, data.replace(os.fsencode(os.sep), b"/").split(b"/")))
    if longest > LONGEST_NAME:
        raise LabError(
            f"{shown(text)} cannot be a path: a name in it takes {longest} bytes, and {LONGEST_NAME} are allowed. "
            "Choose a shorter one."
        )
    if len(data) > LONGEST_PATH:
        raise LabError(f"{shown(text)} is too long: {len(data)} bytes, and {LONGEST_PATH} are allowed. Shorten it.")
    return Path(path)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a BOM, whatever the machine's locale is.

    Raises
    ------
    LabError
        The file is missing, cannot be read, or is not UTF-8: the file and the first wrong byte are named.
    """
    path = _possible(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise LabError(
            f"{path} is not UTF-8: byte {error.start}, in line {line}, is 0x{error.object[error.start]:02x}. "
            "Save it as UTF-8."
        ) from error
    except OSError as error:
        raise LabError(f"{path} cannot be read: {explain(error)}") from error


def read_json(path: str | Path) -> object:
    """What a JSON file holds; read as `read_text` does.

    Raises
    ------
    LabError
        As `read_text`; or the file is not JSON: file, line and column are named.
    """
    return _json(read_text(path), path)


def read_json_lines(path: str | Path) -> list:
    """What each line of a JSON Lines file holds, empty lines left out; read as `read_text` does.

    Raises
    ------
    LabError
        As `read_text`; or a line is not JSON: file, line and column are named.
    """
    lines = enumerate(read_text(path).split("\n"), 1)
    return [_json(line, path, number) for number, line in lines if line.strip()]


def _json(text: str, path: str | Path, number: int | None = None) -> object:
    """What a file, or its line of this number, says; a LabError tells where it is not JSON."""
    where = path if number is None else f"{path}, line {number},"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LabError(
            f"{path}, line {number or error.lineno}, column {error.colno}: not JSON ({error.msg})."
        ) from error
    except RecursionError as error:
        raise LabError(f"{where} is nested too deeply to be read.") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise LabError(f"{where} cannot be read: {explain(error)}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all.

    Raises
    ------
    LabError
        `path` is a folder, or one that no file can have (see `user_path`); or the text holds half a character (a lone
        surrogate), which UTF-8 cannot say.
    OSError
        The disk refuses; an old file is as before.
    """
    path = _possible(path)
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
    path = _possible(path)
    data = _utf8(path, text)
    refuse_a_folder(path)
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
            flush(file.fileno())
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
