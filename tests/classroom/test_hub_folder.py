"""The hub's own folder and the link to it: of any name that works, refused by name where it would not."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from sqlalchemy import make_url
from traitlets.config import Config

from lab_utils.errors import LabError
from lab_utils.folders import ROOT

DEPLOY = ROOT / "deploy"


def configured(monkeypatch, folder):
    """deploy/jupyterhub_config.py with that folder: (configuration, the function that lays out a student's pages)."""
    monkeypatch.setenv("LORA_LAB_HUB_FOLDER", str(folder))
    c = Config()
    found = runpy.run_path(DEPLOY / "jupyterhub_config.py", {"get_config": lambda: c})
    return c, found["lay_out_pages"]


@pytest.mark.parametrize("name", ["Kurs [2026]", "ä b", "50% #1", "{username}", "a{b}c", "'x'", "-y", "a*b"])
def test_database_and_homes_are_in_the_folder_whatever_it_is_called(name, tmp_path, monkeypatch):
    c, lay_out = configured(monkeypatch, tmp_path / name)
    assert make_url(c.JupyterHub.db_url).database == str(tmp_path / name / "hub.sqlite")
    home = Path(c.SimpleLocalProcessSpawner.home_dir_template.format(username="ann", userid=1))
    assert home == tmp_path / name / "homes" / "ann"
    lay_out(SimpleNamespace(home_dir=str(home)))
    page = home / "lora-lab" / "notebooks" / "01_rank_one.ipynb"
    whole = page.read_bytes()
    page.write_text("what ann wrote")
    lay_out(SimpleNamespace(home_dir=str(home)))
    assert page.read_text() == "what ann wrote" and whole.rstrip().endswith(b"}")
    assert not [path for path in home.rglob(".*") if path.name != ".ipynb_checkpoints"]  # nothing half written


@pytest.mark.parametrize(("name", "sign"), [("a?b", "'?'"), ("a%41", "'%41'")])
def test_a_folder_whose_database_would_lie_elsewhere_is_refused(name, sign, tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as caught:
        configured(monkeypatch, tmp_path / name)
    assert sign in str(caught.value) and "LORA_LAB_HUB_FOLDER" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_home_folder_and_a_file_in_the_way_are_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit, match=r"The hub was not started: .*file"):
        configured(monkeypatch, tmp_path / "file")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(SystemExit, match=r"The hub was not started: .*Write the path in full"):
        configured(monkeypatch, "")


@pytest.mark.parametrize("repository", ["https://a.edu/my course", "https://a.edu/k#rs", "https://a.edu/50%"])
def test_the_link_is_quoted_once_for_the_hub_and_once_for_the_server(repository):
    module = SimpleNamespace(**runpy.run_path(DEPLOY / "link.py"))
    query = parse_qs(urlsplit(module.link("https://hub.edu", address=repository)).query)
    assert query["repo"] == [repository]
    path = urlsplit(f"https://hub.edu/{query['urlpath'][0]}").path
    assert unquote(path) == f"/lab/tree/{repository.rpartition('/')[2]}/notebooks/00_start_here.ipynb"


@pytest.mark.parametrize("hub", ["", "hub.edu", "ftp://hub.edu"])
def test_what_is_no_address_of_a_hub_is_refused(hub):
    with pytest.raises(LabError, match="is not the address of a hub"):
        runpy.run_path(DEPLOY / "link.py")["link"](hub)
