"""The notebooks' explorers in a real JupyterLab in a real browser, each with the cells that it needs of its page.

Pictures in light and dark theme are left in tests/screenshots/. How fast an explorer answers is measured by `make
bench`.
"""

import re

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe
from explorer_pages import CELL, PAGES, lay_out

from lab_utils.folders import ROOT

SCREENSHOTS = ROOT / "tests" / "screenshots"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One JupyterLab on a copy of the notebooks."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    lay_out(folder)
    with browser.serve(folder, {"HF_HUB_OFFLINE": "1", "LORA_LAB_FAST": "1"}) as server:
        yield server


@pytest.fixture(scope="module")
def lab(server):
    """JupyterLab in Chromium: it is loaded once, and its notebooks are opened one after the other."""
    with browser.open_notebook(server, PAGES["parameters"].notebook, height=1100) as page:
        yield page


@pytest.fixture(scope="module", params=PAGES, ids=str)
def opened(request, lab):
    """(explorer's page, Playwright's page) with all cells run and the explorer in the window."""
    where = PAGES[request.param]
    browser.open_other(lab, where.notebook)
    lab.all_cells_ran = browser.run_all(lab, 300)
    yield where, lab


@pytest.fixture
def root(opened):
    """The explorer, back at its start."""
    _, page = opened
    found = browser.explorer(page, CELL)
    found.get_by_role("button", name="Reset").click()
    browser.settle(page, found)
    return found


def slider_of(root, where):
    return root.get_by_label(where.label, exact=True)


def signature(root, where):
    """What is painted in the watched part."""
    return root.evaluate(f"(root, watch) => {{ {browser.WATCH} return signature(root, watch); }}", where.watch)


def sentence(root) -> str:
    return root.locator(".lab-summary").inner_text()


def test_the_page_runs(opened):
    _, page = opened
    assert browser.errors(page) == []
    assert page.all_cells_ran


def test_a_key_moves_the_slider_and_python_sees_it(opened, root):
    where, page = opened
    value = f"{where.variable}.{where.trait}"
    before = browser.kernel_value(page, value)
    painted = signature(root, where)
    slider_of(root, where).press("ArrowRight")
    browser.settle(page, root)
    assert signature(root, where) != painted
    moved = browser.kernel_value(page, value)
    assert moved < before if where.falls else moved > before
    page.keyboard.press("ArrowLeft")
    browser.settle(page, root)
    assert browser.kernel_value(page, value) == before


def test_the_browser_computes_what_python_computes(opened, root):
    where, page = opened
    slider = slider_of(root, where)
    for _ in range(2):
        slider.press("ArrowRight")
        browser.settle(page, root)
        summary = browser.kernel_value(page, f"{where.variable}.summary()")
        numbers = [float(re.findall(where.number, text)[-1].replace(",", "")) for text in (sentence(root), summary)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.01), (sentence(root), summary)


def test_every_control_changes_something(opened, root):
    _, page = opened
    for control in root.locator("input, select").all():
        before = root.inner_html()
        kind = control.evaluate("control => control.type")
        if kind == "select-one" and control.locator("option").count() == 1:
            continue  # what the other controls have left holds one value only
        keys = {"range": ("ArrowRight", "ArrowLeft"), "checkbox": ("Space",)}.get(kind, ("ArrowDown", "ArrowUp"))
        for key in keys:  # the second where the first cannot go on: it is at its end
            if root.inner_html() == before:
                control.press(key)
                browser.settle(page, root)
        assert root.inner_html() != before, control.evaluate("control => control.outerHTML")
        label = control.evaluate("control => control.labels[0]?.textContent")
        assert label, "a control without a label"


def test_a_fast_drag_ends_on_the_right_picture(opened, root):
    where, page = opened
    slider = slider_of(root, where)
    first, seen = browser.drag(page, root, slider), browser.drag(page, root, slider)
    assert len(seen["heights"]) <= 2, f"the explorer changed its height while dragged: {seen['heights']}"
    assert seen["nodes"][1] - first["nodes"][1] <= 40, "the second drag left more behind than the trainer's dots"
    value = browser.kernel_value(page, f"{where.variable}.{where.trait}")
    shown = slider.evaluate("input => input.closest('.lab-control').querySelector('output').textContent")
    assert shown == str(value) or float(shown) == value, "the slider shows another value than Python has"
    assert shown in sentence(root)
    # drawn again from Python's state, the picture is the same
    picture = signature(root, where)
    for other in (browser.kernel_value(page, f"{where.variable}.start['{where.trait}']"), value):
        browser.kernel_value(page, f"setattr({where.variable}, '{where.trait}', {other})")
        browser.settle(page, root)
    assert signature(root, where) == picture


def test_prediction_and_reset_by_keyboard_alone(opened, root):
    where, page = opened
    start = browser.kernel_value(page, f"{where.variable}.{where.trait}")
    root.get_by_role("button", name="Show the question").focus()
    page.keyboard.press("Enter")
    browser.settle(page, root)
    choice = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    browser.settle(page, root)
    assert f"You said: {choice}" in root.locator(".lab-question").inner_text()
    assert browser.kernel_value(page, f"{where.variable}.guess") == choice
    assert page.evaluate("document.activeElement.closest('.lab-controls') !== null"), "the focus is not on the controls"
    slider_of(root, where).press("ArrowRight")
    browser.settle(page, root)
    assert browser.kernel_value(page, f"{where.variable}.{where.trait}") != start
    root.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    browser.settle(page, root)
    assert browser.kernel_value(page, f"{where.variable}.{where.trait}") == start


def test_tab_reaches_every_control(opened, root):
    _, page = opened
    controls = "button, input, select"
    wanted = sum(control.is_visible() for control in root.locator(controls).all())
    root.get_by_role("button", name="Show the question").focus()
    reached = set()
    for _ in range(wanted + 2):
        reached.add(
            root.evaluate(f"root => [...root.querySelectorAll('{controls}')].indexOf(document.activeElement)")
        )
        page.keyboard.press("Tab")
    assert len(reached - {-1}) == wanted


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_no_serious_fault(opened, root, theme):
    where, page = opened
    browser.set_theme(page, theme)
    SCREENSHOTS.mkdir(exist_ok=True)
    root.screenshot(path=SCREENSHOTS / f"{where.notebook[:2]}-{where.variable}-{theme.split()[1].lower()}.png")
    found = Axe().run(page, context=".lab-explorer").response["violations"]
    browser.set_theme(page, "JupyterLab Light")
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
