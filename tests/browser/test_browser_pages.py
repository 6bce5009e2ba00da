"""Pages of the course in a real browser, from the disk and over http, with the network shut (about 40 seconds)."""

import contextlib
import functools
import http.server
import json
import threading

import browser
import ipywidgets
import nbformat
import pytest
import toys

from lab_utils.classroom import course
from lab_utils.classroom.pages import page_html, write_page
from lab_utils.folders import ROOT

SUPPORT = ROOT / "tests" / "support"
CELLS = [
    f"import sys\nsys.path.insert(0, {str(SUPPORT)!r})\nfrom toys import MARK, Toy, png\nimport ipywidgets",
    "first = Toy(name='A', rank=3)\nfirst",
    "Toy(name='B' + MARK, rank=7)",
    "first",
    "ipywidgets.VBox([ipywidgets.IntSlider(5, description='steps'), ipywidgets.Image(value=png(), tooltip='Curve')])",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with toy.html: five cells, executed in a kernel and written as the course does it."""
    folder = tmp_path_factory.mktemp("site")
    new = nbformat.v4
    nbformat.write(new.new_notebook(cells=[new.new_code_cell(text) for text in CELLS]), folder / "toy.ipynb")
    page = course.execute(folder / "toy.ipynb")
    assert page.failure is None
    write_page(page, folder)
    return folder


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as chromium:
        yield chromium


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def addresses(folder):
    """Where toy.html is found: on the disk, and on its own server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    yield {"file": (folder / "toy.html").as_uri(), "http": f"http://127.0.0.1:{port}/toy.html"}
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def opened(chromium, address, **options):
    """A page, with `page.asked` (requests for anything but the page; all are refused) and `page.errors`."""
    context = chromium.new_context(**options)
    page = context.new_page()
    page.asked, page.errors = [], []
    page.route("**/*", lambda route: route.continue_() if route.request.url == address else route.abort())
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.goto(address, wait_until="load")
    page.asked = [url for url in page.asked if url != address and not url.startswith("data:")]
    yield page
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("way", ["file", "http"])
def test_explorers_live_without_a_network(chromium, addresses, way):
    with opened(chromium, addresses[way]) as page:
        texts = page.locator(".toy-text")
        texts.nth(2).wait_for()
        b = f"B{toys.MARK} has rank 7 {toys.MARK}"
        assert texts.all_inner_texts() == [f"A has rank 3 {toys.MARK}", b, f"A has rank 3 {toys.MARK}"]
        assert page.locator(".lab-place img").count() == 3
        assert not any(image.is_visible() for image in page.locator(".lab-place img").all())
        page.locator(".lab-place input").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        a = f"A has rank 5 {toys.MARK}"
        assert texts.all_inner_texts() == [a, b, a]  # both views of the one model, and not the other model
        assert page.locator(".lab-place input").nth(2).input_value() == "5"
        page.locator(".lab-place input").nth(1).focus()
        page.keyboard.press("Home")
        assert texts.all_inner_texts() == [a, b.replace("rank 7", "rank 0"), a]
        assert texts.first.evaluate("text => getComputedStyle(text).borderLeftWidth") == "3px"
        assert page.locator(".lab-snapshot").inner_text().startswith("steps: 5")
        assert page.get_by_alt_text("Curve").evaluate("image => image.naturalWidth") == 40
        assert page.asked == [] and page.errors == []


@pytest.mark.browser
def test_without_scripts_the_pictures_are_seen(chromium, addresses):
    with opened(chromium, addresses["file"], java_script_enabled=False) as page:
        images = page.get_by_alt_text('A "toy" of rank', exact=False)
        assert images.count() == 3
        assert all(image.is_visible() and image.bounding_box()["width"] == 40 for image in images.all())
        assert page.locator("text=has rank").count() == 0
        assert page.asked == [] and page.errors == []


@pytest.mark.browser
def test_an_explorer_that_fails_leaves_its_picture_and_the_others(chromium, tmp_path):
    body = page_html(toys.notebook_of(toys.Broken(), toys.Toy(name="C")))
    (tmp_path / "page.html").write_text(body, encoding="utf-8")
    with opened(chromium, (tmp_path / "page.html").as_uri()) as page:
        page.locator(".toy-text").wait_for()
        assert [image.is_visible() for image in page.locator(".lab-place img").all()] == [True, False]
        assert page.get_by_text("half").count() == 0
        assert len(page.errors) == 1 and "toy failure" in page.errors[0]


@pytest.mark.browser
def test_a_model_sends_the_events_that_jupyters_sends(chromium, tmp_path):
    """A change that changes nothing is not an event; `off` ends one callback, all of an event, or all."""
    (tmp_path / "page.html").write_text(page_html(toys.notebook_of(toys.Listener(ranks=[8]))), encoding="utf-8")
    with opened(chromium, (tmp_path / "page.html").as_uri()) as page:
        heard = json.loads(page.locator(".heard").inner_text())
    assert heard == [[True, [1, 2], "any", "name"], "new", 9, []]


SERIOUS = ("serious", "critical")


def faults(page) -> list[str]:
    """What axe-core finds wrong with a whole page, folded hints and solutions too, serious or worse."""
    from axe_playwright_python.sync_playwright import Axe

    page.locator("details").evaluate_all("parts => parts.forEach(part => { part.open = true; })")
    page.wait_for_timeout(200)  # site.js sees what they make scroll
    found = Axe().run(page).response
    looked = {rule["id"] for rule in found["passes"] + found["violations"]}
    assert looked >= {"color-contrast", "document-title", "html-has-lang"}
    return [
        f"{rule['id']}: {node['html'][:150]} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of two executed pages of the course and their index."""
    folder = tmp_path_factory.mktemp("course")
    pages = course.run_course(course.select(course.NOTEBOOKS, EXECUTED), folder, {"LORA_LAB_FAST": "1"}, 300)
    assert [page.failure for page in pages] == [None] * len(EXECUTED)
    return folder


EXECUTED = ["01_rank_one", "11_lora_variants"]  # the quickest two; both have an explorer that lives
LIGHT = {"light": "true", "dark": "false"}  # what JupyterLab writes for its themes
LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


@pytest.mark.browser
@pytest.mark.parametrize(
    "name, look",
    [*(("index", look) for look in LOOKS), (EXECUTED[0], "dark"), (EXECUTED[0], "narrow"), (EXECUTED[1], "light")],
)
def test_axe_finds_nothing_serious(chromium, site, name, look):
    with opened(chromium, (site / f"{name}.html").as_uri(), **LOOKS[look]) as page:
        if name != "index":
            page.locator(".lab-place .lab-explorer").first.wait_for()
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0  # only parts scroll sideways
        assert page.asked == [] and page.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("look", LOOKS)
def test_the_index_opens_with_an_explorer_that_answers(chromium, site, look):
    """In the first window of a visitor, without a scroll; a key changes its sentence and its picture."""
    with opened(chromium, (site / "index.html").as_uri(), **LOOKS[look]) as page:
        stage = page.locator(".site-stage .lab-explorer")
        stage.wait_for()
        slider, copy = stage.get_by_label("rank", exact=True), stage.locator("canvas").nth(1)
        assert slider.bounding_box()["y"] < page.viewport_size["height"]
        seen = []
        for key in (None, "ArrowRight"):
            if key:
                slider.press(key)
            seen.append((stage.locator(".lab-summary").inner_text(), copy.screenshot()))
        assert [text.split(":")[0] for text, _ in seen] == ["Rank 2", "Rank 3"] and seen[0][1] != seen[1][1]
        assert not stage.locator(".lab-question").is_visible()
        assert page.asked == [] and page.errors == []


@pytest.mark.browser
def test_axe_sees_a_fault(chromium, tmp_path):
    body = page_html(toys.notebook_of(toys.Toy(name="C"))).replace("</main>", "<p style='color: #ccc'>faint</p></main>")
    (tmp_path / "page.html").write_text(body, encoding="utf-8")
    with opened(chromium, (tmp_path / "page.html").as_uri(), color_scheme="light") as page:
        assert [fault.split(":")[0] for fault in faults(page)] == ["color-contrast"]


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_legible(chromium, tmp_path, theme):
    box = ipywidgets.VBox([ipywidgets.IntSlider(5, description="steps"), ipywidgets.Image(value=toys.png())])
    body = page_html(toys.notebook_of(toys.Toy(name="C"), box))
    (tmp_path / "page.html").write_text(body, encoding="utf-8")
    with opened(chromium, (tmp_path / "page.html").as_uri(), color_scheme=theme) as page:
        page.locator(".toy-text").wait_for()
        assert faults(page) == []
        back = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") is (theme == "light")
        page.locator(f"body[data-jp-theme-light={LIGHT[theme]}]").wait_for()
        other = "dark" if theme == "light" else "light"
        page.emulate_media(color_scheme=other)  # the reader changes it
        page.locator(f"body[data-jp-theme-light={LIGHT[other]}]").wait_for()


@pytest.mark.browser
def test_the_keyboard_skips_to_the_content_and_stops_only_where_something_moves(chromium, site):
    with opened(chromium, (site / "01_rank_one.html").as_uri()) as page:
        page.locator(".lab-place .lab-explorer").first.wait_for()
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        assert skip.evaluate("link => link === document.activeElement") and skip.bounding_box()["y"] >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "lesson"
        idle = page.locator("main [tabindex='0']").evaluate_all(
            """parts => parts.filter(part => !part.closest(".lab-explorer")
                 && part.scrollWidth <= part.clientWidth && part.scrollHeight <= part.clientHeight)
               .map(part => part.outerHTML.slice(0, 80))"""
        )
        assert idle == []


@pytest.mark.browser
def test_sections_are_found_from_the_index(chromium, site):
    with opened(chromium, (site / "index.html").as_uri()) as page:
        shown = page.locator(".site-sections li:visible")
        every = shown.count()
        page.get_by_role("searchbox").fill("table apart")
        assert shown.all_inner_texts() == ["01 · 3. In reverse: take a table apart"]
        assert page.locator(".site-filter").get_by_role("status").inner_text() == f"1 of {every} sections"
        target = shown.get_by_role("link").get_attribute("href")
        page.get_by_role("searchbox").fill("")
        assert shown.count() == every > 10
        page.unroute("**/*")
        page.goto((site / target.split("#")[0]).as_uri() + "#" + target.split("#")[1])
        heading = page.get_by_role("heading", name="3. In reverse")
        assert abs(heading.bounding_box()["y"]) < 60  # the page opens at the section


@pytest.mark.browser
def test_paper_is_light_and_cuts_nothing_off(chromium, site):
    with opened(chromium, (site / "01_rank_one.html").as_uri(), color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator(".site-bar").first.is_visible()
        cut = "parts => parts.filter(part => part.scrollWidth > part.clientWidth).map(part => part.textContent)"
        assert page.locator("main pre").evaluate_all(cut) == []
