"""The scripts of data/, as modules: they lie outside of any package."""

import importlib.util

from lab_utils.folders import DATA


def load(name: str):
    """data/`name`.py as a module."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
