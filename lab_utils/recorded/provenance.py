"""Where, when and with what a result was recorded."""

import platform
from datetime import date
from importlib.metadata import version

from ..device import find_device


def machine(*packages: str) -> dict:
    """Where and with what something is measured, for a record's provenance.

    Parameters
    ----------
    packages : names as pip knows them, whose versions are recorded

    Returns
    -------
    dict of "cpu" (the device's name), "threads" (int, of torch), "date" (ISO) and "versions" (dict of str)
    """
    import torch

    return {
        "cpu": find_device().name,
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }
