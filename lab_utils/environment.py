"""What a person sets with environment variables: `LORA_LAB_FAST`, `LORA_LAB_RUNS`, `LORA_LAB_DEVICE`."""

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import LabError
from .files import user_path

SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def setting(name: str, allowed: Iterable[str]) -> str:
    """The value of the environment variable `name`, in lower case; "" where it is unset or empty.

    Raises
    ------
    LabError
        It is none of the words `allowed`.
    """
    value = os.environ.get(name, "").strip().lower()
    if value and value not in allowed:
        raise LabError(f"{name}={os.environ[name]!r} in the environment is unknown. Set it to {' or '.join(allowed)}, "
                       "or unset it.")
    return value


def fast_mode() -> bool:
    """True when `LORA_LAB_FAST=1`, and while nbgrader grades: notebooks then train for a few steps only.

    Raises
    ------
    LabError
        `LORA_LAB_FAST` is neither yes nor no.
    """
    return SWITCH.get(setting("LORA_LAB_FAST", SWITCH), False) or os.environ.get("NBGRADER_EXECUTION") == "autograde"


def runs_folder() -> Path:
    """The folder of the notebooks' training runs: `LORA_LAB_RUNS` with `~` expanded, or `runs`."""
    return user_path(os.environ.get("LORA_LAB_RUNS", "").strip() or "runs")
