"""What a command writes into a folder that a person chose: whole files, nothing of anyone else's, errors in words."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import LabError
from .files import explain, replacing_file, scratch_folder, user_path


def output_folder(path: str | Path) -> Path:
    """A folder that a person named, made if need be, in which files can be written.

    Parameters
    ----------
    path : `~` is expanded

    Raises
    ------
    LabError
        It cannot be made or written: with the reason and what to do.
    """
    folder = user_path(path)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder, "probe"):
            pass
    return folder


@contextmanager
def explained(path: str | Path, done: str = "written") -> Iterator[None]:
    """Turn what the disk says in this block into a LabError that names `path`, what was to be done, and the way out."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise LabError(f"{path} cannot be {done}: {explain(error)}") from error


def save(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all, text as UTF-8; returns the path. A LabError says why if the disk refuses."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    with explained(path), replacing_file(path) as scratch:
        scratch.write_bytes(data)
    return path


def refuse_others(paths: list[Path], is_ours: Callable[[bytes], bool]) -> None:
    """Raise a LabError that names the first of `paths` where a file is whose content `is_ours` does not know."""
    for path in paths:
        with explained(path):
            there = path.read_bytes() if path.is_file() else None
        if there is not None and not is_ours(there):
            raise LabError(f"{path} is a file that was not written here, and would be lost. Choose another --output.")


def write_over_own(folder: Path, files: Mapping[str, bytes], is_own: Callable[[str, bytes], bool]) -> None:
    """Write files, all of them or, where one would take the place of somebody's work, none.

    Parameters
    ----------
    folder : made if need be; what else is in it stays
    files : path in `folder` -> content
    is_own : function of such a path and the content of the file there: may it be replaced?

    Raises
    ------
    LabError
        A file that is there is not what would be written, and not our own: it is named. Or the disk refuses.
    """
    folder = output_folder(folder)
    others = []
    for name, content in files.items():
        with explained(folder / name, "read"):
            there = (folder / name).read_bytes() if os.path.lexists(folder / name) else content
        others += [name] if there != content and not is_own(name, there) else []
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise LabError(
            f"{folder} holds files that were changed after they were written there, or that come from elsewhere: "
            f"{', '.join(others[:3])}{more}. They would be lost: move them away, or choose another --output."
        )
    for name, content in files.items():
        save(folder / name, content)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for the time of the block. A LabError says why if there is no place for one."""
    with ExitStack() as stack:
        with explained("A temporary folder"):
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
        yield Path(made)


@contextmanager
def home_for_jupyter() -> Iterator[None]:
    """Inside, an account without a home folder has a temporary one: Jupyter's programs do not start without any.

    Expand what a person wrote (`user_path`) before, so that nothing they want to keep goes there.
    """
    try:
        Path.home()
    except RuntimeError:
        with temporary_folder("lora-lab-home-") as folder:
            os.environ["HOME"] = str(folder)
            try:
                yield
            finally:
                del os.environ["HOME"]
    else:
        yield


def print_anything() -> None:
    """Let this process print every character: what its terminal's encoding lacks comes as an escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
