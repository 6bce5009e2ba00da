"""The chat widget in a real JupyterLab in a real browser, with answers that are stubs (half a minute).

Pictures in light and dark are left in tests/screenshots/.
"""

import browser
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from chat_stubs import BOOKING, MESSAGE, ODD, PIRATE, take
from toys import notebook_of

from lab_utils.classroom.pages import page_html
from lab_utils.widgets.chat import chat

CELL = f"""
import pathlib, time
from lab_utils.widgets.chat import chat
asked = []
def answers(messages, adapters):
    asked.append([messages, adapters])
    while not pathlib.Path("go").exists():  # the test says when
        time.sleep(0.05)
    if "fail" in messages[0]:
        raise RuntimeError("out of memory")
    texts = {{None: {ODD!r}, "bookings": {BOOKING!r}, "style": {PIRATE!r}}}
    return [texts[name] for name in adapters]
box = chat(answers, ["bookings", "style"], examples=["My violin is missing two strings."])
box
"""
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A notebook with the widget, run."""
    folder = tmp_path_factory.mktemp("lab")
    new = nbformat.v4
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = new.new_notebook(cells=[new.new_code_cell(CELL.strip())], metadata=kernel)
    nbformat.write(notebook, folder / "chat.ipynb")
    with browser.serve(folder) as server, browser.open_notebook(server, "chat.ipynb", height=1000) as page:
        assert browser.run_all(page, 60) and browser.errors(page) == []
        page.locator(".lab-chat").wait_for()
        page.go = folder / "go"
        yield page


def test_the_widget_answers_the_keyboard(lab):
    """Enter sends and the focus stays in the box; what is typed meanwhile stays there until it can be sent."""
    view, box = lab.locator(".lab-chat"), lab.get_by_label("message", exact=True)
    box.focus()
    lab.keyboard.type(MESSAGE)
    lab.keyboard.press("Enter")
    lab.keyboard.type("and fail")
    lab.keyboard.press("Enter")
    assert view.locator(".lab-summary").inner_text() == f"thinking … “{MESSAGE}”"
    take(lab, "chat-widget-thinking")
    lab.go.touch()
    view.locator(".lab-replies").wait_for()
    assert view.locator(".lab-answer").all_inner_texts() == [ODD, BOOKING, PIRATE]
    assert view.locator(".lab-name").all_inner_texts() == ["base", "bookings", "style"]
    tops = {round(cell.bounding_box()["y"]) for cell in view.locator(".lab-reply").all()}
    assert len(tops) == 1, "the answers are not side by side"
    assert view.locator("img").count() == 0
    assert box.evaluate("box => box === document.activeElement") and box.input_value() == "and fail"
    lab.wait_for_function("() => document.querySelector('.lab-chat .lab-summary').textContent === ''")
    lab.keyboard.press("Enter")
    view.locator(".lab-error").wait_for()
    assert "out of memory" in view.locator(".lab-error").inner_text()
    assert "restart" in view.locator(".lab-error").inner_text()
    assert browser.kernel_value(lab, "asked") == [
        [[message] * 3, [None, "bookings", "style"]] for message in (MESSAGE, "and fail")
    ]
    lab.wait_for_function("() => document.querySelector('.lab-chat .lab-summary').textContent === ''")
    lab.keyboard.press("Enter")
    assert view.locator(".lab-summary").inner_text() == "Type a message first."
    assert browser.kernel_value(lab, "len(asked)") == 2


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_the_widget_is_legible_in_both_themes(lab, theme):
    browser.set_theme(lab, f"JupyterLab {theme}")
    take(lab, f"chat-widget-{theme.lower()}")
    found = Axe().run(lab, context=".lab-chat", options={"runOnly": ["wcag2a", "wcag2aa", "best-practice"]}).response
    assert {"color-contrast", "label"} <= {rule["id"] for rule in found["passes"]}
    assert [rule["id"] for rule in found["violations"]] == []
    small = lab.locator(".lab-chat").evaluate(
        "root => [...root.querySelectorAll('*')].filter(one => parseFloat(getComputedStyle(one).fontSize) < 15).length"
    )
    assert small == 0
    size = lab.locator(".lab-answer").first.evaluate("one => parseFloat(getComputedStyle(one).fontSize)")
    assert size >= 17


def test_an_example_is_sent_by_a_click_and_clear_empties_python_too(lab):
    view = lab.locator(".lab-chat")
    before = view.locator("section").count()
    view.get_by_role("button", name="My violin is missing two strings.").click()
    lab.wait_for_function("count => document.querySelectorAll('.lab-chat section').length > count", arg=before)
    assert browser.kernel_value(lab, "asked[-1][0][0]") == "My violin is missing two strings."
    lab.wait_for_function("() => document.querySelector('.lab-chat .lab-summary').textContent === ''")
    view.get_by_role("button", name="Clear").press("Enter")
    lab.wait_for_function("() => document.querySelectorAll('.lab-chat section').length === 0")
    assert browser.kernel_value(lab, "box.turns") == []


def test_a_page_without_a_kernel_shows_what_was_said(lab, tmp_path):
    box = chat(lambda messages, adapters: [f"{name}: {ODD}" for name in adapters], ["bookings"], MESSAGE, ["Hello?"])
    (tmp_path / "page.html").write_text(page_html(notebook_of(box)), encoding="utf-8")
    page = lab.context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".lab-answer").nth(1).wait_for()
    assert page.locator(".lab-answer").all_inner_texts() == [f"None: {ODD}", f"bookings: {ODD}"]
    assert all(control.is_disabled() for control in page.locator(".lab-chat :is(input, button)").all())
    assert page.locator(".lab-chat :is(input, button)").count() == 4
    assert "Where Python runs" in page.locator(".lab-alone").inner_text()
    assert not page.locator(".lab-still").is_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
