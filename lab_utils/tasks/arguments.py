"""A person's own data on a command line: the same flags for every command."""

import argparse

from ..errors import LabError
from .descriptions import AGAIN
from .own_data import OwnTask, own

HELP = {
    "data": "a .csv, .tsv, .txt (tabs), .json, .jsonl or .parquet file, or a folder with train, validation and test",
    "prompt": "the column that is asked; several, separated by commas, are joined",
    "answer": "the column that is answered; several become one JSON object",
    "messages": "or the column of conversations",
    "system": "the system message (default: none)",
    "group": "a column whose rows of one value stay in one split",
    "encoding": "of a text file (default: utf-8, or what a mark at its beginning says)",
}
FLAGS = {name: f"--{name}" for name in HELP}
FLAGS |= {AGAIN: "name the file where it is now, by --data"}


def command_parser(docstring: str, module: str) -> argparse.ArgumentParser:
    """The parser of `python -m module`: the module's first lines say what it does, the others how it is called."""
    head, _, more = docstring.partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=head, epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_arguments(parser, positional: bool = False) -> None:
    """Add the flags for your own data to a parser of argparse; `positional`: the file is named without --data."""
    group = parser.add_argument_group("your own data")
    for name, help in HELP.items():
        group.add_argument(name if positional and name == "data" else FLAGS[name], help=help)


def from_arguments(values: dict) -> OwnTask | None:
    """The task of a command line, its flags taken out of `values`; None without --data.

    Raises
    ------
    LabError
        As `own`.
    """
    given = {name: values.pop(name, None) for name in FLAGS}
    data = given.pop("data")
    if data is None:
        if said := [f"--{name}" for name, value in given.items() if value is not None]:
            raise LabError(f"{', '.join(said)}: columns of which file? Name it with --data.")
        return None
    for name in ("prompt", "answer"):
        if given[name] and "," in given[name]:
            given[name] = tuple(part.strip() for part in given[name].split(",") if part.strip())
    return own(data, **{name: value for name, value in given.items() if value is not None})


def on_record(values: dict) -> OwnTask | str | None:
    """What a command line says of the data of a run that is opened: of --data alone the path, else as `from_arguments`.

    The record of the run knows the columns, the system message and the splits of a file that only has moved.
    """
    if values.get("data") is not None and all(values.get(name) is None for name in HELP if name != "data"):
        return {name: values.pop(name) for name in HELP if name in values}["data"]
    return from_arguments(values)
