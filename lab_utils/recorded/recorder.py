"""What the recorders of data/ share: how they are called, which lines are there already, what they print meanwhile."""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from ..files import read_json_lines, user_path


def tell(text: str) -> None:
    """A line of progress, at once."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def lines_there(path: Path) -> list[dict]:
    """The lines of a JSON Lines file that a recorder adds to; none where there is no file yet."""
    return read_json_lines(path) if path.exists() else []


def runs_there(path: Path) -> set[tuple[str, int]]:
    """(arm, seed) of each line."""
    return {(row["arm"], row["seed"]) for row in lines_there(path)}


def missing_runs(chosen: argparse.Namespace, order: Iterable[tuple[str, int]], path: Path) -> list[tuple[str, int]]:
    """(arm, seed) of the runs that a call wants and `path` lacks, in their order; with `--list` both are printed."""
    there = runs_there(path)
    missing = [(arm, seed) for arm, seed in order if seed in chosen.seeds and (arm, seed) not in there
               and (chosen.only is None or arm in chosen.only)]  # fmt: skip
    if chosen.list:
        print(f"recorded: {sorted(there)}\nmissing: {missing}")
    return missing


def call(description: str, arms: Iterable[str], output: Path, seeds: Iterable[int] = ()) -> argparse.ArgumentParser:
    """The parser of a recorder's call: which arms and seeds, where to, or only a list of what is missing.

    Parameters
    ----------
    description : str, the script's docstring; its first line is shown
    arms : names, or kinds of arms, that `--only` takes
    output : Path, the default folder
    seeds : int, the default ones; with none there is no `--seeds`
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--only", choices=list(arms), nargs="+", help="which arms; default all")
    if seeds:
        parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--output", type=user_path, default=output)
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    return parser
