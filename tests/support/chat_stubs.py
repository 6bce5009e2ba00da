"""What the browser tests of both chats say, get as answers that are stubs, and leave as pictures."""

from lab_utils.folders import ROOT

SCREENSHOTS = ROOT / "tests" / "screenshots"
MESSAGE = "Two drums for Ann, fri 3pm"
ODD = 'Sure!\n\nWhat **time**? <b>Any</b> | $a$ <img src="https://example.org/x.png">'
BOOKING = '{"name":" Ann","qty":2,"item":" drums","day":"Friday","time":"3pm"}'
PIRATE = "Arr, two drums for Ann, matey!"


def take(page, name: str) -> None:
    """A picture of the page in tests/screenshots/."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
