"""The front door: the parts of the course, the explorer on the index, the ways to run it, the moving picture."""

import json
import re

import nbformat
import pytest
from PIL import Image
from toys import Asking, Toy, notebook_of

from lab_utils.classroom import course, front
from lab_utils.classroom.contents import write_index
from lab_utils.classroom.pages import shown
from lab_utils.classroom.parts import OTHERS, PARTS, grouped
from lab_utils.folders import NOTEBOOKS, ROOT
from lab_utils.notebook import badges
from lab_utils.widgets import rank_explorer
from lab_utils.widgets.before_after import before_after

STEMS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


class RankExplorer(Toy):
    """It bears the name that the index looks for."""


def index_of(folder, notebooks) -> str:
    """The index of pages whose HTML is empty: stem -> notebook."""
    for stem in notebooks:
        (folder / f"{stem}.html").write_text("")
    pages = [course.Page(folder / f"{stem}.ipynb", notebook, [1.0]) for stem, notebook in notebooks.items()]
    return write_index(pages, folder).read_text(encoding="utf-8")


def tables(text: str) -> dict[str, list[str]]:
    """Part -> the pages below it, in a table of Markdown whose parts are rows in bold."""
    found = {}
    for first in re.findall(r"^\| (.+?) \|", text, flags=re.MULTILINE):
        if first.startswith("**"):
            found[first.strip("*")] = pages = []
        elif found and (page := re.match(r"\[?(\d\d|A) \w+", first)):
            pages.append(page[1])
    return found


def test_every_page_is_in_one_part_and_the_documents_say_the_same():
    parts = {part.name: list(part.pages) for part in PARTS}
    pages = [page for part in PARTS for page in part.pages]
    assert pages == [stem.partition("_")[0] for stem in STEMS]
    start = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", 4)
    assert tables(README) == tables("\n".join(cell.source for cell in start.cells)) == parts
    opening = re.findall(r"^\| \[(.+?)\]\(#the-pages\) \| (.+?) \| (.+?) \|$", README, flags=re.MULTILINE)
    assert [(name, line) for name, _, line in opening] == [(part.name, part.line) for part in PARTS]
    assert [span.split("–") for _, span, _ in opening] == [sorted({part.pages[0], part.pages[-1]}) for part in PARTS]
    assert {part.name: len(stems) for part, stems in grouped(["x", *STEMS]).items()} == {
        **{name: len(pages) for name, pages in parts.items()}, OTHERS: 1,
    }  # fmt: skip


def test_the_first_sliders_come_within_two_minutes_of_reading():
    """At 200 words a minute, from the top of page 00; the list of pages apart, it takes less than four."""
    cells = shown(nbformat.read(NOTEBOOKS / "00_start_here.ipynb", 4)).cells
    sliders = next(at for at, cell in enumerate(cells) if cell.cell_type == "code" and "BeTheSVD(" in cell.source)

    def prose(cells: list) -> str:
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown").partition("## The course")[0]
        return re.sub(r"^\[!\[.*$", "", text, flags=re.MULTILINE)  # badges

    assert len(re.findall(r"[\w']+", prose(cells[:sliders]))) <= 400
    assert len(re.findall(r"[\w']+", prose(cells))) <= 700 and "LORA_LAB_THREADS=1 make lab" in prose(cells)


def test_the_index_holds_each_page_in_its_part(tmp_path):
    text = index_of(tmp_path, {stem: nbformat.v4.new_notebook() for stem in STEMS})
    sections = re.findall(r'<section class="site-part.*?<h2[^>]*>(.*?)</h2>(.*?)</section>', text, flags=re.DOTALL)
    held = {name: re.findall(r'<h3><a href="(\w+)\.html">', cards) for name, cards in sections}
    assert held == {part.name: [stem for stem in STEMS if stem.partition("_")[0] in part.pages] for part in PARTS}
    assert "site-live" not in text.split("</style>")[-1] and "lab-states" not in text  # none ran: nothing to move


def test_the_index_opens_with_the_explorer_of_the_ranks(tmp_path):
    """Above the pages, before any other that answers alone, from another start; its page stays as it was."""
    ranks = notebook_of(RankExplorer(name="ranks", rank=7))
    text = index_of(tmp_path, {"00_a": notebook_of(Toy(name="first"), Asking()), "01_b": ranks})
    body = text.partition("<main>")[2]
    assert body.index("site-live-rank") < body.index('id="pages"') and body.count('class="lab-place"') == 1
    [state] = json.loads(re.search(r'id="lab-states" type="application/json">(.*?)</script>', body)[1]).values()
    assert state == {"name": "ranks", "rank": front.RANK, "start": {"rank": front.RANK}}
    assert 'From <a href="01_b.html">' in body and "showExplorers(0, render);" in body
    saved = ranks.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert [one["state"]["rank"] for one in saved if "rank" in one["state"]] == [7]


def test_before_and_after_are_shown_with_the_page_that_asked(tmp_path):
    new, story = nbformat.v4, before_after("Two drums", "so sorry", "{}").data
    outputs = [new.new_output("stream", text="hi"), new.new_output("display_data", data={"text/html": story})]
    told = new.new_notebook(cells=[new.new_markdown_cell("# 00 · A"), new.new_code_cell("x", outputs=outputs)])
    body = index_of(tmp_path, {"00_a": told, "01_b": told}).partition("<main>")[2]
    assert body.count(story) == 1 and body.index(story) < body.index('id="pages"')
    assert 'From <a href="00_a.html">00 · A</a>' in body


@pytest.mark.parametrize(("widgets", "name"), [((Asking, Toy), "Toy"), ((Asking,), None), ((), None)])
def test_without_it_the_first_that_answers_without_python(tmp_path, widgets, name):
    text = index_of(tmp_path, {"01_a": notebook_of(*(widget(name=widget.__name__) for widget in widgets))})
    states = re.findall(r'id="lab-states" type="application/json">(.*?)</script>', text)
    assert [next(iter(json.loads(one).values()))["name"] for one in states] == ([name] if name else [])
    assert text.count("<section class=") - text.count('"site-beside"') == (2 if name else 1)  # and its part


def test_the_explorer_of_the_ranks_is_known_by_its_class():
    explorer = rank_explorer.RankExplorer({"a": [[1.0, 2.0], [3.0, 5.0]]})
    assert explorer.get_state()["_anywidget_id"].endswith(f".{front.FIRST}") and explorer.has_trait("rank")


def test_the_ways_to_run_are_those_of_the_readme(monkeypatch):
    ways = front.ways_to_run()
    leads = re.findall(r'<h3><a href="([^"]+)">(\w+)</a>', ways)
    assert [name for _, name in leads] == ["Colab", "Kaggle", "Codespaces"] and "make lab" in ways
    assert all(f"]({lead})" in README for lead, _ in leads)
    monkeypatch.setattr(badges, "repository", lambda: "https://git.example.org/a/b")
    assert "<a href=" not in front.ways_to_run().split("</pre>")[1].split("</ul>")[0].split("</li>", 1)[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_readme_opens_with_a_small_picture_that_moves(theme):
    path = ROOT / "notebooks" / "images" / f"rank_{theme}.webp"
    assert f"notebooks/images/{path.name}" in README.partition("\n## ")[0]
    with Image.open(path) as picture:
        assert picture.is_animated and picture.info["loop"] == 0
    assert path.stat().st_size < 1_500_000
