"""What opens a page elsewhere: badges and first cell, made from the one address in pyproject.toml."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from lab_utils.errors import LabError
from lab_utils.folders import NOTEBOOKS, ROOT
from lab_utils.notebook import badges, colab, hosts

# The first cell


def run_cell(tmp_path: Path, address: str, before: str = "") -> subprocess.CompletedProcess:
    """The first cell in a fresh Python, twice; prints the modules it imported and the folder it ends in."""
    folders = {name: tmp_path / name / "lora-lab" for name in ("colab", "kaggle")}
    source = badges.CELL.format(**folders, repository=address)
    code = f"import json, os, sys\n{before}\nold = set(sys.modules)\nfor _ in range(2):\n    exec({source!r}, {{}})\n"
    code += "print(json.dumps([sorted(set(sys.modules) - old), os.getcwd(), os.environ.get('PYTHONPATH')]))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "KAGGLE"))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)


STAND_INS = {
    "colab": "import types; sys.modules['google.colab'] = types.ModuleType('google.colab')",
    "kaggle": "os.environ['KAGGLE_KERNEL_RUN_TYPE'] = 'Interactive'",
}
ADVICE = {"colab": "run this cell again", "kaggle": "switch Internet on in the notebook's settings, and run this cell"}


def test_the_first_cell_does_nothing_elsewhere(tmp_path):
    done = run_cell(tmp_path, "https://unreachable.invalid/x")
    assert done.stderr == "" and json.loads(done.stdout) == [[], str(tmp_path), None]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository with what the first cell needs of the lab."""
    origin = tmp_path_factory.mktemp("origin")
    shutil.copytree(ROOT / "lab_utils", origin / "lab_utils", ignore=shutil.ignore_patterns("__pycache__"))
    (origin / "notebooks").mkdir()
    (origin / "notebooks" / "kept").write_text("")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, origin)
    git = ["git", "-C", str(origin), "-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    return origin


@pytest.mark.parametrize("host", STAND_INS)
def test_the_first_cell_clones_the_lab_once_and_goes_to_the_notebooks(host, origin, tmp_path):
    lab = tmp_path / host / "lora-lab"
    failed = run_cell(tmp_path, f"file://{tmp_path}/nowhere", STAND_INS[host])
    assert f"RuntimeError: The lab was not fetched: {ADVICE[host]}" in failed.stderr
    assert "git says: fatal" in failed.stderr and not lab.exists()

    done = run_cell(tmp_path, f"file://{origin}", STAND_INS[host])
    *said, last = done.stdout.splitlines()
    modules, folder, path = json.loads(last)
    assert [line.split(" (")[0] for line in said] == ["The lab is ready"] * 2, done.stderr
    assert (folder, path) == (str(lab / "notebooks"), str(lab)) and "lab_utils.notebook.colab" in modules
    assert not {"torch", "numpy", "transformers", "IPython"} & set(modules)


def test_the_first_cell_asks_what_the_library_asks(monkeypatch):
    """Both name the same signs of a service; the folders are those of `hosts`."""
    source = badges.first_cell()
    assert hosts.COLAB.clone in source and hosts.KAGGLE.clone in source and len(source.splitlines()) <= 25
    [condition] = re.findall(r"^on_kaggle = (.*)$", source, flags=re.MULTILINE)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert eval(condition, {"os": os}) is True and hosts.host() is hosts.KAGGLE
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    assert eval(condition, {"os": os}) is False and hosts.host() is None


# Badges


def test_every_page_and_the_readme_have_todays_badges():
    assert not badges.stale(), "run: python -m lab_utils.notebook.colab --write"


def test_badges_and_cell_are_written_once_and_renewed(tmp_path, monkeypatch, capsys):
    new, readme = nbformat.v4, tmp_path / "README.md"
    title = new.new_markdown_cell("# 01 · Rank one\n\n**How can 10 numbers stand for 25?**\n\nMore.")
    path = tmp_path / "01_rank_one.ipynb"
    nbformat.write(new.new_notebook(cells=[title, new.new_code_cell("1 + 1", metadata={"tags": ["exercise"]})]), path)
    readme.write_text("# Ä\n\n[old](https://colab.research.google.com/github/a/b)\n\nmore\n", encoding="utf-8")
    monkeypatch.setattr(colab, "stale", lambda real=badges.stale: real(tmp_path, readme))
    assert colab.main([]) == 1 and capsys.readouterr().out.count("--write fixes it") == 2
    assert colab.main(["--write"]) == 0 and colab.main([]) == 0
    monkeypatch.setattr(badges, "repository", lambda: "https://github.com/someone/else")
    assert colab.main([]) == 1
    assert colab.main(["--write"]) == 0 and colab.main(["--write"]) == 0
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.metadata.get("tags") for cell in cells] == [None, ["colab"], ["exercise"]]
    assert cells[0].source == (
        "# 01 · Rank one\n\n[![Open in Colab](images/open_in_colab.svg)]"
        "(https://colab.research.google.com/github/someone/else/blob/main/notebooks/01_rank_one.ipynb) "
        "[![Open in Kaggle](images/open_in_kaggle.svg)]"
        "(https://kaggle.com/kernels/welcome?src=https://github.com/someone/else/blob/main/notebooks/01_rank_one.ipynb)"
        "\n\n**How can 10 numbers stand for 25?**\n\nMore."
    )
    assert '"https://github.com/someone/else"' in cells[1].source
    assert readme.read_text(encoding="utf-8") == f"# Ä\n\n{badges.readme_badges()}\n\nmore\n"
    assert "(https://codespaces.new/someone/else?quickstart=1)" in badges.readme_badges()


def test_the_pictures_of_the_badges_are_there_and_say_what_they_are():
    shown = re.findall(r"!\[(.*?)\]\((.*?)\)", badges.readme_badges())
    assert len(shown) == 3
    for text, picture in shown:
        assert ElementTree.parse(ROOT / picture).getroot().get("aria-label") == text


def test_the_address_is_in_one_place(monkeypatch):
    """Elsewhere it is only where `--write` puts it, or in a command that a person copies."""
    address = badges.repository()
    assert (ROOT / "pyproject.toml").read_text(encoding="utf-8").count(address) == 1
    assert not [path for path in (ROOT / "lab_utils").rglob("*.py") if address in path.read_text(encoding="utf-8")]
    assert not [path for path in (ROOT / ".devcontainer").rglob("*") if address in path.read_text(encoding="utf-8")]
    monkeypatch.setattr(badges, "repository", lambda: "https://example.org/lab")
    with pytest.raises(LabError, match=r"example\.org/lab.*pyproject\.toml"):
        badges.badges("x.ipynb")


# Files


@pytest.mark.parametrize("damage", [
    b"{", b"[]", b"\xff\xfe", b'{"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
])  # fmt: skip
def test_a_page_without_a_title_or_that_is_no_notebook_is_named(tmp_path, monkeypatch, capsys, damage):
    (tmp_path / "01_ä.ipynb").write_bytes(damage)
    monkeypatch.setattr(colab, "stale", lambda: badges.stale(tmp_path))
    assert colab.main(["--write"]) == 2 and "01_ä.ipynb" in capsys.readouterr().err
    assert (tmp_path / "01_ä.ipynb").read_bytes() == damage


def test_a_page_with_a_bom_gets_its_badges(tmp_path):
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 · Ä")])
    (tmp_path / "01_a.ipynb").write_bytes(b"\xef\xbb\xbf" + nbformat.writes(page).encode())
    found = badges.stale(tmp_path, tmp_path / "no-readme.md")
    ((path, text),) = found.items()
    assert path.name == "01_a.ipynb" and "# 01 · Ä" in text and "colab.research.google.com" in text


def test_the_first_page_that_the_readme_opens_is_there():
    assert (NOTEBOOKS / badges.START).is_file()
