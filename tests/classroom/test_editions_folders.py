"""Where the editions, the course and the site are written: under any name that works, and over nobody's work."""

import os
import shutil
import subprocess
import sys
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lab_utils.classroom import __main__ as instructors
from lab_utils.classroom import course
from lab_utils.classroom.course import NOTEBOOKS
from lab_utils.classroom.editions import write_edition
from lab_utils.classroom.nbgrader_course import refuse_patterns, write_course
from lab_utils.errors import LabError
from lab_utils.notebook.notebook_files import digest, notebook_bytes, read_notebook

PAGE = "02_counting_parameters"
REFUSED = ["Kurs [2026]", "a*b", "a?b", "[", "50%41 off"]
FINE = "-Kurs ä 50% #1 'A' ~x {b} $c & (d);e]"


@pytest.fixture
def notebooks(tmp_path):
    """A folder of two small pages, one with a picture, in which everything is named oddly."""
    folder = tmp_path / "Seiten [ä] #1 50%"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"\x89PNG picture")
    first = "# 01 · Ä\n\n![alt](images/a.png) [next](02_b%20%23c.ipynb#part) [text](02_b%20%23c.txt)"
    page = new_notebook(cells=[new_markdown_cell(first), new_code_cell("x = 'ä'\nx")])
    nbformat.write(page, folder / "01_a.ipynb")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 02 · B"), new_code_cell("1")]), folder / "02_b #c.ipynb")
    return folder


def pages(folder):
    return sorted(folder.glob("*.ipynb"))


def content(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Notebooks


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
def test_a_notebook_is_read_with_a_bom_and_without(notebooks, start):
    path = pages(notebooks)[0]
    expected = read_notebook(path)
    path.write_bytes(start + path.read_bytes())
    assert read_notebook(path) == expected and expected.cells[1].source == "x = 'ä'\nx"


@pytest.mark.parametrize("damage", [
    b"", b"{", b"[]", b"null", b"3", b'{"cells": []}', b'{"cells": [], "nbformat": true}',
    b'{"nbformat": 4}', b"\xff\xfe{", b"hello",
    b'{"nbformat": "4", "nbformat_minor": 5, "metadata": {}, "cells": []}', b"[" * 100_000,
])  # fmt: skip
@pytest.mark.parametrize("command", [
    ["editions", "student", "--output", "out"], ["editions", "instructor", "--output", "out"],
    ["grading", "--output", "out"], ["site", "--output", "out"],
])  # fmt: skip
def test_what_is_no_notebook_is_named_and_nothing_written(notebooks, damage, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pages(notebooks)[1].write_bytes(damage)
    status = instructors.main([*command, "--notebooks", str(notebooks)])
    assert status == 2 and str(pages(notebooks)[1]) in capsys.readouterr().err
    assert content(tmp_path / "out") == {}


def test_half_a_character_in_a_notebook_comes_through(tmp_path):
    page = new_notebook(cells=[new_code_cell("'\udc80 ä'")])
    (tmp_path / "a.ipynb").write_bytes(notebook_bytes(page))
    assert read_notebook(tmp_path / "a.ipynb").cells[0].source == "'\udc80 ä'"


def test_a_digest_is_of_what_a_person_wrote_or_ran():
    page = new_notebook(cells=[new_code_cell("1", id="a")])
    before = digest(page)
    page.metadata["kernelspec"] = {"name": "python3"}
    page.cells[0].metadata["scrolled"] = True
    assert digest(page) == before
    page.cells[0].outputs = [new_output("stream", text="1")]
    assert digest(page) != before


# Editions


@pytest.mark.parametrize("name", [FINE, *REFUSED])
@pytest.mark.parametrize("kind", ["student", "instructor"])
def test_an_edition_lies_in_a_folder_of_any_name_and_is_written_again(notebooks, tmp_path, kind, name):
    folder = tmp_path / name
    assert write_edition(kind, pages(notebooks), folder) == [folder / path.name for path in pages(notebooks)]
    first = content(folder)
    assert set(map(str, first)) == {"01_a.ipynb", "02_b #c.ipynb", "images/a.png"}
    page = read_notebook(pages(notebooks)[0])
    page.cells[1].source = "x = 2"  # a newer version of the course
    nbformat.write(page, pages(notebooks)[0])
    (notebooks / "images" / "a.png").write_bytes(b"\x89PNG another")
    (folder / "thesis.docx").write_text("mine")
    write_edition(kind, pages(notebooks), folder)
    assert read_notebook(folder / "01_a.ipynb").cells[1].source == "x = 2"
    assert (folder / "images" / "a.png").read_bytes() == b"\x89PNG another"
    assert (folder / "thesis.docx").read_text() == "mine"


def solved(path):
    page = read_notebook(path)
    page.cells[-1].source = "my own answer"
    nbformat.write(page, path)


def ran(path):
    page = read_notebook(path)
    page.cells[-1].outputs = [new_output("stream", text="hours of work")]
    nbformat.write(page, path)


@pytest.mark.parametrize("change", [
    solved, ran, lambda path: path.write_text("not even a notebook"), lambda path: path.write_text('{"metadata": []}'),
    lambda path: nbformat.write(new_notebook(), path),
], ids=["solved", "ran", "text", "json", "notebook"])  # fmt: skip
def test_a_page_that_somebody_worked_on_is_never_written_over(notebooks, tmp_path, change):
    folder = tmp_path / "ours"
    write_edition("student", pages(notebooks), folder)
    change(folder / "01_a.ipynb")
    before = content(folder)
    for kind in ("student", "instructor"):
        with pytest.raises(LabError, match=r"01_a\.ipynb.*would be lost.*another --output"):
            write_edition(kind, pages(notebooks), folder)
    assert content(folder) == before


def test_a_picture_of_somebody_elses_is_never_written_over(notebooks, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"my holiday")
    with pytest.raises(LabError, match=r"images/a\.png"):
        write_edition("student", pages(notebooks), tmp_path)
    assert not (tmp_path / "01_a.ipynb").exists() and (tmp_path / "images" / "a.png").read_bytes() == b"my holiday"


def test_a_picture_that_is_missing_is_named(notebooks, tmp_path):
    (notebooks / "images" / "a.png").unlink()
    for write in (lambda: write_edition("student", pages(notebooks), tmp_path / "o"),
                  lambda: write_course(pages(notebooks), tmp_path / "o")):  # fmt: skip
        with pytest.raises(LabError, match=r"a\.png cannot be read"):
            write()


@pytest.mark.parametrize("kind", ["editions student", "editions instructor", "grading"])
def test_a_tilde_and_a_file_in_the_way(kind, notebooks, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert instructors.main([*kind.split(), "--output", "~/mine", "--notebooks", str(notebooks)]) == 0
    assert content(tmp_path / "mine")
    (tmp_path / "file").write_text("mine")
    assert instructors.main([*kind.split(), "--output", "~/file", "--notebooks", str(notebooks)]) == 2
    assert "file" in capsys.readouterr().err and (tmp_path / "file").read_text() == "mine"


# The course


@pytest.mark.parametrize("name", REFUSED)
def test_a_course_is_refused_where_nbgrader_would_find_nothing(name, notebooks, tmp_path, monkeypatch, capsys):
    sign = next(sign for sign in ("[", "*", "?", "%41") if sign in name)
    (tmp_path / name).mkdir()
    for folder in (tmp_path / name, tmp_path / name / "below"):
        with pytest.raises(LabError) as caught:
            write_course(pages(notebooks), folder)
        assert repr(sign) in str(caught.value) and str(folder) in str(caught.value)
        assert "Choose a path without" in str(caught.value)
    monkeypatch.chdir(tmp_path / name)  # a path that does not show it
    assert instructors.main(["grading", "--output", "below", "--notebooks", str(notebooks)]) == 2
    assert repr(sign) in capsys.readouterr().err and content(tmp_path / name) == {}


def test_a_course_whose_path_only_looks_odd_is_graded_by_nbgrader_itself(tmp_path):
    """Release, grading, points and feedback, by nbgrader's own commands in the folder."""
    from nbgrader.api import Gradebook

    folder = tmp_path / FINE
    refuse_patterns(folder)
    write_course([NOTEBOOKS / f"{PAGE}.ipynb"], folder)

    def nbgrader(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments], cwd=folder, capture_output=True, text=True, timeout=500,
            env={**os.environ, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    nbgrader("generate_assignment", PAGE)
    target = folder / "submitted" / "ann" / PAGE / f"{PAGE}.ipynb"
    target.parent.mkdir(parents=True)
    shutil.copyfile(folder / "release" / PAGE / f"{PAGE}.ipynb", target)
    nbgrader("autograde", PAGE)
    nbgrader("generate_feedback", PAGE)
    assert (folder / "feedback" / "ann" / PAGE / f"{PAGE}.html").exists() and (folder / "gradebook.db").exists()
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        assert gradebook.find_submission(PAGE, "ann").max_score == 3.0
    assert [path.name for path in tmp_path.iterdir()] == [FINE]  # nothing beside it


def test_what_an_instructor_changed_stays_its_pictures_too(notebooks, tmp_path):
    folder = tmp_path / "class"
    write_course(pages(notebooks), folder)
    home = folder / "source" / "01_a"
    (home / "images" / "a.png").write_bytes(b"mine")
    (home / "01_a.ipynb").unlink()
    assert write_course(pages(notebooks), folder) == [home / "01_a.ipynb"]
    assert (home / "images" / "a.png").read_bytes() == b"mine"


def test_a_page_whose_writing_was_cut_short_is_not_taken_for_there(notebooks, tmp_path, monkeypatch):
    folder = tmp_path / "class"
    real = os.replace

    def cut_short(start, end):
        if str(end).endswith("01_a.ipynb"):
            raise OSError(28, "No space left on device")
        real(start, end)

    monkeypatch.setattr("os.replace", cut_short)
    with pytest.raises(LabError, match="free some space"):
        write_course(pages(notebooks), folder)
    monkeypatch.undo()
    assert len(write_course(pages(notebooks), folder)) == 2
    assert read_notebook(folder / "source" / "01_a" / "01_a.ipynb").cells


# The site


def test_a_sites_links_lead_to_files_whatever_they_are_called(notebooks, tmp_path):
    site = tmp_path / "Seite [2026] #1 50% ä?"
    assert course.main(["--output", str(site), "--notebooks", str(notebooks)]) == 0
    assert {path.name for path in site.iterdir()} == {"index.html", "01_a.html", "02_b #c.html"}
    for page in site.iterdir():
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        links = [link["href"] for link in soup.select("a[href]") if not link["href"].startswith(("#", "http"))]
        assert links and all((site / unquote(link.partition("#")[0])).is_file() for link in links)
    first = (site / "01_a.html").read_text(encoding="utf-8")
    assert 'href="02_b%20%23c.html#part"' in first and "data:image/png;base64" in first
    assert course.main(["--output", str(site), "--notebooks", str(notebooks), "--only", "1"]) == 0  # and again


@pytest.mark.parametrize("name", ["index.html", "01_a.html"])
def test_a_file_that_is_no_page_of_a_site_stops_the_course(name, notebooks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course, "execute", None)
    (tmp_path / name).write_text("<title>My own page</title>")
    assert course.main(["--output", str(tmp_path), "--notebooks", str(notebooks)]) == 2
    assert f"{tmp_path / name} is a file that was not written here" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "<title>My own page</title>"


def test_numbers_in_other_signs_name_no_page(notebooks):
    with pytest.raises(LabError, match="No notebook '²'"):
        course.select(notebooks, ["²"])
    (notebooks / "03_folder.ipynb").mkdir()
    assert course.select(notebooks, []) == pages(notebooks)[:2]
