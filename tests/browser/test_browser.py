"""Notebook 08 in a real JupyterLab in a real browser: what a reader sees, in fast mode.

Of the page's cells it runs those that show something which only a browser can judge, and those that they need; all of
them run in tests/pages/test_notebooks.py. Pictures are left in tests/screenshots/. For pictures of the whole page at
full length: LORA_LAB_FAST=0 pytest -m browser
"""

import os
import shutil

import browser
import nbformat
import pytest

from lab_utils.folders import ROOT
from lab_utils.notebook.cells import needed

SCREENSHOTS = ROOT / "tests" / "screenshots"
NAME = "08_qlora_finetune.ipynb"
FAST = os.environ.get("LORA_LAB_FAST", "1")
LIMIT_SECONDS = 900 if FAST == "1" else 3600
MICROSCOPE, LIVE = "label_microscope.label_microscope(", "LiveLoss("
ANSWERS, SCORES = '"after": after["test"]}, rows', "plots.before_after("


def page_cells() -> list:
    """The page's cells; in fast mode only its code cells that show MICROSCOPE to SCORES, and what those need."""
    cells = nbformat.read(ROOT / "notebooks" / NAME, as_version=4).cells
    if FAST != "1":
        return cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    sources = [cell.source for cell in code]
    parts = (MICROSCOPE, LIVE, ANSWERS, SCORES)
    shown = [next(i for i, source in enumerate(sources) if part in source) for part in parts]
    return [code[i] for i in sorted({*shown, *(other for i in shown for other in needed(sources, i))})]


def index_of(source: str) -> int:
    """The index of the first code cell of the notebook that holds `source`."""
    return next(i for i, cell in enumerate(page_cells()) if cell.cell_type == "code" and source in cell.source)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The notebook, a copy of it, run from top to bottom as the menu's Run All Cells does."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("runs", ".*"))
    notebook = nbformat.read(folder / NAME, as_version=4)
    notebook.cells = page_cells()
    nbformat.write(notebook, folder / NAME)
    runs = tmp_path_factory.mktemp("runs")
    environment = {"LORA_LAB_FAST": FAST, "LORA_LAB_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}
    with browser.serve(folder, environment) as server, browser.open_notebook(server, NAME) as page:
        page.all_cells_ran = browser.run_all(page, LIMIT_SECONDS)
        yield page


def take(page, name: str) -> None:
    """Save a picture of the window and say where."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    print("screenshot:", SCREENSHOTS / f"{name}.png")


@pytest.mark.browser
def test_every_cell_runs(page):
    take(page, "08-end")
    assert browser.errors(page) == []
    assert page.all_cells_ran


@pytest.mark.browser
def test_the_microscope_answers_the_mouse(page):
    index = index_of(MICROSCOPE)
    browser.scroll_to(page, index)
    tokens = browser.output(page, index).locator(".lab-tokens")
    tokens.wait_for()
    take(page, "08-microscope")
    before = tokens.inner_html()
    browser.output(page, index).locator("input[type=checkbox]").click()
    page.wait_for_function(
        "([index, before]) => document.querySelector(`[data-windowed-list-index=\"${index}\"] .lab-tokens`)"
        "?.innerHTML !== before",
        arg=[index, before],
        timeout=30_000,
    )
    trained_before, trained_after = before.count('class="trained"'), tokens.inner_html().count('class="trained"')
    assert trained_after == trained_before - 1 > 0


@pytest.mark.browser
def test_the_live_loss_is_one_picture(page):
    index = index_of(LIVE)
    browser.scroll_to(page, index)
    picture = browser.output(page, index).locator("img")
    assert picture.count() == 1
    picture.scroll_into_view_if_needed()
    assert browser.visible_pictures(page) >= 1
    assert "Step" in browser.output(page, index).first.inner_text()
    take(page, "08-training")


@pytest.mark.browser
def test_before_and_after_are_seen(page):
    browser.scroll_to(page, index_of(ANSWERS))
    take(page, "08-before-and-after")
    index = index_of(SCORES)
    browser.scroll_to(page, index)
    assert browser.visible_pictures(page) >= 1
    take(page, "08-scores")
