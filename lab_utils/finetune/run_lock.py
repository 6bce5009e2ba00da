"""One process per run: a lock on a run's folder, which the system lets go when its holder dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import LabError
from ..files import explain

NAME = ".lock"  # stays in the folder; that it is there means nothing


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let no other process train in `folder` during the `with` block; the folder is made if need be.

    Parameters
    ----------
    folder : Path of a run

    Raises
    ------
    LabError
        Another process, or another thread of this one, trains there; or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder} cannot be this run's folder: {explain(error)}") from error
    lock = FileLock(folder / NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LabError(
            f"{folder} is in use: another process trains there at this moment. Wait until it ends, stop it, or take "
            "another output_dir. What it has saved is as it was."
        ) from error
    except PermissionError as error:
        raise LabError(f"{folder} cannot be this run's folder: {explain(error)}") from error
    except (OSError, NotImplementedError) as error:
        if _read_only(error):
            raise LabError(f"{folder} cannot be this run's folder: {explain(error)}") from error
        print(f"Note: {folder} cannot be locked here ({error}). Let no other process train in it.")
    try:
        yield
    finally:
        lock.release()


def _read_only(error: BaseException) -> bool:
    """Does an error say that nothing can be written, rather than that nothing can be locked?"""
    import errno

    return getattr(error, "errno", None) in (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EISDIR, errno.ENOENT)
