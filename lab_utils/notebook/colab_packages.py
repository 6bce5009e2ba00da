"""The packages of a Colab or Kaggle runtime: what the lab lacks there, and how to install it without harming the rest.

Both ship their own torch, their own Jupyter kernel and packages built against them; nothing here replaces those. What
the lab needs is in pyproject.toml, and the versions that its tests ran with are in constraints.txt.
"""

import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path

from ..errors import LabError
from ..files import read_text
from ..folders import ROOT
from .extras import project, version_here
from .hosts import COLAB, host

KERNEL = frozenset({"ipykernel", "ipywidgets", "jupyterlab"})  # those of the runtime do, whatever their version
BUILT_IN = frozenset({"datasets", "matplotlib", "numpy", "pandas", "psutil", "scipy", "torch"})  # kept, if in range
# Kept at the version that is there: loaded by the kernel, compiled, or another package insists on it.
HELD = re.compile(
    "datasets|fsspec|google|ipy|jupyter|matplotlib|notebook|numpy|nvidia|pandas|pillow|psutil|pyarrow|pyzmq|scipy|"
    "torch|tornado|traitlets|triton"
)
# Asks for a newer pyarrow than that of both, and the pages use nothing that needs it.
WITHOUT_DEPENDENCIES = frozenset({"trl"})
# peft refuses to wrap a plain layer where an older one of these is installed. The lab uses none: it is uninstalled.
REFUSED_BELOW = {"torchao": "0.16"}
STACK = ("transformers", "peft", "accelerate", "trl", "bitsandbytes", "tokenizers", "safetensors", "huggingface-hub")


def missing(find: Callable[[str], str | None] = version_here) -> list[str]:
    """What pip has to install: what pyproject.toml asks for and the runtime lacks, or has in a version out of range.

    Parameters
    ----------
    find : function of a package's name (lower case, with hyphens) that returns its version, or None

    Returns
    -------
    list of str, "name==version" in the version that the tests ran with (constraints.txt)

    Raises
    ------
    LabError
        A package that is never replaced (torch, numpy …) is not there or out of range: the runtime is an old one.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = read_text(ROOT / "constraints.txt").splitlines()
    pins = {canonicalize_name(line.split("==")[0]): line for line in lines if "==" in line and line[0] != "#"}
    specs, old = [], []
    for requirement in map(Requirement, project()["dependencies"]):
        name = canonicalize_name(requirement.name)
        found = find(name)
        if name in KERNEL or (found and requirement.specifier.contains(found, prereleases=True)):
            continue
        if name in BUILT_IN:
            old.append(f"{requirement} (here: {found or 'none'})")
        else:
            specs.append(pins[name])
    if old:
        raise LabError(
            f"This runtime does not suit the lab, which needs {', '.join(old)}. "
            f"{(host() or COLAB).newest}, and run this cell again."
        )
    return specs


def constraints(installed: Mapping[str, str]) -> list[str]:
    """Lines for pip's `--constraint`, from name -> version: `HELD` keeps its version, the rest its major version."""
    lines = []
    for name, found in sorted(installed.items()):
        if HELD.match(name):
            lines.append(f"{name}=={found}")
        elif number := re.match(r"(\d+)(\.|$)", found):
            lines.append(f"{name}<{int(number[1]) + 1}")
    return lines


def installed_versions() -> dict[str, str]:
    """Name (lower case, with hyphens) -> version of every package; of two with one name, the one that is imported."""
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for one in distributions():
        if one.name and one.version:
            found.setdefault(canonicalize_name(one.name), one.version)
    return found


def in_the_way(find: Callable[[str], str | None] = version_here) -> list[str]:
    """The names in `REFUSED_BELOW` that are installed in an older version; `find` as in `missing`."""
    from packaging.version import Version

    return [name for name, least in REFUSED_BELOW.items() if (found := find(name)) and Version(found) < Version(least)]


def install(specs: list[str], *options: str) -> None:
    """Let pip install within `constraints` of what is installed now; a LabError with pip's reason if it fails."""
    if specs:
        with tempfile.TemporaryDirectory() as folder:
            held = Path(folder) / "constraints.txt"
            held.write_text("\n".join(constraints(installed_versions())), encoding="utf-8")
            _pip("install", "--no-input", "-c", str(held), *options, *specs)


def uninstall(names: list[str]) -> None:
    """Let pip uninstall packages; a LabError with pip's reason if it fails."""
    if names:
        _pip("uninstall", "--yes", *names)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    importlib.invalidate_caches()
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise LabError(
            f"pip could not {arguments[0]} what the lab needs changed: {reason.removeprefix('ERROR: ')} "
            f"If the network failed, run this cell again. If it goes on failing: {(host() or COLAB).fresh}, then open "
            "the page again."
        )


def refuse_stale() -> None:
    """A LabError if a package in memory is another version than the one on disk."""
    for name in STACK:
        loaded = getattr(sys.modules.get(name.replace("-", "_")), "__version__", None)
        if loaded and loaded != (found := version_here(name) or loaded):
            raise LabError(
                f"{name} {loaded} was imported before this cell ran, and the lab needs {found}, which is "
                f"installed now. {(host() or COLAB).restart}, then run the page from its first cell."
            )
