"""Every link leads somewhere: in the documents, in the notebooks, and in the site built from them (about 15 s)."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mistune
import nbformat
import pytest
from built import Fetched, Links
from nbconvert.filters import markdown2html

from lab_utils.classroom import course
from lab_utils.classroom.contents import write_index
from lab_utils.classroom.pages import describe, write_page
from lab_utils.folders import ROOT

NOTEBOOKS = sorted(course.NOTEBOOKS.glob("*.ipynb"))
FOLDERS = (".", "data", "notebooks", "deploy", "deploy/cluster")
PROSE = sorted(path for place in FOLDERS for path in (ROOT / place).glob("*.md"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
HOST = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", re.IGNORECASE)
HERE = {"localhost", "127.0.0.1"}  # a server of the reader's own: http will do


@dataclass
class Document:
    """Addresses that a text links to, and the places in it that a link can name."""

    leads: list[str]
    ids: list[str]


def document(path: Path) -> Document:
    """Read a Markdown file or a notebook as GitHub and JupyterLab show it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join(cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")
        found = Links(markdown2html(text))
    else:
        found = Links(mistune.create_markdown(escape=False, plugins=["table"])(text))
        # GitHub's own names for headings
        heads = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.MULTILINE)
        found.ids += [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    bare = re.findall(r"(?<![\"'(=])\bhttps?://[^\s<>()\[\]`\"'|\\]+", text)
    return Document(found.leads + [address.rstrip(".,;:!?*") for address in bare], found.ids)


@cache
def places(path: Path) -> frozenset[str]:
    """The names that a link may put after `#` for a document or a page."""
    return frozenset((Links(path.read_text(encoding="utf-8")) if path.suffix == ".html" else document(path)).ids)


def wrong(lead: str, source: Path, root: Path) -> str | None:
    """What is wrong with a link that is in `source`, a file under `root`; None if it leads somewhere."""
    parts = urlsplit(lead)
    if parts.scheme or parts.netloc:
        return _wrong_outside(lead)
    target = (source.parent / unquote(parts.path)).resolve() if parts.path else source
    if not target.is_relative_to(root.resolve()):
        return "leads out of the project"
    if not target.exists():
        return "no such file"
    if not parts.fragment or target.suffix not in (".md", ".ipynb", ".html"):
        return None
    known = places(target)
    return None if {parts.fragment, unquote(parts.fragment)} & known else "no such place in the file"


def _wrong_outside(lead: str) -> str | None:
    """What is wrong with an address on the network, as far as it can be told without one."""
    parts = urlsplit(lead)
    if parts.scheme == "mailto":
        return None if re.fullmatch(r"[^@\s]+@[^@\s]+", parts.path) else "no address of a mailbox"
    if parts.hostname in HERE:
        return None
    if parts.scheme != "https":
        return "not https"
    if not HOST.fullmatch(parts.hostname or ""):
        return "no name of a host"
    if re.search(r"\s", lead):
        return "blank in the address"
    inside = re.search(r"/(?:blob|tree)/[^/]+/([^?#]+)", parts.path)
    if inside and urlsplit(REPOSITORY).path.strip("/") in parts.path:
        return None if (ROOT / unquote(inside[1])).exists() else "no such file in this repository"
    return None


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "b.md").write_text("# Two words, *and* more\n")
    (tmp_path / "a.md").write_text("# A\n\n[b](b.md#two-words-and-more) [a](#a) <https://a.org/x> [up](b.md)\n")
    source = tmp_path / "a.md"
    right = ["b.md#two-words-and-more", "#a", "https://a.org/x", "b.md"]
    assert {lead: wrong(lead, source, tmp_path) for lead in document(source).leads} == dict.fromkeys(right)
    for lead, reason in {
        "c.md": "no such file", "b.md#three": "no such place", "#b": "no such place", "../c.md": "out of the project",
        "http://a.org": "not https", "https://a": "no name", "https:///x": "no name", "ftp://a.org/x": "not https",
        "https://a.org/b c": "blank", "mailto:me": "mailbox", "//a.org/x": "not https",
    }.items():  # fmt: skip
        assert reason in (wrong(lead, source, tmp_path) or ""), lead
    assert wrong("http://127.0.0.1:8000/hub", source, tmp_path) is None


def test_links_into_the_repository_name_files_that_exist():
    assert wrong(f"{REPOSITORY}/blob/main/README.md", ROOT / "README.md", ROOT) is None
    colab = f"https://colab.research.google.com/github{urlsplit(REPOSITORY).path}/blob/main/notebooks/99_none.ipynb"
    for lead in (f"{REPOSITORY}/blob/main/NONE.md", colab):
        assert wrong(lead, ROOT / "README.md", ROOT) == "no such file in this repository"


@pytest.mark.parametrize("path", PROSE + NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    assert {lead: reason for lead in document(path).leads if (reason := wrong(lead, path, ROOT))} == {}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site, built from notebooks that were not executed: their prose, pictures, code and navigation."""
    folder = tmp_path_factory.mktemp("site")
    pages = [course.Page(path, nbformat.read(path, as_version=4)) for path in NOTEBOOKS]
    titles = {page.path.stem: describe(page.notebook)[0] for page in pages}
    for page in pages:
        write_page(page, folder, titles)
    write_index(pages, folder)
    return folder


@pytest.mark.parametrize("name", [*(path.stem for path in NOTEBOOKS), "index"])
def test_every_link_of_the_site_leads_somewhere(site, name):
    page = site / f"{name}.html"
    found = Links(page.read_text(encoding="utf-8"))
    assert {lead: reason for lead in found.leads if (reason := wrong(lead, page, site))} == {}
    assert len(found.ids) == len(set(found.ids)), "two places of one name"
    assert not any(lead.split("#")[0].endswith(".ipynb") for lead in found.leads if "//" not in lead)


@pytest.mark.parametrize("name", [*(path.stem for path in NOTEBOOKS), "index"])
def test_no_page_of_the_site_fetches_anything(site, name):
    assert Fetched((site / f"{name}.html").read_text(encoding="utf-8")).found == []


def test_the_way_leads_through_all_pages_in_order(site):
    name, seen = NOTEBOOKS[0].stem, []
    while name:
        seen.append(name)
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        before, after = (re.findall(rf'<a href="(\w+)\.html" rel="{way}">', text) for way in ("prev", "next"))
        assert before == 2 * seen[-2:-1] and len(set(after)) <= 1  # above and below the page
        assert text.count('href="index.html"') == 2
        name = after[0] if after else None
    assert seen == [path.stem for path in NOTEBOOKS]
