"""Colab, of which none is at hand: held against what it is known to bring, and a stand-in for its own package."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import torch
from checkpoints import save
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab_utils.errors import LabError
from lab_utils.finetune import checkpoint
from lab_utils.finetune import run as finetune
from lab_utils.finetune.recipe import Recipe
from lab_utils.folders import ROOT
from lab_utils.notebook import colab, colab_packages, extras

RECORDS = ROOT / "tests" / "support" / "colab"


def recorded() -> dict[str, str]:
    """What Colab brought with it: name -> version."""
    lines = (RECORDS / "pip-freeze-2026-06.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line[0] != "#"]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


@pytest.fixture
def on_colab(monkeypatch, tmp_path):
    """A stand-in for Colab's own package; what the lab asked of it stands in `.asked`."""
    names = ("google", "google.colab", "google.colab.drive", "google.colab.output")
    modules = {name: ModuleType(name) for name in names}
    asked = []

    def mount(where):
        asked.append(where)
        Path(where, "MyDrive").mkdir(parents=True, exist_ok=True)

    modules["google.colab.drive"].mount = mount
    modules["google.colab.output"].enable_custom_widget_manager = lambda: asked.append("widgets")
    modules["google.colab"].drive = modules["google.colab.drive"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")
    monkeypatch.setenv("LORA_LAB_RUNS", "unset")
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(asked=asked, drive=modules["google.colab.drive"])


# What is installed


def by_name(specs: list[str]) -> dict[str, str]:
    """Version by name, written with hyphens, of texts such as "rouge_score==0.1.2"."""
    return {canonicalize_name(name): version for name, version in (spec.split("==") for spec in specs)}


def test_of_what_colab_brings_only_this_is_missing_or_too_old():
    specs = colab_packages.missing(recorded().get)
    assert [spec.split("==")[0] for spec in specs] == [
        "accelerate", "bitsandbytes", "datasketch", "gguf", "hypothesis", "peft", "rouge_score", "transformers", "trl",
    ]  # fmt: skip
    ranges = {one.name: one.specifier for one in map(Requirement, colab_packages.project()["dependencies"])}
    for name, version in by_name(specs).items():
        assert version in ranges[name] and recorded().get(name) not in ranges[name]


def test_extras_that_colab_brings_in_older_versions_are_named(on_colab, monkeypatch):
    """A part of a page is skipped with a line, in place of an error somewhere in its middle."""
    brings = recorded()
    monkeypatch.setattr(extras, "_found", lambda package: package.replace("_", "-") in brings)
    monkeypatch.setattr(extras, "version_here", brings.get)
    assert extras.missing("pictures") == ""
    assert extras.missing("serve") == (
        "gradio 5.50.0 is here and <7,>=6.31 is needed: in a new cell, run `%pip install 'gradio>=6.31,<7'`"
    )
    assert extras.missing("keras") == (
        "keras 3.13.2 is here and <4,>=3.15 is needed, keras-hub 0.26.0 is here and <0.33,>=0.32 is needed: "
        "in a new cell, run `%pip install 'keras>=3.15,<4' 'keras-hub>=0.32,<0.33'`"
    )


def test_what_is_installed_leaves_nothing_missing():
    after = recorded() | by_name(colab_packages.missing(recorded().get))
    assert colab_packages.missing(after.get) == []
    assert colab_packages.missing() == []  # this environment has all of it


def test_colabs_kernel_and_torch_are_never_replaced():
    have = recorded()
    bare = {name: have[name] for name in colab_packages.BUILT_IN}
    for installed in (have, bare):
        names = {spec.split("==")[0] for spec in colab_packages.missing(installed.get)}
        assert not [name for name in names if colab_packages.HELD.match(name)]
    lines = colab_packages.constraints(have)
    for name in ("torch", "torchvision", "triton", "numpy", "pyarrow", "fsspec", "matplotlib", "pillow", "psutil",
                 "ipykernel", "ipython", "ipywidgets", "jupyter-client", "traitlets", "tornado", "pyzmq"):  # fmt: skip
        assert f"{name}=={have[name]}" in lines


def test_the_rest_keeps_its_major_version_and_what_is_wanted_is_allowed():
    lines = {one.name: one.specifier for one in map(Requirement, colab_packages.constraints(recorded()))}
    assert lines["huggingface-hub"] == Requirement("x<2").specifier  # gradio and diffusers there refuse 2
    assert lines["typer"] == Requirement("x<1").specifier and len(lines) == len(recorded())
    for spec in colab_packages.missing(recorded().get):
        name, version = spec.split("==")
        assert name not in lines or version in lines[name]
    assert colab_packages.constraints({"odd": "unknown", "dated": "2026.1.post1"}) == ["dated<2027"]


@pytest.mark.parametrize(("name", "version"), [("torch", "2.10.0+cu128"), ("numpy", "1.26.4"), ("datasets", None)])
def test_an_old_runtime_is_refused_by_name(name, version):
    installed = {key: value for key, value in recorded().items() if key != name} | ({name: version} if version else {})
    with pytest.raises(LabError, match=rf"{name}[<>].*\(here: {re.escape(version or 'none')}\).*Runtime version"):
        colab_packages.missing(installed.get)


def test_only_what_peft_refuses_is_taken_out(monkeypatch):
    """Held against peft's own check, read from its file: importing all of peft takes seconds."""
    file = Path(importlib.util.find_spec("peft").submodule_search_locations[0], "import_utils.py")
    spec = importlib.util.spec_from_file_location("peft_import_utils", file)
    spec.loader.exec_module(peft := importlib.util.module_from_spec(spec))
    monkeypatch.setattr(peft.importlib.util, "find_spec", lambda name: name)
    for found, taken in (("0.10.0", ["torchao"]), ("0.15.9", ["torchao"]), ("0.16.0", []), ("0.17", [])):
        monkeypatch.setattr(peft.importlib_metadata, "version", lambda name, found=found: found)
        peft.is_torchao_available.cache_clear()
        try:
            assert peft.is_torchao_available()
            refused = []
        except ImportError:
            refused = ["torchao"]
        assert refused == taken == colab_packages.in_the_way({"torchao": found}.get)
    assert colab_packages.in_the_way(recorded().get) == ["torchao"] and colab_packages.in_the_way() == []


@pytest.fixture
def pip(monkeypatch):
    """pip's calls, answered by a stand-in: (command, what it was held to)."""
    calls = []

    def answer(command, **_):
        held = Path(command[command.index("-c") + 1]).read_text().splitlines() if "-c" in command else []
        calls.append((command, held))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(colab_packages.subprocess, "run", answer)
    return calls


def test_setup_installs_once_and_holds_the_rest(on_colab, pip, monkeypatch, capsys):
    have = recorded()
    specs = colab_packages.missing(have.get)
    monkeypatch.setattr(colab, "missing", lambda: colab_packages.missing(have.get))
    monkeypatch.setattr(colab, "in_the_way", lambda: colab_packages.in_the_way(have.get))
    monkeypatch.setattr(colab_packages, "installed_versions", lambda: have)
    assert colab.setup() is True
    (first, held), (second, _), (third, _) = pip
    assert first[:3] == [sys.executable, "-m", "pip"] and "install" in first and first[-len(specs) + 1 :] == specs[:-1]
    assert second[-2:] == ["--no-deps", "trl==" + specs[-1].split("==")[1]]
    assert held == colab_packages.constraints(have)
    assert third[-3:] == ["uninstall", "--yes", "torchao"]
    assert Path.cwd() == colab.NOTEBOOKS
    assert os.environ["PYTHONPATH"] == f"{colab.ROOT}{os.pathsep}before"
    assert "Installing accelerate" in capsys.readouterr().out

    have |= dict(spec.split("==") for spec in specs)
    del have["torchao"]
    assert colab.setup() is True and len(pip) == 3
    assert os.environ["PYTHONPATH"] == f"{colab.ROOT}{os.pathsep}before"
    assert "Installing" not in capsys.readouterr().out


def test_setup_elsewhere_does_nothing(pip, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert colab.setup() is False
    assert not pip and Path.cwd() == tmp_path and capsys.readouterr().out == ""


def test_an_old_package_in_memory_asks_for_a_restart(on_colab, pip, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="5.9.0"))
    for _ in range(2):  # the second time, nothing is left to install
        with pytest.raises(LabError, match=r"transformers 5\.9\.0 was imported before.*Restart session"):
            colab.setup()


def test_what_pip_says_is_passed_on(monkeypatch):
    """Real pip, with no index to ask."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(LabError, match=r"No matching distribution found for lora-lab-no-such==1.*Disconnect"):
        colab_packages.install(["lora-lab-no-such==1"])


# The first cell and the badge


def run_cell(tmp_path: Path, address: str, before: str = "") -> subprocess.CompletedProcess:
    """The first cell in a fresh Python, twice; prints the modules it brought and the folder it ends in."""
    source = colab.CELL.format(clone=tmp_path / "content" / "lora-lab", repository=address)
    code = f"import json, os, sys\n{before}\nold = set(sys.modules)\nfor _ in range(2):\n    exec({source!r}, {{}})\n"
    code += "print(json.dumps([sorted(set(sys.modules) - old), os.getcwd(), os.environ.get('PYTHONPATH')]))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)


STAND_IN = "import types; sys.modules['google.colab'] = types.ModuleType('google.colab')"


def test_the_first_cell_does_nothing_elsewhere(tmp_path):
    done = run_cell(tmp_path, "https://unreachable.invalid/x")
    assert done.stderr == "" and json.loads(done.stdout) == [[], str(tmp_path), None]
    assert list(tmp_path.iterdir()) == []


def test_the_first_cell_clones_the_lab_once_and_goes_to_the_notebooks(tmp_path):
    origin = tmp_path / "origin"
    shutil.copytree(colab.ROOT / "lab_utils", origin / "lab_utils", ignore=shutil.ignore_patterns("__pycache__"))
    (origin / "notebooks").mkdir()
    (origin / "notebooks" / "kept").write_text("")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(colab.ROOT / name, origin)
    git = ["git", "-C", str(origin), "-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    lab = tmp_path / "content" / "lora-lab"

    failed = run_cell(tmp_path, f"file://{tmp_path}/nowhere", STAND_IN)
    assert "RuntimeError: The lab could not be fetched. Run this cell again. git says: fatal" in failed.stderr
    assert not lab.exists()

    done = run_cell(tmp_path, f"file://{origin}", STAND_IN)
    *said, last = done.stdout.splitlines()
    modules, folder, path = json.loads(last)
    assert [line.split(" (")[0] for line in said] == ["The lab is ready"] * 2, done.stderr
    assert (folder, path) == (str(lab / "notebooks"), str(lab)) and "lab_utils.notebook.colab" in modules
    assert not {"torch", "numpy", "transformers", "IPython"} & set(modules)


def test_every_notebook_has_todays_badge_and_first_cell():
    assert not colab.stale(), "run: python -m lab_utils.notebook.colab --write"


def test_badge_and_cell_are_put_in_once_and_renewed(tmp_path, monkeypatch, capsys):
    new = nbformat.v4
    title = new.new_markdown_cell("# 01 · Rank one\n\n**How can 10 numbers stand for 25?**\n\nMore.")
    path = tmp_path / "01_rank_one.ipynb"
    nbformat.write(new.new_notebook(cells=[title, new.new_code_cell("1 + 1", metadata={"tags": ["exercise"]})]), path)
    monkeypatch.setattr(colab, "stale", lambda folder=tmp_path, real=colab.stale: real(folder))
    assert colab.main([]) == 1 and "--write fixes it" in capsys.readouterr().out
    assert colab.main(["--write"]) == 0 and colab.main([]) == 0
    monkeypatch.setattr(colab, "repository", lambda: "https://github.com/someone/else")
    assert colab.main([]) == 1
    assert colab.main(["--write"]) == 0 and colab.main(["--write"]) == 0
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.metadata.get("tags") for cell in cells] == [None, ["colab"], ["exercise"]]
    assert cells[0].source == (
        "# 01 · Rank one\n\n[![Open in Colab](images/open_in_colab.svg)]"
        "(https://colab.research.google.com/github/someone/else/blob/main/notebooks/01_rank_one.ipynb)\n\n"
        "**How can 10 numbers stand for 25?**\n\nMore."
    )
    assert '"https://github.com/someone/else"' in cells[1].source


def test_the_address_stands_in_one_place(monkeypatch):
    address = colab.repository()
    assert (colab.ROOT / "pyproject.toml").read_text().count(address) == 1
    assert not [path for path in (colab.ROOT / "lab_utils").rglob("*.py") if address in path.read_text()]
    monkeypatch.setattr(colab, "repository", lambda: "https://example.org/lab")
    with pytest.raises(LabError, match=r"example\.org/lab.*pyproject\.toml"):
        colab.badge("x.ipynb")


# Drive


def test_a_run_on_drive_is_found_again_by_the_next_runtime(on_colab, monkeypatch):
    recipe = Recipe(model="smollm2-135m", steps=20)
    assert colab.use_drive("course") == colab.DRIVE / "MyDrive" / "course" / "runs"
    folder = finetune.run_folder(recipe)
    save(folder, 10, recipe)

    monkeypatch.setenv("LORA_LAB_RUNS", "runs")  # a new runtime knows nothing
    assert checkpoint.latest_record(finetune.run_folder(recipe), recipe) is None
    colab.use_drive("course")
    path, record, state = checkpoint.latest_record(finetune.run_folder(recipe), recipe)
    assert path.is_relative_to(colab.DRIVE) and record["step"] == state["step"] == 10
    assert on_colab.asked == [str(colab.DRIVE)] * 2


def test_a_refused_drive_says_what_to_do(on_colab, monkeypatch):
    def refuse(where):
        raise ValueError("mount failed")

    monkeypatch.setattr(on_colab.drive, "mount", refuse)
    with pytest.raises(LabError, match=r"not mounted \(ValueError: mount failed\).*train without it"):
        colab.use_drive()
    assert os.environ["LORA_LAB_RUNS"] == "unset"


def test_a_folder_that_cannot_be_made_is_named(on_colab):
    (colab.DRIVE / "MyDrive").mkdir(parents=True)
    (colab.DRIVE / "MyDrive" / "taken").write_text("a file")
    with pytest.raises(LabError, match=r"taken.*Choose another folder"):
        colab.use_drive("taken")
    assert os.environ["LORA_LAB_RUNS"] == "unset"


def test_drive_is_for_colab_only():
    with pytest.raises(LabError, match=r"on Colab only.*LORA_LAB_RUNS"):
        colab.use_drive()


# Widgets


def test_anywidget_switches_on_colabs_manager_for_an_explorer(on_colab):
    from anywidget._util import enable_custom_widget_manager_once

    from lab_utils.widgets.code_explorer import CodeExplorer

    enable_custom_widget_manager_once.cache_clear()
    for _ in range(2):
        CodeExplorer({"a layer": torch.linspace(-1, 1, 64)})
    assert on_colab.asked == ["widgets"]
    enable_custom_widget_manager_once.cache_clear()


def calls_to_ipywidgets(source: str) -> list[tuple[str, list[str]]]:
    """(class, keywords) of every `ipywidgets.Class(...)`."""
    return [
        (node.func.attr, [word.arg for word in node.keywords if word.arg])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name) and node.func.value.id == "ipywidgets"
    ]  # fmt: skip


def test_the_controls_exist_in_colabs_ipywidgets():
    lines = (RECORDS / "ipywidgets-7.7.1.txt").read_text().splitlines()
    known = {name: words.split() for name, words in (line.split(":", 1) for line in lines if line[0] != "#")}
    sources = [path.read_text() for path in (colab.ROOT / "lab_utils").rglob("*.py")]
    used = [call for source in sources for call in calls_to_ipywidgets(source)]
    assert {name for name, _ in used} >= {"IntSlider", "Image", "HTML", "VBox"}
    unknown = [(name, word) for name, words in used for word in words if word not in known.get(name, ())]
    assert not unknown and {name for name, _ in used} <= set(known)
    assert "Stack" not in known and "tabbable" not in known["IntSlider"]  # both came with ipywidgets 8


# Files


@pytest.mark.parametrize("damage", [
    b"{", b"[]", b"\xff\xfe", b'{"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
])  # fmt: skip
def test_a_page_without_a_title_or_that_is_no_notebook_is_named(tmp_path, monkeypatch, capsys, damage):
    (tmp_path / "01_ä.ipynb").write_bytes(damage)
    stale = colab.stale
    monkeypatch.setattr(colab, "stale", lambda: stale(tmp_path))
    assert colab.main(["--write"]) == 2 and "01_ä.ipynb" in capsys.readouterr().err
    assert (tmp_path / "01_ä.ipynb").read_bytes() == damage


def test_a_page_with_a_bom_gets_its_badge(tmp_path):
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 · Ä")])
    (tmp_path / "01_a.ipynb").write_bytes(b"\xef\xbb\xbf" + nbformat.writes(page).encode())
    ((path, text),) = colab.stale(tmp_path).items()
    assert path.name == "01_a.ipynb" and "# 01 · Ä" in text and "colab.research.google.com" in text


@pytest.mark.parametrize("content", [None, b"[project", b"", b"\xff"])
def test_a_project_file_that_is_none_says_how_to_get_it_back(tmp_path, monkeypatch, content):
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    if content is not None:
        (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(LabError, match=r"git checkout -- pyproject\.toml"):
        colab_packages.project()


@pytest.mark.parametrize("folder", ["/content/elsewhere", "../../up", "a/../../b"])
def test_a_folder_outside_of_my_drive_is_refused(on_colab, folder):
    with pytest.raises(LabError, match="is not in My Drive"):
        colab.use_drive(folder)
    assert os.environ["LORA_LAB_RUNS"] == "unset"


def test_what_pip_says_is_read_in_any_locale(monkeypatch):
    said = "import sys; sys.stderr.buffer.write(b'ERROR: kein Zugriff \\xe4\\n'); sys.exit(1)"
    real_run = subprocess.run
    monkeypatch.setattr("subprocess.run", lambda command, **how: real_run([sys.executable, "-c", said], **how))
    with pytest.raises(LabError, match="kein Zugriff \ufffd"):
        colab_packages.install(["nothing"])
