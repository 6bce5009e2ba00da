"""`make present` in a real browser (a minute): explorers under ipywidgets' manager outside JupyterLab, as on Colab.

One explorer computes in the browser, the other asks Python at every move. Pictures are left in tests/screenshots/.
"""

import os
import re
import subprocess
import sys

import browser
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from servers import free_ports, wait_until_up

from lab_utils.classroom import pages, snapshots
from lab_utils.folders import ROOT
from lab_utils.widgets.parameter_explorer import ParameterExplorer

SCREENSHOTS = ROOT / "tests" / "screenshots"
SMALLEST_TYPE = 1 / 40  # of the window's height
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the pages of two explorers are served."""
    home = tmp_path_factory.mktemp("voila")
    [port] = free_ports(1)
    command = [sys.executable, "-m", "lab_utils.classroom", "present", "--no-browser", "--port", str(port)]
    folders = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--only", "trainer", "parameters"], stdout=log, stderr=log,
            env={**os.environ, **folders, "IPYTHONDIR": str(home / "ipython")},
        )  # fmt: skip
    try:
        wait_until_up(f"http://localhost:{port}/", process, home / "log", 60)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()  # it ends Voilà, and Voilà its kernels
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def page(address):
    """Playwright's page on the index; `asked` is what it asked for, `ended` the kernels whose end it asked for."""
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 720})
        page.asked, page.ended = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("response", lambda response: "shutdown" in response.url and page.ended.append(response.status))
        page.goto(address)
        yield page


@pytest.fixture
def parameters(page, address):
    """The explorer that computes in the browser, on its page."""
    if "/parameters" not in page.url:
        page.goto(f"{address}/voila/render/parameters.ipynb")
    return opened(page)


def opened(page):
    """The explorer of the page that is being opened, once it says something."""
    page.wait_for_selector(".lab-explorer .lab-summary:not(:empty)", state="attached", timeout=60_000)
    page.wait_for_timeout(500)
    return page.locator(".lab-explorer")


def sentence(page) -> str:
    return page.locator(".lab-summary").text_content()


def changed(page, before: str) -> str:
    """The sentence, as soon as it is another."""
    page.wait_for_function("text => document.querySelector('.lab-summary').textContent !== text", arg=before)
    return sentence(page)


def faults(page) -> list:
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]


def smallest_type(page) -> float:
    """Size of the smallest visible text of the explorer on screen, in pixels, zoom and the scale of charts included."""
    return page.evaluate(
        """() => Math.min(...[...document.querySelectorAll('.lab-explorer *')].filter(element =>
             element.checkVisibility({ visibilityProperty: true }) && !element.matches('.lab-hidden, option')
             && parseFloat(getComputedStyle(element).fontSize) > 0
             && [...element.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())
           ).map(element => {
             const svg = element.ownerSVGElement;
             const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : element.currentCSSZoom;
             return parseFloat(getComputedStyle(element).fontSize) * scale;
           }))"""
    )


def test_the_index_names_each_explorer(page):
    assert page.locator("ol a").all_text_contents() == ["Parameters", "Rank and alpha"]
    assert faults(page) == []


def test_an_explorer_that_computes_in_the_browser(page, parameters):
    slider, before = parameters.get_by_label("rank", exact=True), sentence(page)
    assert "rank 8" in before
    slider.press("ArrowRight")
    assert "rank 12" in changed(page, before)
    assert smallest_type(page) >= SMALLEST_TYPE * 720 - 0.1
    assert parameters.bounding_box()["width"] == 1280


def test_the_bar_stays_and_so_do_the_controls(page, parameters):
    for _ in range(6):
        page.keyboard.press("+")
    page.mouse.move(600, 300)
    page.mouse.wheel(0, 800)
    page.wait_for_function("document.getElementById('rendered_cells').scrollTop > 500")
    bar, controls = (page.locator(name).bounding_box() for name in (".present-bar", ".lab-controls"))
    for _ in range(6):
        page.keyboard.press("-")
    assert bar["y"] + bar["height"] == pytest.approx(720, abs=1) and 0 <= controls["y"] < 20


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page, parameters, theme):
    if theme == "dark":
        page.keyboard.press("d")
    colours = page.evaluate("getComputedStyle(document.querySelector('.lab-explorer')).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colours))) < 200) == (theme == "dark")
    assert faults(page) == []
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"present-{theme}.png")


def test_predict_first_and_reset_all(page, parameters):
    def seen() -> bool:
        return page.locator(".lab-panels").is_visible() and page.locator(".lab-summary").is_visible()

    assert seen()
    page.keyboard.press("q")
    assert not seen()
    assert smallest_type(page) >= SMALLEST_TYPE * 720
    page.get_by_role("button", name="q_proj", exact=True).click()
    assert seen()
    page.get_by_label("model", exact=True).focus()
    page.keyboard.press("r")
    assert not seen(), "the question is open again, also where a choice has the focus"
    page.get_by_role("button", name="down_proj", exact=True).click()
    assert "rank 8" in sentence(page), "back where it was at first"


def test_an_explorer_that_trains(page, parameters):
    if page.locator('[data-key="q"]').get_attribute("aria-pressed") != "true":
        page.keyboard.press("q")
    page.keyboard.press("n")
    page.wait_for_url("**/trainer.ipynb")
    explorer = opened(page)
    assert not page.locator(".lab-panels").is_visible(), "predict first holds from page to page"
    page.get_by_role("button", name="training too short", exact=True).click()
    before = sentence(page)
    trained = int(re.search(r"([\d,]+) numbers trained", before)[1].replace(",", ""))
    explorer.get_by_label("rank", exact=True).press("ArrowRight")
    page.wait_for_function(
        "before => /new images [\\d.]+/.test(document.querySelector('.lab-summary').textContent)"
        " && document.querySelector('.lab-summary').textContent !== before", arg=before,
    )  # fmt: skip
    after = re.search(r"([\d,]+) numbers trained.*new images ([\d.]+) ?%", sentence(page))
    assert int(after[1].replace(",", "")) == 2 * trained and float(after[2]) > 60
    assert smallest_type(page) >= SMALLEST_TYPE * 720 - 0.1


def test_a_page_that_is_left_ends_its_kernel_and_nothing_was_asked_elsewhere(page, parameters, address):
    asked = len(page.asked)
    with page.expect_request("**/voila/api/shutdown/**"):
        page.keyboard.press("i")
    page.wait_for_selector("ol a")
    page.wait_for_timeout(500)
    assert sum("/voila/api/shutdown/" in url for url in page.asked[asked:]) == 1
    assert 403 not in page.ended
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []


def test_the_switches_work_where_no_kernel_runs(page, tmp_path):
    """An explorer that was saved with `predict_first` on, as the static site shows it."""
    explorer = ParameterExplorer(rank=8)
    explorer.predict_first = True
    state = {key: value for key, value in explorer.get_state().items() if key != "layout"}
    output = nbformat.v4.new_output("display_data", {snapshots.VIEW: {"model_id": explorer.model_id}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    notebook.metadata["widgets"] = {snapshots.STATE: {"state": {explorer.model_id: {"state": state}}}}
    file = tmp_path / "page.html"
    file.write_text(pages.page_html(notebook), encoding="utf-8")
    page.goto(file.as_uri())
    panels, slider = page.locator(".lab-panels"), page.get_by_label("rank", exact=True)
    page.wait_for_selector(".lab-question button")
    assert not panels.is_visible()
    page.get_by_role("button", name="q_proj", exact=True).click()
    assert panels.is_visible()
    slider.press("ArrowRight")
    assert "rank 12" in sentence(page)
    page.evaluate("document.dispatchEvent(new CustomEvent('lab-reset-all'))")
    assert "rank 8" in sentence(page) and not panels.is_visible()
    page.evaluate("document.dispatchEvent(new CustomEvent('lab-predict-first', { detail: false }))")
    assert panels.is_visible()
