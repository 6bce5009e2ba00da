"""Pages of the course in a real browser, from the disk and over http, with the network shut (about ten seconds)."""

import contextlib
import functools
import http.server
import json
import threading
from pathlib import Path

import browser
import ipywidgets
import nbformat
import pytest
import toys

from lab_utils import course
from lab_utils.pages import page_html, write_page

HERE = Path(__file__).resolve().parent
CELLS = [
    f"import sys\nsys.path.insert(0, {str(HERE)!r})\nfrom toys import MARK, Toy, png\nimport ipywidgets",
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
    """Where toy.html is found: on the disk, and on a server of its own."""
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
    """A change that changes nothing is no event; `off` ends one callback, all of an event, or all."""
    (tmp_path / "page.html").write_text(page_html(toys.notebook_of(toys.Listener(ranks=[8]))), encoding="utf-8")
    with opened(chromium, (tmp_path / "page.html").as_uri()) as page:
        heard = json.loads(page.locator(".heard").inner_text())
    assert heard == [[True, [1, 2], "any", "name"], "new", 9, []]


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_legible(chromium, tmp_path, theme):
    from axe_playwright_python.sync_playwright import Axe

    box = ipywidgets.VBox([ipywidgets.IntSlider(5, description="steps"), ipywidgets.Image(value=toys.png())])
    body = page_html(toys.notebook_of(toys.Toy(name="C"), box), theme=theme)
    (tmp_path / "page.html").write_text(body, encoding="utf-8")
    with opened(chromium, (tmp_path / "page.html").as_uri()) as page:
        page.locator(".toy-text").wait_for()
        rules = ["color-contrast", "image-alt"]
        found = Axe().run(page, context=".jp-OutputArea", options={"runOnly": rules}).response
        assert {rule["id"] for rule in found["passes"]} == set(rules)
        assert found["violations"] == []
