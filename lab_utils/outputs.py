"""What a command writes into a folder that a person chose: whole files, nothing of anyone else's, errors in words."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError
from .files import explain, read_json, replacing_file, scratch_folder, user_path

RECORD = ".lora-lab-files.json"  # in a folder of `write_known`: what it wrote there


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
def explained(path: str | Path) -> Iterator[None]:
    """Turn what the disk says in this block into a LabError that names `path` and the way out."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise LabError(f"{path} cannot be written: {explain(error)}") from error


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


def write_known(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files and remember their content, so that one that somebody has changed since is never written over.

    Parameters
    ----------
    folder : made if need be; what else is in it stays
    files : path in `folder` -> content

    Returns
    -------
    list of Path, the files

    Raises
    ------
    LabError
        A file of that name is neither what was written here before nor what would be: it is named, and nothing is
        written. Or the disk refuses.
    """
    folder = output_folder(folder)
    known, new = _record(folder), {name: _digest(content) for name, content in files.items()}
    changed = [
        name for name in files
        if (folder / name).exists() and _digest_of(folder / name) not in (*known.get(name, ()), new[name])
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise LabError(
            f"{folder} holds files that were changed since they were written there, or are not from here: "
            f"{', '.join(changed[:3])}{more}. They would be lost: move them away, or choose another --output."
        )
    # First the record of both: if the writing is cut short, either is known the next time.
    save(folder / RECORD, json.dumps(known | {name: [*known.get(name, ()), new[name]] for name in new}, indent=1))
    written = [save(folder / name, content) for name, content in files.items()]
    save(folder / RECORD, json.dumps(known | {name: [digest] for name, digest in new.items()}, indent=1))
    return written


def _record(folder: Path) -> dict[str, list[str]]:
    """File -> digests that it may have; nothing of a record that cannot be read: then every file counts as changed."""
    try:
        found = read_json(folder / RECORD)
    except LabError:
        return {}
    valid = isinstance(found, dict) and all(isinstance(digests, list) for digests in found.values())
    return found if valid else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(path: Path) -> str:
    with explained(path):
        return _digest(path.read_bytes())


def print_anything() -> None:
    """Let this process print every character: what its terminal's encoding lacks comes as an escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
