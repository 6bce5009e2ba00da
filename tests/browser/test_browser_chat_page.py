"""The chat page in a real browser, with answers that are stubs and the network shut (a quarter of a minute).

Pictures in light and dark are left in tests/screenshots/.
"""

import socket
import time

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe
from chat_stubs import BOOKING, MESSAGE, ODD, PIRATE, take
from servers import free_ports

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served():
    """(address, messages that were asked, outside addresses that the server's process called) of a page with stubs."""
    from lab_utils.serving import chat_page

    asked, outside, connect = [], [], socket.socket.connect

    def watched(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            outside.append(address)
            raise OSError("no network in this test")
        return connect(self, address)

    def answers(messages, adapters):
        asked.append((messages, adapters))
        time.sleep(0.3)
        if "fail" in messages[0]:
            raise RuntimeError("out of memory")
        texts = {None: ODD, "bookings": BOOKING, "style": PIRATE}
        return [texts[name] for name in adapters]

    [port] = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        page = chat_page.build(answers, ["bookings", "style"], [MESSAGE], note="A note.")
        yield chat_page.serve(page, port), asked, outside
        page.close()


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as chromium:
        yield chromium


@pytest.fixture
def visit(served, chromium):
    """A function that opens the page in a colour scheme; `page.refused` holds its requests to anywhere else."""
    contexts = []

    def open_page(scheme="light"):
        contexts.append(chromium.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 800}))
        page = contexts[-1].new_page()
        page.refused, page.errors = [], []

        def gate(route):
            if route.request.url.startswith(served[0]):
                return route.continue_()
            page.refused.append(route.request.url)
            return route.abort()

        page.route("**/*", gate)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(served[0])
        page.get_by_label("message", exact=True).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


def choose(page, name: str) -> None:
    """Choose who answers, by keyboard; the focus must be on the choice, which opens it.

    The page marks a choice some time after its key: a key pressed before it does goes too far.
    """
    active = page.locator("[role=option].active")
    for _ in range(8):
        passed = active.get_attribute("aria-label")
        if passed == name:
            break
        page.keyboard.press("ArrowDown")
        page.locator(f"[role=option].active:not([aria-label='{passed}'])").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("name => document.querySelector('[aria-label=\"Who answers\"]').value === name", arg=name)


def press_until(page, key: str, selector: str) -> None:
    """Press a key until the focus is on `selector`."""
    for _ in range(12):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{key} does not lead to {selector}")


def test_the_page_answers_by_keyboard_alone(visit, served):
    _, asked, outside = served
    page = visit()
    asked.clear()
    page.wait_for_function("() => document.activeElement.matches('textarea')")  # where the reader starts
    page.keyboard.type(MESSAGE)
    page.keyboard.press("Enter")
    page.locator(".lab-answer").nth(2).wait_for()
    assert page.locator(".lab-answer").all_inner_texts() == [ODD, BOOKING, PIRATE]
    assert page.locator(".lab-reply b").all_inner_texts() == ["base", "bookings", "style"]
    page.wait_for_function("() => document.activeElement.matches('textarea:not(:disabled)')")
    press_until(page, "Shift+Tab", "[aria-label='Who answers']")
    choose(page, "style")
    press_until(page, "Tab", "textarea")
    page.keyboard.type("My violin is missing two strings.")
    page.keyboard.press("Enter")
    page.locator(".lab-answer").nth(3).wait_for()
    assert page.locator(".lab-answer").nth(3).inner_text() == PIRATE
    assert asked == [
        ([MESSAGE] * 3, [None, "bookings", "style"]), (["My violin is missing two strings."], ["style"]),
    ]  # fmt: skip
    assert page.refused == [] and page.errors == [] and outside == []
    assert page.locator(".lab-answer img").count() == 0


def test_an_error_is_told_in_the_page_and_the_next_message_is_answered(visit, served):
    page = visit()
    page.get_by_label("message", exact=True).fill("fail")
    page.keyboard.press("Enter")
    page.get_by_text("out of memory").wait_for()
    page.get_by_text(MESSAGE).first.wait_for(state="detached")  # the examples are on an empty page only
    page.wait_for_function("() => document.activeElement.matches('textarea:not(:disabled)')")
    page.keyboard.type("again")
    page.keyboard.press("Enter")
    page.locator(".lab-answer").nth(2).wait_for()


def test_an_example_can_be_clicked(visit, served):
    page = visit()
    page.get_by_text(MESSAGE).click()
    page.locator(".lab-answer").nth(2).wait_for()
    assert served[1][-1] == ([MESSAGE] * 3, [None, "bookings", "style"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_legible_in_light_and_dark(visit, scheme):
    page = visit(scheme)
    take(page, f"chat-page-{scheme}-start")
    page.get_by_label("message", exact=True).fill(MESSAGE)
    page.keyboard.press("Enter")
    page.locator(".lab-answer").nth(2).wait_for()
    page.wait_for_timeout(800)  # Gradio fades messages in
    take(page, f"chat-page-{scheme}")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part < 60)")
    assert dark == (scheme == "dark")
    found = Axe().run(page, context=".lab-replies", options={"runOnly": ["color-contrast"]}).response
    assert found["passes"] and found["violations"] == []
    names = Axe().run(page, options={"runOnly": ["label", "button-name", "aria-input-field-name"]}).response
    assert [rule["id"] for rule in names["violations"]] == []
    assert page.locator(".lab-answer").first.evaluate("one => parseFloat(getComputedStyle(one).fontSize)") >= 17
    assert page.refused == []
