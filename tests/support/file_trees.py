"""What is in a folder, for the tests of files and replacing."""

import os
from pathlib import Path


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
