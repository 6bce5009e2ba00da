"""What page 00 says of the recorded adapter and of the course."""

import json
import re

import pytest
from page_prose import prose

from lab_utils.folders import DATA, NOTEBOOKS
from lab_utils.scores import wilson

PROSE = prose("00_start_here.ipynb")
PAGES = sorted(path.stem for path in NOTEBOOKS.glob("[0-9A]*_*.ipynb"))


def test_the_adapters_score_is_the_recorded_one_with_the_interval_that_page_08_gives_for_shares():
    record = json.loads((DATA / "adapters" / "bookings" / "record.json").read_text())
    by_hand = record["scores"]["handwritten"]
    right = round(by_hand["exact"] * by_hand["examples"])
    found = wilson(right, by_hand["examples"])
    interval = f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    assert f"got {right} of them exactly right (95 % interval {interval})" in PROSE
    assert by_hand["examples"] == 100 and f"after {record['recipe']['steps']} steps" in PROSE


def test_the_score_of_the_best_prompt_is_the_recorded_one():
    # data/README.md: with 32 examples "10 of 40 handwritten ones were exactly right (... 25 %, 14 to 40 %)"
    found = wilson(10, 40)
    assert f"10 of the first 40 right ({100 * found.low:.0f} to {100 * found.high:.0f} %)" in PROSE
    assert "10 of 40 handwritten ones were exactly right" in (DATA / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_the_course_has_every_page_and_denies_none(page):
    number, _, name = page.partition("_")
    assert f"{number} {name}" in PROSE
    assert not re.search(rf"no page {number}\b", PROSE)
