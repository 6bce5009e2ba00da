"""Runs' folders of a tiny model: one finished run to copy, `finetune` with that model, and all that a folder holds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tiny_runs

from lab_utils.finetune import run as module

RECIPE = replace(tiny_runs.RECIPE, quantization="none", gradient_checkpointing=False, max_length=128)


def finished_run(folder: Path) -> Path:
    """Put the tiny model into a folder, and a finished run of three steps into `run`; returns the folder."""
    tiny_runs.save_tiny(folder / "tiny")
    with tiny_runs.as_tiny(folder):
        module.finetune(RECIPE, folder / "run", progress=False)
    return folder


def trainer_in(home: Path) -> Callable:
    """`finetune` with the tiny model of `finished_run` for the embedded one."""

    def call(folder, recipe=RECIPE, **options):
        with tiny_runs.as_tiny(home):
            return module.finetune(recipe, folder, progress=False, **options)

    return call


def everything(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, the lock's apart."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
