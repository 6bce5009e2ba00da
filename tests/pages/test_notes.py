"""What helps to teach: the notes cells of every page, and notebooks/INSTRUCTORS.md."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from lab_utils import checks
from lab_utils.checks.engine import IN_PLACE
from lab_utils.classroom.presented import EXPLORERS
from lab_utils.folders import ROOT

NOTEBOOKS = ROOT / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
GUIDE = NOTEBOOKS / "INSTRUCTORS.md"
FOLDED = r"<details><summary>For instructors · {}</summary>\n\n(.+)\n\n</details>"
TOP = re.compile(FOLDED.format(r"(\d+) min live, (\d+) min in class"), re.S)
SECTION = re.compile(FOLDED.format(r"(\d+) min"), re.S)
each_page = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells_of(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def is_note(cell) -> bool:
    return "notes" in cell.metadata.get("tags", [])


def headings(cell) -> list[str]:
    """The sections that a cell opens: lines with `## `, outside of fenced code."""
    if cell.cell_type != "markdown" or is_note(cell):
        return []
    prose = re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S)
    return re.findall(r"^## (.+)$", prose, flags=re.M)


def notes_of(path: Path) -> list[str]:
    return [cell.source for cell in cells_of(path) if is_note(cell)]


@each_page
def test_a_page_opens_with_its_note_after_the_title(path):
    cells = cells_of(path)
    assert not is_note(cells[0])
    first = next(number for number, cell in enumerate(cells) if is_note(cell))
    assert first <= 3
    top = TOP.fullmatch(cells[first].source)
    assert top, f"the first note of {path.name} must say the page's minutes live and in class"
    live, alone, text = int(top[1]), int(top[2]), top[3]
    assert live < alone <= 120
    for part in ("**For:**", "**Before:**", "**Leave with:**"):
        assert text.count(part) == 1


@each_page
def test_every_other_note_is_folded_and_says_minutes_question_trouble_and_what_to_skip(path):
    for source in notes_of(path)[1:]:
        found = SECTION.fullmatch(source)
        assert found, source[:100]
        for part in ("**Ask:**", "**Goes wrong:**", "**Late?**"):
            assert found[2].count(part) == 1, source[:200]


@each_page
def test_the_sections_minutes_add_up_to_the_pages(path):
    top, *sections = notes_of(path)
    assert sum(int(SECTION.fullmatch(source)[1]) for source in sections) == int(TOP.fullmatch(top)[1])


@each_page
def test_notes_are_short(path):
    for source in notes_of(path):
        assert 40 <= len(re.sub(r"<[^>]+>", "", source).split()) <= 115, source


@each_page
def test_every_section_with_code_has_one_note(path):
    """A note belongs to the section that was opened last."""
    opened, noted, running = None, [], []
    for cell in cells_of(path):
        opened = (headings(cell) or [opened])[-1]
        if is_note(cell) and SECTION.fullmatch(cell.source):
            noted.append(opened)
        if cell.cell_type == "code" and opened and opened not in running:
            running.append(opened)
    assert len(noted) == len(set(noted))
    assert set(running) <= set(noted)


@each_page
def test_a_note_never_parts_a_figure_from_its_words(path):
    """It follows the title (with its cell for Colab), the cell that opens its section or a note; or it ends one."""
    cells = [*cells_of(path), None]
    for before, cell, after in zip(cells, cells[1:], cells[2:], strict=False):
        if is_note(cell):
            assert cell.cell_type == "markdown"
            above = "colab" in before.metadata.get("tags", []) or before.source.startswith("# ")
            last = after is None or after.source.startswith("## ")  # of its section
            assert above or is_note(before) or headings(before) or last


@each_page
def test_sections_and_pages_that_notes_name_exist(path):
    opened = [heading for cell in cells_of(path) for heading in headings(cell)]
    for source in notes_of(path):
        for number in re.findall(r"[Ss]ection (\d+)", source):
            assert any(heading.startswith(f"{number}. ") for heading in opened), f"section {number}: {source[:200]}"
        for number in re.findall(r"[Pp]age (\d\d)", source):
            assert list(NOTEBOOKS.glob(f"{number}_*.ipynb")), f"page {number}: {source[:200]}"


@each_page
def test_mistakes_that_notes_name_are_those_that_the_checks_name(path):
    used = {name for cell in cells_of(path) for name in re.findall(r'checks\.check\("(\w+)"', cell.source)}
    known = {IN_PLACE.name} | {mistake.name for name in used for mistake in checks.EXERCISES[name].mistakes}
    for source in notes_of(path):
        for quoted in re.findall(r"[Tt]he check (?:calls it|calls that|says) \*([^*]+)\*", source):
            assert quoted in known


def rows_of(minutes: int) -> list[list[str]]:
    """The rows of the guide's run of show of so many minutes: minute, page and section, screen, question, fallback."""
    guide = GUIDE.read_text(encoding="utf-8")
    part = re.search(rf"^##+ [^\n]*\b{minutes} minutes[^\n]*$(.*?)(?=^#|\Z)", guide, flags=re.M | re.S)[1]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert set(map(len, rows)) == {5}
    return rows[2:]


@pytest.mark.parametrize("minutes", [50, 90])
def test_a_run_of_show_fills_its_time_without_a_gap(minutes):
    spans = [tuple(map(int, row[0].split("–"))) for row in rows_of(minutes)]
    assert spans[0][0] == 0 and spans[-1][1] == minutes
    assert all(start < end for start, end in spans)
    assert all(one[1] == other[0] for one, other in pairwise(spans))


@pytest.mark.parametrize("minutes", [50, 90])
def test_a_run_of_show_names_sections_that_exist_and_gives_them_no_more_than_their_notes(minutes):
    for row in rows_of(minutes):
        if row[1] == "no page":
            continue
        page, heading = row[1].split(" · ", 1)
        (path,) = NOTEBOOKS.glob(f"{page}_*.ipynb")
        opened, given = None, None
        for cell in cells_of(path):
            opened = (headings(cell) or [opened])[-1]
            if is_note(cell) and opened == heading and SECTION.fullmatch(cell.source):
                given = int(SECTION.fullmatch(cell.source)[1])
        start, end = map(int, row[0].split("–"))
        assert given is not None, f"no note of page {page} is for {heading!r}"
        assert end - start <= given, f"{row[0]}: the note of {heading!r} says {given} min"


def test_links_commands_and_extras_of_the_guide_exist():
    guide = GUIDE.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", guide):
        assert "://" in link or (NOTEBOOKS / link).exists(), link
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    named = re.findall(r"`make ([a-z-]+)", guide)
    assert named and set(named) <= set(targets)
    for module in re.findall(r"python -m lab_utils\.([\w.]+)", guide):
        place = ROOT / "lab_utils" / module.rstrip(".").replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[(\w+)\]'", guide)) <= set(extras)
    assert len(guide.splitlines()) < 250


def test_the_guides_table_of_pages_states_the_minutes_of_their_notes():
    guide = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[^]]+\]\((\w+\.ipynb)\) \| (\d+) \| (\d+) \|", guide, flags=re.M)
    assert rows == [(path.name, *TOP.fullmatch(notes_of(path)[0]).groups()[:2]) for path in PATHS]


def test_the_guide_names_the_explorers_that_can_be_presented():
    (names,) = re.findall(r"\(names: ([\w, ]+);", GUIDE.read_text(encoding="utf-8"))
    assert names.split(", ") == [one.name for one in EXPLORERS]


def test_the_guides_sessions_are_the_pages_that_they_take():
    """In words and numbers: "Sixteen sessions of 90 minutes (03 takes 100, …) cover one page each"."""
    guide = GUIDE.read_text(encoding="utf-8")
    said = re.search(r"Sixteen sessions of 90 minutes \((.+?)\) cover one page each, 01 to 16", guide)[1]
    longer = {page: int(minutes) for pages, minutes in re.findall(r"([\d, and]+?) takes? (\d+)", said)
              for page in re.findall(r"\d\d", pages)}  # fmt: skip
    minutes = {path.name[:2]: int(TOP.fullmatch(notes_of(path)[0])[2]) for path in PATHS if path.name[:2] not in "00A_"}
    assert len(minutes) == 16 and longer == {page: taken for page, taken in minutes.items() if taken > 90}


def test_numbers_of_pages_in_the_guide_are_pages():
    guide = GUIDE.read_text(encoding="utf-8")
    for number in re.findall(r"\b[Pp]ages? (\d\d)\b", guide):
        assert list(NOTEBOOKS.glob(f"{number}_*.ipynb")), number
