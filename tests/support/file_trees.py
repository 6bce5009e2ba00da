"""What is in a folder, for the tests of files and replacing."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A folder that a file system is mounted at; the test is skipped where nothing can be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
