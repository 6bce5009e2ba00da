"""The list that an export writes beside its files, by name and digest: the next export replaces only what it lists."""

import hashlib
import json
from pathlib import Path

from ..errors import LabError
from ..files import entries, read_json

NAME = "lora_lab_export.json"
WRITTEN_BY = "LoRA Lab, export_merged"


def write(folder: Path) -> None:
    """List every file in a folder, at any depth, in its own file.

    Parameters
    ----------
    folder : path of a folder that holds an export and nothing else
    """
    found = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    text = json.dumps({"written_by": WRITTEN_BY, "sha256": found}, indent=2)
    (folder / NAME).write_text(f"{text}\n", encoding="utf-8")


def listed(folder: Path) -> set[str]:
    """The files in a folder that may be replaced: those that an earlier export wrote, as it wrote them, and its list.

    Parameters
    ----------
    folder : path; it need not exist

    Returns
    -------
    set of str, paths in the folder, as "config.json"; empty if the folder is

    Raises
    ------
    LabError
        The folder holds files without such a list, or a listed file was changed since: it is named.
    """
    if not entries(folder):
        return set()
    digests = _read(folder)
    there = [name for name in digests if (folder / name).is_file()]
    changed = [name for name in there if _digest(folder / name) != digests[name]]
    if changed:
        raise LabError(
            f"{folder / changed[0]} was changed since it was exported, and the change would be lost. Move it "
            "elsewhere, or choose an empty or a new folder."
        )
    return {*digests, NAME}


def _read(folder: Path) -> dict[str, str]:
    """File -> digest, as the list in a folder has it."""
    found = entries(folder)
    try:
        content = read_json(folder / NAME) if NAME in found else None
    except LabError:
        content = None
    digests = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise LabError(
            f"{folder} holds {', '.join(found[:3])}{more}, and no list of an earlier export ({NAME}) that could be "
            "read: what is there would be lost. Choose an empty or a new folder; if it is an export that you no longer "
            "need, delete the folder first."
        )
    return digests


def _digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
