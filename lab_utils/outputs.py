"""Writing into a folder that a person chose: whole files, never over somebody else's, and errors in words."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import LabError
from .files import explain, replacing_file, scratch_folder, user_path


def output_folder(path: str | Path) -> Path:
    """A folder that a person named, made if necessary, in which files can be written.

    Parameters
    ----------
    path : `~` is expanded

    Raises
    ------
    LabError
        It cannot be made or written; the text gives the reason and what to do.
    """
    folder = user_path(path)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder, "probe"):
            pass
    return folder


@contextmanager
def explained(path: str | Path, done: str = "written") -> Iterator[None]:
    """Turn a disk's errors in this block into a LabError that names `path`, what was to be done, and the way out."""
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
    """Raise a LabError that names the first of `paths` with a file whose content `is_ours` does not recognize."""
    for path in paths:
        with explained(path):
            there = path.read_bytes() if path.is_file() else None
        if there is not None and not is_ours(there):
            raise LabError(f"{path} is a file that was not written here, and would be lost. Choose another --output.")


def write_over_own(folder: Path, files: Mapping[str, bytes], is_own: Callable[[str, bytes], bool]) -> None:
    """Write all files, or none if one would replace somebody's work.

    Parameters
    ----------
    folder : made if necessary; other files in it stay
    files : path in `folder` -> content
    is_own : function of such a path and the present content: may it be replaced?

    Raises
    ------
    LabError
        An existing file differs from what would be written, and is not our own: it is named. Or the disk refuses.
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
    """A folder for the duration of the block. A LabError says why if none can be made."""
    with ExitStack() as stack:
        with explained("A temporary folder"):
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
        yield Path(made)


@contextmanager
def home_for_jupyter() -> Iterator[None]:
    """Give an account without a home folder a temporary one in this block: Jupyter's programs do not start without.

    Expand paths that a person wrote (`user_path`) first, so that nothing they want to keep is put there.
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
    """Let this process print every character: what its terminal's encoding lacks is printed as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
