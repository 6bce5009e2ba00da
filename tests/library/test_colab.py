"""Colab and Kaggle, of which neither is at hand: held against the packages that they ship, with stand-ins."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from checkpoints import save
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab_utils.errors import LabError
from lab_utils.finetune import checkpoint
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.runs import run_folder
from lab_utils.folders import ROOT
from lab_utils.notebook import colab, colab_packages, extras, hosts

RECORDS = ROOT / "tests" / "support" / "colab"


def recorded(host: str = "colab") -> dict[str, str]:
    """What a service ships: name -> version."""
    lines = (RECORDS / f"{host}-2026-08.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line[0] != "#"]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


both = pytest.mark.parametrize("host", ["colab", "kaggle"])


@pytest.fixture
def on_colab(monkeypatch, tmp_path):
    """A stand-in for Colab's own package; what the lab asked of it is in `.asked`."""
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
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("LORA_LAB_RUNS", "unset")
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(asked=asked, drive=modules["google.colab.drive"])


@pytest.fixture
def on_kaggle(on_colab, monkeypatch):
    """A stand-in for Kaggle's environment, whose image contains Colab's package."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("KAGGLE_URL_BASE", "https://www.kaggle.com")
    monkeypatch.setenv("LORA_LAB_RUNS", "")
    return on_colab


# Which service


def test_each_service_is_known_and_kaggle_is_not_taken_for_colab(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert hosts.host() is None
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert hosts.host() is hosts.COLAB
    for kind in ("Interactive", "Batch"):
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
        assert hosts.host() is hosts.KAGGLE


def test_on_kaggle_the_advice_names_nothing_of_colab(on_kaggle, monkeypatch):
    broken = SimpleNamespace(returncode=1, stderr="ERROR: no network")
    monkeypatch.setattr(colab_packages.subprocess, "run", lambda command, **_: broken)
    assert "%pip install" in extras.how_to_install("serve")
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="5.0.0"))
    old = recorded("kaggle") | {"torch": "2.8.0"}
    refusals = (
        colab.use_drive,
        colab_packages.refuse_stale,
        lambda: colab_packages.missing(old.get),
        lambda: colab_packages.uninstall(["torchao"]),
    )
    for refused in refusals:
        with pytest.raises(LabError) as error:
            refused()
        assert "Runtime ▸" not in str(error.value) and "disconnect" not in str(error.value).lower()


def test_on_kaggle_runs_go_where_a_saved_version_keeps_them(on_kaggle, pip, monkeypatch):
    monkeypatch.setattr(colab, "missing", list)
    monkeypatch.setattr(colab, "in_the_way", list)
    assert colab.setup() is True and os.environ["LORA_LAB_RUNS"] == "/kaggle/working/runs"
    assert Path.cwd() == colab.NOTEBOOKS and not pip
    monkeypatch.setenv("LORA_LAB_RUNS", "mine")
    assert colab.setup() is True and os.environ["LORA_LAB_RUNS"] == "mine"


# What is installed


def by_name(specs: list[str]) -> dict[str, str]:
    """Version by name, written with hyphens, of texts such as "rouge_score==0.1.2"."""
    return {canonicalize_name(name): version for name, version in (spec.split("==") for spec in specs)}


@both
def test_of_what_is_shipped_only_this_is_missing_or_too_old(host):
    shipped = recorded(host)
    specs = by_name(colab_packages.missing(shipped.get))
    assert list(specs) == [
        "accelerate", "bitsandbytes", "datasketch", "gguf", "hypothesis", "peft", "rouge-score", "transformers", "trl",
    ]  # fmt: skip
    ranges = {one.name: one.specifier for one in map(Requirement, colab_packages.project()["dependencies"])}
    for name, version in specs.items():
        assert version in ranges[name] and shipped.get(name) not in ranges[name]


def test_extras_that_are_shipped_in_older_versions_are_named(on_colab, monkeypatch):
    """A part of a page is skipped with a line, in place of an error somewhere in its middle."""
    ships = recorded()
    monkeypatch.setattr(extras, "_found", lambda package: package.replace("_", "-") in ships)
    monkeypatch.setattr(extras, "version_here", ships.get)
    assert extras.missing("pictures") == ""
    assert extras.missing("serve") == (
        "gradio 6.24.0 is here and <7,>=6.31 is needed: in a new cell, run `%pip install 'gradio>=6.31,<7'`"
    )
    assert extras.missing("keras") == (
        "keras 3.13.2 is here and <4,>=3.15 is needed, keras-hub 0.26.0 is here and <0.33,>=0.32 is needed: "
        "in a new cell, run `%pip install 'keras>=3.15,<4' 'keras-hub>=0.32,<0.33'`"
    )


@both
def test_what_is_installed_leaves_nothing_missing(host):
    after = recorded(host) | by_name(colab_packages.missing(recorded(host).get))
    assert colab_packages.missing(after.get) == []
    assert colab_packages.missing() == []  # this environment has all of it


@both
def test_the_kernel_and_torch_are_never_replaced(host):
    have = recorded(host)
    bare = {name: have[name] for name in colab_packages.BUILT_IN}
    for installed in (have, bare):
        names = by_name(colab_packages.missing(installed.get))
        assert not [name for name in names if colab_packages.HELD.match(name)]
    lines = colab_packages.constraints(have)
    for name in ("torch", "torchvision", "triton", "numpy", "pyarrow", "fsspec", "matplotlib", "pillow", "psutil",
                 "ipykernel", "ipython", "ipywidgets", "jupyter-client", "traitlets", "tornado", "pyzmq"):  # fmt: skip
        assert f"{name}=={have[name]}" in lines


@both
def test_the_rest_keeps_its_major_version_and_what_is_wanted_is_allowed(host):
    have = recorded(host)
    lines = {one.name: one.specifier for one in map(Requirement, colab_packages.constraints(have))}
    assert lines["huggingface-hub"] == Requirement("x<2").specifier  # diffusers there refuses 2
    assert lines["typer"] == Requirement("x<1").specifier and len(lines) == len(have)
    for name, version in by_name(colab_packages.missing(have.get)).items():
        assert name not in lines or version in lines[name]
    assert colab_packages.constraints({"odd": "unknown", "dated": "2026.1.post1"}) == ["dated<2027"]


@pytest.mark.parametrize(("name", "version"), [("torch", "2.9.1+cu128"), ("numpy", "1.26.4"), ("datasets", None)])
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


@both
def test_setup_installs_once_and_holds_the_rest(host, request, pip, monkeypatch, capsys):
    request.getfixturevalue(f"on_{host}")
    have = recorded(host)
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

    have |= by_name(specs)
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


# Drive


def test_a_run_on_drive_is_found_again_by_the_next_runtime(on_colab, monkeypatch):
    recipe = Recipe(model="smollm2-135m", steps=20)
    assert colab.use_drive("course") == colab.DRIVE / "MyDrive" / "course" / "runs"
    folder = run_folder(recipe)
    save(folder, 10, recipe)

    monkeypatch.setenv("LORA_LAB_RUNS", "runs")  # a new runtime knows nothing
    assert checkpoint.latest_record(run_folder(recipe), recipe) is None
    colab.use_drive("course")
    path, record, state = checkpoint.latest_record(run_folder(recipe), recipe)
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
