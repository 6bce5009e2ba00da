"""pyproject.toml, constraints.txt, environment.yml and the Makefile say the same."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from lab_utils.folders import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
    if not text.startswith(PROJECT["name"])
]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]


def test_every_constraint_is_one_exact_public_version():
    for constraint in CONSTRAINTS:
        assert re.fullmatch(r"==[^*,]+", str(constraint.specifier)), f"{constraint} is not an exact pin"
        pinned = Version(str(constraint.specifier)[2:])
        assert pinned.local is None, f"{constraint}: the local part after + exists on one platform only"
    names = [canonicalize_name(constraint.name) for constraint in CONSTRAINTS]
    assert len(names) == len(set(names))
    assert not {"pip", "setuptools", "lora-lab"} & set(names)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_the_pin_of_each_dependency_lies_in_its_range(requirement):
    pins = [pin for pin in CONSTRAINTS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert pins, f"{requirement.name} has no line in constraints.txt"
    assert requirement.specifier.contains(str(pins[0].specifier)[2:]), f"{pins[0]} is outside {requirement}"


def test_no_pin_refuses_the_python_of_debian_12():
    """One pin that wants Python 3.11.5 sends pip through gigabytes of other versions of everything else."""
    refusing = {}
    for pin in CONSTRAINTS:
        try:
            found = distribution(pin.name)
        except PackageNotFoundError:
            continue  # not needed on this platform
        wanted = found.metadata["Requires-Python"]
        if pin.specifier.contains(found.version) and wanted and not SpecifierSet(wanted).contains("3.11.2"):
            refusing[pin.name] = wanted
    assert not refusing


def test_conda_takes_its_packages_from_pyproject_through_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip_lists = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip_lists == [["-c constraints.txt", "-e .[pictures,retrieval]"]]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert sorted(re.split("[=<>]", entry)[0] for entry in conda) == ["pip", "python"], "packages belong in pyproject"
    python = next(entry for entry in conda if entry.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python.split('=')[1]}.0")


def test_the_makefile_installs_by_the_constraints_and_checks_the_same_python():
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line and "--upgrade pip" not in line]
    assert installs and all("-c constraints.txt" in line for line in installs)
    low, high = re.search(r"\((\d+, \d+)\) <= v < \((\d+, \d+)\)", makefile).groups()
    low, high = low.replace(", ", "."), high.replace(", ", ".")
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={low},<{high}")


def test_continuous_integration_calls_make_quick_within_90_seconds_and_make_test_and_nothing_else():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "make test" and len(lines) == 3
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    warm, timed, everything = [step["run"] for step in steps if "run" in step]
    assert warm == "make quick TESTS=--collect-only > /dev/null"  # the environment and Python's caches are made here
    assert timed == "SECONDS=0; make quick; test $SECONDS -le 90"
    assert everything == "make test"
