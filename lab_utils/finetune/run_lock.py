"""One process per run: a lock on a run's folder or file, which the system lets go when its holder dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import LabError
from ..files import explain, user_path
from ..printing import say

NAME = ".lock"  # stays in the folder; that it is there means nothing


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Let no other process train in `folder` during the `with` block; the folder is made if need be.

    Parameters
    ----------
    folder : path of a run

    Raises
    ------
    LabError
        Another process, or another thread of this one, trains there; or the folder cannot be written.
    """
    folder = user_path(folder)
    busy = f"{folder} is in use: another process trains there at this moment. Wait until it ends, stop it, or take "
    with _locked(folder / NAME, f"{busy}another output_dir. What it has saved is as it was.", "this run's folder"):
        yield


@contextmanager
def held_file(path: str | Path) -> Iterator[None]:
    """Let no other process add to the file `path` during the `with` block; its folder is made if need be.

    Parameters
    ----------
    path : of a table or a state that one process writes at a time; it need not exist

    Raises
    ------
    LabError
        Another process, or another thread of this one, has it; or the folder cannot be written.
    """
    path = user_path(path)
    busy = f"{path} is in use: another process writes it at this moment. Wait until it ends, stop it, or take another "
    with _locked(path.parent / f".{path.name[:100]}{NAME}", f"{busy}path. What it has saved is as it was.", "used"):
        yield


@contextmanager
def _locked(file: Path, busy: str, role: str) -> Iterator[None]:
    """Hold the lock in `file`; a LabError says `busy`, or that the file's folder cannot be what its `role` is."""
    from filelock import FileLock, Timeout

    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder} cannot be {role}: {explain(error)}") from error
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LabError(busy) from error
    except PermissionError as error:
        raise LabError(f"{folder} cannot be {role}: {explain(error)}") from error
    except (OSError, NotImplementedError) as error:
        if _read_only(error):
            raise LabError(f"{folder} cannot be {role}: {explain(error)}") from error
        say(f"Note: {folder} cannot be locked here ({error}). Let no other process write in it.")
    try:
        yield
    finally:
        lock.release()


def _read_only(error: BaseException) -> bool:
    """Does an error say that nothing can be written, rather than that nothing can be locked?"""
    import errno

    return getattr(error, "errno", None) in (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EISDIR, errno.ENOENT)
