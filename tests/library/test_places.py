"""Where the lab runs apart from `make lab`: the README's block for Windows, the workflow's jobs, the dev container."""

import importlib.util
import json
import re
import tomllib

import pytest
import yaml
from jsonschema import Draft202012Validator
from packaging.specifiers import SpecifierSet

from lab_utils.folders import NOTEBOOKS, ROOT
from lab_utils.notebook.badges import START


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYTHONS = SpecifierSet(tomllib.loads(text("pyproject.toml"))["project"]["requires-python"])
JOBS = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"]
[BLOCK] = re.findall(r"```powershell\n(.*?)```", text("README.md"), flags=re.DOTALL)
LINES = BLOCK.splitlines()


# Windows


def test_the_block_for_windows_does_what_make_lab_does():
    lab = text("Makefile").partition("$(LAB):")[2].partition("$(TEACH):")[0]
    for part in ("-e '.[pictures,retrieval]'", "-m lab_utils.notebook.name_errors"):
        assert part in lab and part in BLOCK
    assert "-m lab_utils.models" in text("Makefile").partition("\nmodel:")[2] and "-m lab_utils.models" in BLOCK
    installs = [line for line in LINES if "pip install" in line]
    assert all("-c constraints.txt" in line or line.endswith("--upgrade pip") for line in installs)
    for module in re.findall(r"-m (lab_utils[\w.]*)", BLOCK):
        assert importlib.util.find_spec(module)
    assert LINES[-1] == rf".venv\Scripts\jupyter.exe lab notebooks\{START}" and (NOTEBOOKS / START).is_file()


@pytest.mark.parametrize("line", LINES)
def test_each_line_for_windows_is_one_command_that_needs_no_activation(line):
    """Windows refuses Activate.ps1 by default; `&&` and quotes of other shells are errors in its own PowerShell 5."""
    program, *words = line.split()
    assert program == "python" if "-m venv" in line else program.startswith(".venv\\Scripts\\")
    assert not re.search(r"&&|\|\||[;\"$`]|\bexport\b|\bsource\b|\.venv/|bin/", line)
    assert line.count("'") % 2 == 0 and words


# The workflow


def test_every_allowed_python_is_tested():
    setup = next(step for step in JOBS["test"]["steps"] if "setup-python" in step.get("uses", ""))
    tested = {setup["with"]["python-version"], *JOBS["versions"]["strategy"]["matrix"]["python"]}
    assert tested == {f"3.{minor}" for minor in range(30) if PYTHONS.contains(f"3.{minor}.0")}
    assert [step["run"] for step in JOBS["versions"]["steps"] if "run" in step] == ["make quick"]


def test_on_windows_the_readmes_block_is_run_then_the_quick_tests():
    job = JOBS["windows"]
    first, *rest = [step["run"] for step in job["steps"] if "run" in step]
    assert first.splitlines() == ["$PSNativeCommandUseErrorActionPreference = $true", *LINES[:-1]]
    assert job["runs-on"].startswith("windows") and job["defaults"]["run"]["shell"] == "pwsh"
    python = next(step for step in job["steps"] if "setup-python" in step.get("uses", ""))["with"]["python-version"]
    assert PYTHONS.contains(f"{python}.0")
    quick = text("Makefile").partition("\nquick:")[2].partition("\n\n")[0]
    assert '-m "not slow"' in rest[-1] and '-m "not slow"' in quick
    installed = re.search(r"'(keras-hub\S+)'", text("Makefile").partition("$(DEV):")[2])[1]
    assert f"'{installed}'" in rest[-2] and "'.[dev]'" in rest[-3]


# The dev container


TEXTS = {"type": "array", "items": {"type": "string"}}
SCHEMA = {  # of https://containers.dev/implementors/json_reference what is used here
    "type": "object",
    "required": ["name", "image", "onCreateCommand", "customizations"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string", "pattern": r"^mcr\.microsoft\.com/devcontainers/python:3\.\d+-\w+$"},
        "hostRequirements": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "cpus": {"type": "integer", "minimum": 1},
                "memory": {"type": "string", "pattern": r"^\d+([tgmk]b)?$"},
                "storage": {"type": "string", "pattern": r"^\d+([tgmk]b)?$"},
            },
        },
        "onCreateCommand": {"type": "string"},
        "customizations": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "codespaces": {"type": "object", "additionalProperties": False, "properties": {"openFiles": TEXTS}},
                "vscode": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"extensions": TEXTS, "settings": {"type": "object"}},
                },
            },
        },
    },
}


def container() -> dict:
    """The dev container's file, which may hold comments, as JSON."""
    return json.loads(re.sub(r"^\s*//.*$", "", text(".devcontainer/devcontainer.json"), flags=re.MULTILINE))


def test_the_dev_container_has_the_form_of_its_schema():
    assert not [error.message for error in Draft202012Validator(SCHEMA).iter_errors(container())]
    for wrong in ({"postCreate": ""}, {"image": 3}, {"hostRequirements": {"cpus": "2"}}):
        assert not Draft202012Validator(SCHEMA).is_valid(container() | wrong)


def test_the_dev_container_opens_page_00_with_the_python_that_make_installs_into():
    found, makefile = container(), text("Makefile")
    assert PYTHONS.contains(re.search(r":(3\.\d+)-", found["image"])[1] + ".0")
    make, target, index = found["onCreateCommand"].split()
    assert make == "make" and re.search(rf"^{target}:.*\$\(LAB\)", makefile, flags=re.MULTILINE)
    assert index == "TORCH_INDEX=" + re.search(r"^CPU_INDEX := (\S+)", makefile, flags=re.MULTILINE)[1]
    assert found["customizations"]["codespaces"]["openFiles"] == [f"notebooks/{START}"]
    vscode = found["customizations"]["vscode"]
    assert vscode["settings"]["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    assert "BIN := .venv/bin" in makefile and "ms-toolsai.jupyter" in vscode["extensions"]
