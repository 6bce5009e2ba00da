"""Pages for a class: the notebook behind each page, the presenter's switches, and what stops `make present`."""

import contextlib
import io
import json
import os
import re
import socket

import nbformat
import pytest

from lab_utils import widgets
from lab_utils.classroom import course, present, presented, slides
from lab_utils.errors import LabError
from lab_utils.widgets.budget_explorer import BudgetExplorer
from lab_utils.widgets.explorer import Explorer
from lab_utils.widgets.parameter_explorer import ParameterExplorer

BY_NAME = {shown.name: shown for shown in presented.EXPLORERS}
MAGICS = re.compile(r"^%.*$", flags=re.MULTILINE)


def code_of(path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def run(sources: list[str]) -> dict:
    """The names that cells leave behind, run as plain Python."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for source in sources:
            exec(compile(MAGICS.sub("", source), "cell", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def as_at_first():
    """No test leaves the switch on."""
    yield
    widgets.predict_first(False)


def test_every_explorer_of_the_course_is_presented():
    shown = {path.name for path in presented.NOTEBOOKS.glob("*.ipynb") if any(map(presented._shows, code_of(path)))}
    assert {one.notebook for one in presented.EXPLORERS} == shown
    assert len(BY_NAME) == len(presented.EXPLORERS)


@pytest.mark.parametrize("shown", presented.EXPLORERS, ids=lambda shown: shown.name)
def test_a_page_shows_its_explorer_and_nothing_else(shown):
    silent, last = presented.page_notebook(shown).cells
    committed = code_of(presented.NOTEBOOKS / shown.notebook)
    assert last.source in committed, "the cell that shows the explorer is the committed one"
    assert silent.source.startswith("%%capture\n") and len(re.findall(r"(?:Explorer|Trainer)\(", silent.source)) == 0
    assert not re.search(r"\b(generate|compare_merges|answers_of|fit_to_memory)\(", silent.source), "no long work"


@pytest.mark.parametrize("shown", presented.EXPLORERS, ids=lambda shown: shown.name)
def test_a_page_has_all_that_its_explorer_needs(shown):
    """Where the whole notebook is quick, its explorer is the same: page 01 fills a table in a loop, page 03 trains."""
    silent, last = presented.page_notebook(shown).cells
    variable = last.source.rstrip().splitlines()[-1]
    made = run([silent.source.removeprefix("%%capture\n"), last.source])[variable]
    assert isinstance(made, Explorer)
    if shown.name in ("rank", "lora", "sweep"):
        committed = code_of(presented.NOTEBOOKS / shown.notebook)
        whole = run(committed[: committed.index(last.source) + 1])[variable]
        states = [one.get_state() for one in (made, whole)]
        assert {**states[0], "layout": ""} == {**states[1], "layout": ""}


def test_a_page_runs_and_displays_one_widget(tmp_path):
    path = tmp_path / "parameters.ipynb"
    nbformat.write(presented.page_notebook(BY_NAME["parameters"]), path)
    page = course.execute(path, timeout_seconds=120)
    assert page.failure is None
    silent, last = page.notebook.cells
    assert silent.outputs == []
    assert [output.output_type for output in last.outputs] == ["execute_result"]
    assert "application/vnd.jupyter.widget-view+json" in last.outputs[0].data


def test_a_notebook_without_an_explorer_is_refused():
    with pytest.raises(LabError, match="No cell of 00_start_here"):
        presented.page_notebook(presented.Shown("start", "00_start_here.ipynb", "", ""))


def test_statements_are_taken_one_by_one_and_imports_name_by_name():
    source = "%matplotlib inline\nfrom a import b, c as d\nx = 1\nx.sort()"
    parts = [part.removesuffix("\npass") for part in presented._statements(source)]
    assert parts == ["from a import b", "from a import c as d", "x = 1", "x.sort()"]


def test_the_bar_leads_through_all_pages():
    pages = presented.EXPLORERS
    bars = [presented._bar(one, pages) for one in pages]
    for at, bar in enumerate(bars):
        links = dict(re.findall(r'<a href="([^"]+)" data-key="(.)"', bar))
        wanted = {"/": "i"}
        wanted |= {f"/voila/render/{pages[at - 1].name}.ipynb": "p"} if at else {}
        wanted |= {f"/voila/render/{pages[at + 1].name}.ipynb": "n"} if at + 1 < len(pages) else {}
        assert links == wanted
        keys = re.findall(r'data-key="(.)"', bar)
        assert len(set(keys)) == len(keys) and {"q", "r", "d", "f"} <= set(keys)


def test_reset_all_moves_every_explorer_back_and_opens_its_question():
    one, other = ParameterExplorer(rank=8), BudgetExplorer()
    start = {name: getattr(other, name) for name in other._moved}
    one.rank, one.guess, other.batch_size, other.guess = 64, "19 million", 4, "both fit"
    widgets.reset_all()
    assert (one.rank, one.guess, other.guess) == (8, "", "")
    assert {name: getattr(other, name) for name in other._moved} == start


def test_predict_first_hides_the_result_until_a_guess_is_made():
    explorer = ParameterExplorer()
    assert not explorer.predict_first and not explorer.waits
    explorer.predict_first = True
    assert explorer.waits and explorer.get_state()["predict_first"] is True  # what the browser is told
    explorer.guess = explorer.choices[0]
    assert not explorer.waits
    widgets.reset_all()
    assert explorer.waits, "the switch stays on, the question is open again"


def test_predict_first_for_all_holds_for_those_made_later():
    before = ParameterExplorer()
    widgets.predict_first()
    later = BudgetExplorer()
    assert before.waits and later.waits
    widgets.predict_first(False)
    assert not before.waits and not later.waits and not ParameterExplorer().predict_first


def test_an_explorer_without_choices_has_nothing_to_wait_for():
    explorer = ParameterExplorer(question="", choices=[])
    explorer.predict_first = True
    assert isinstance(explorer, Explorer) and not explorer.waits


def test_a_taken_port_is_named_with_another_to_take(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert present.main(["--port", str(port), "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert f"Port {port} is in use" in error and f"--port {port + 1}" in error


@pytest.mark.parametrize(("main", "arguments"), [(present.main, ["--no-browser"]), (slides.main, ["01"])])
def test_what_is_not_installed_is_named_with_its_command(main, arguments, monkeypatch, capsys):
    monkeypatch.setattr(present.importlib.util, "find_spec", lambda name: None)
    assert main(arguments) == 2
    assert re.search(r"(Voilà|jupyterlab-rise) is not installed.*pip install", capsys.readouterr().err)


def test_an_unknown_explorer_and_an_unknown_page_are_named(capsys):
    assert present.main(["--only", "colour"]) == 2
    assert slides.main(["77"]) == 2
    assert re.search(r"colour[\s\S]*77", capsys.readouterr().err)


def test_slides_are_the_instructors_and_fetch_nothing(tmp_path):
    notebook, settings = slides.write_slides(presented.NOTEBOOKS / "01_rank_one.ipynb", tmp_path)
    kinds = {cell.metadata.slideshow.slide_type for cell in nbformat.read(notebook, as_version=4).cells}
    assert {"slide", "notes"} <= kinds
    [file] = settings.rglob("*.jupyterlab-settings")
    assert json.loads(file.read_text(encoding="utf-8"))["theme"] == "white"  # the default's style asks Google for fonts
    assert "http" not in (notebook.parent / "rise.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("port", [0, -1, 65_536, 10**9])
def test_a_port_that_there_is_not_is_refused(port):
    with pytest.raises(LabError, match=f"There is no port {port}"):
        present.check_port(port)


def test_a_temporary_folder_that_cannot_be_in_a_list_of_folders_is_refused(tmp_path):
    with pytest.raises(LabError, match="set TMPDIR"):
        present.refuse_in_list(tmp_path / f"a{os.pathsep}b")
    present.refuse_in_list(tmp_path / "Kurs [2026] ä #1")


def test_pages_are_written_in_a_folder_of_any_name(tmp_path):
    root, share = presented.write_pages(tmp_path / "Kurs [2026] ä #1 %41", presented.EXPLORERS[:1])
    assert [path.name for path in root.iterdir()] == ["rank.ipynb"]
    assert (share / "voila" / "templates" / "lora-lab" / "tree.html").read_text(encoding="utf-8")
