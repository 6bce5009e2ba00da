"""Where a person's data come from: a file, a folder of files, something in memory, or one of these for each split."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import LabError, shown
from ..files import user_path
from .file_sources import KINDS, of_file
from .memory_sources import SPLIT_NAMES, are_splits, of_memory
from .reading import Source


def open_source(source: object, encoding: str = "utf-8", prefix: str = "") -> dict[str, Source]:
    """A person's data, by split; what has no splits is under the name "".

    Parameters
    ----------
    source : path of a file (`KINDS`) or of a folder with files called train, validation, test; a list of dicts; a dict
        of columns; a pandas table; a datasets.Dataset or DatasetDict; or a dict of such sources by split
    encoding : str, of text files
    prefix : str, what the place of a row that is in memory begins with

    Raises
    ------
    LabError
        It is none of these, missing, empty, or broken: file, line and column are named.
    """
    if not isinstance(encoding, str) or "\0" in encoding:
        raise LabError(f"encoding={shown(encoding)} is out of range: the name of one, such as 'utf-8' or 'cp1252'.")
    splits = source if isinstance(source, Mapping) and are_splits(source) else None
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return _of_path(user_path(source), encoding)
    if splits is None:
        return {"": of_memory(source, prefix)}
    found = {}
    for name, one in splits.items():
        split = SPLIT_NAMES[str(name).lower()]
        if split in found:
            raise LabError(f"Two of the splits {', '.join(map(str, splits))} are both {split!r}. Rename or drop one.")
        parts = open_source(one, encoding, f"split {name!r}, ")
        if list(parts) != [""]:
            raise LabError(f"The split {name!r} has splits itself ({', '.join(parts)}). Give the rows of one.")
        found[split] = parts[""]
    return found


def _of_path(path: Path, encoding: str) -> dict[str, Source]:
    return _of_folder(path, encoding) if path.is_dir() else of_file(path, encoding)


def _saved(folder: Path):
    """What datasets' `save_to_disk` left in a folder: a Dataset or a DatasetDict."""
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder))
    except Exception as error:  # pyarrow's, json's, the disk's
        raise LabError(f"{folder} is a saved dataset that cannot be read ({error}). Save it again.") from error


def _of_folder(folder: Path, encoding: str) -> dict[str, Source]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return open_source(_saved(folder))
    files = [one for one in sorted(folder.iterdir()) if one.suffix.lower() in KINDS]
    files = [one for one in files if one.suffix.lower() != ".txt" or one.stem.lower() in SPLIT_NAMES]  # README.txt
    named = {one.stem: one for one in files if one.stem.lower() in SPLIT_NAMES}
    if twice := [one.name for one in files if one.stem in named and one != named[one.stem]]:
        both = f"{twice[0]} and {named[Path(twice[0]).stem].name}"
        raise LabError(f"{folder} holds {both}, two files of one split. Move one of them, or join them.")
    left = [one.name for one in files if one.stem not in named]
    if not named:
        there = ", ".join(one.name for one in files[:5]) or "no data file"
        raise LabError(
            f"{folder} is a folder, and none of its files is called train, validation or test (it has: {there}). "
            "Name one file, rename those that are meant, or pass in Python {'train': file, 'test': file}."
        )
    found = open_source(named, encoding)
    if left:  # said with what was recognised: nothing is left out in silence
        found = {name: replace(one, form=f"{one.form} (not read: {', '.join(left)})") for name, one in found.items()}
    return found
