"""The course runner, held to tiny notebooks made here. Each starts a kernel: about two seconds."""

import re
import sys

import nbformat
import pytest
from built import Fetched, Links
from toys import Asking, Toy, notebook_of

from lab_utils.classroom import course
from lab_utils.classroom.pages import describe, page_html, script
from lab_utils.errors import LabError


def make(folder, name, *cells):
    """Write a notebook; cells that start with # are prose."""
    new = nbformat.v4
    notebook = new.new_notebook(
        cells=[new.new_markdown_cell(text) if text.startswith("#") else new.new_code_cell(text) for text in cells]
    )
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


PICTURE = """import matplotlib
matplotlib.use("module://matplotlib_inline.backend_inline")
import matplotlib.pyplot as plt
plt.plot([1, 2]); plt.show()"""


def test_a_good_course_leaves_pages_with_pictures_and_an_index(tmp_path, capfd):
    prose = "# 00 One\n\n**Question.** Does *it* run?\n\n| | |\n|---|---|\n| Time | 1 min and a half. No GPU. |"
    make(tmp_path / "in", "00_one", prose, "2 + 2", PICTURE)
    make(tmp_path / "in", "01_two", "# 01 Two\n\n[back](00_one.ipynb#One)", "print('second page')")
    out = tmp_path / "site"
    assert course.main(["--notebooks", str(tmp_path / "in"), "--output", str(out)]) == 0
    first, index = (out / "00_one.html").read_text(), (out / "index.html").read_text()
    second = (out / "01_two.html").read_text()
    assert "data:image/png;base64," in first
    assert "second page" in second and 'href="00_one.html#One"' in second
    assert re.search('<a href="00_one.html">00 One</a></h3> <p class="[^"]*">Does it run[?]</p>', index)
    assert "01_two.html" in index and "<span>1 min and a half</span>" in index and "cut short" not in index
    assert "2 of 2 notebooks ran" in capfd.readouterr().out


def test_a_failing_cell_fails_the_course_after_the_other_pages(tmp_path, capfd):
    make(tmp_path / "in", "00_bad", "# Bad", "x = 1", "y = x / 0  # the culprit", "print('never reached')")
    make(tmp_path / "in", "01_good", "# Good", "print('still executed')")
    out = tmp_path / "site"
    assert course.main(["--notebooks", str(tmp_path / "in"), "--output", str(out)]) == 1
    printed = capfd.readouterr()
    assert "FAILED in code cell 2:\n    | y = x / 0  # the culprit" in printed.out
    assert "00_bad.ipynb failed in code cell 2: ZeroDivisionError: division by zero" in printed.err
    assert "1 of 2 notebooks ran" in printed.out
    assert "ZeroDivisionError" in (out / "00_bad.html").read_text()
    assert "still executed" in (out / "01_good.html").read_text()
    assert "failed in code cell 2" in (out / "index.html").read_text()


def test_a_cell_that_runs_over_its_limit_is_failed(tmp_path):
    path = make(tmp_path, "slow", "1", "import time; time.sleep(60)", "2")
    page = course.execute(path, timeout_seconds=2)
    assert page.failure.cell == 2 and "may take 2.0 s" in page.failure.error
    assert len(page.cell_seconds) == 2 and page.seconds < 30


def test_a_cell_that_comes_back_late_is_failed_by_the_clock(tmp_path):
    """nbclient's own limit is whole seconds here (at least 1 s), so only the clock can see 0.2 s."""
    page = course.execute(make(tmp_path, "late", "import time; time.sleep(0.5)"), timeout_seconds=0.2)
    assert page.failure.cell == 1 and "may take 0.2 s" in page.failure.error


def test_a_dead_kernel_is_a_failure_and_its_last_words_are_shown(tmp_path, capfd):
    path = make(tmp_path, "dead", "import os\nos.write(2, b'out of luck')\nos._exit(1)", "1")
    page = course.execute(path)
    assert page.failure.cell == 1 and "kernel died" in page.failure.error and "out of luck" in page.failure.error
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""


def test_passes_share_one_kernel_and_the_environment_arrives(tmp_path):
    path = make(tmp_path, "again", "import os\nseen = globals().get('seen', []) + [os.environ['LORA_LAB_X']]", "seen")
    steps = []
    page = course.execute(
        path, passes=2, environment={"LORA_LAB_X": "a"}, progress=lambda cell, cells: steps.append((cell, cells))
    )
    assert page.failure is None
    assert page.notebook.cells[1].outputs[0].data["text/plain"] == "['a', 'a']"
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_second_pass_is_named_when_it_fails(tmp_path):
    path = make(tmp_path, "once", "import builtins", "assert not hasattr(builtins, 'done'); builtins.done = 1")
    assert course.execute(path).failure is None
    failure = course.execute(path, passes=2).failure
    assert failure.cell == 2 and "run number 4 of 4" in failure.error


def test_each_cell_can_be_repeated_before_the_next(tmp_path):
    path = make(tmp_path, "rows", "seen = globals().get('seen', '') + 'a'", "seen += 'b'", "seen")
    for passes, seen in ((1, "'aabb'"), (2, "'abaabb'")):
        page = course.execute(path, passes=passes, repeats=2)
        assert page.failure is None and page.notebook.cells[2].outputs[0].data["text/plain"] == seen


def test_the_kernel_is_this_python_in_the_notebooks_folder(tmp_path):
    path = make(tmp_path, "where", "import os, sys\nprint(sys.executable)\nprint(os.getcwd())")
    text = course.execute(path).notebook.cells[0].outputs[0].text
    assert text.split() == [sys.executable, str(tmp_path.resolve())]


def test_select_by_number_and_name(tmp_path):
    for name in ("A_museum", "00_start", "08_qlora", "10_merge"):
        make(tmp_path, name, "1")

    def names(only):
        return [path.stem for path in course.select(tmp_path, only)]

    assert names([]) == ["00_start", "08_qlora", "10_merge", "A_museum"]
    assert names(["10", "0"]) == ["00_start", "10_merge"]
    assert names(["A"]) == names(["a"]) == ["A_museum"]
    assert names(["08_qlora"]) == ["08_qlora"]
    with pytest.raises(LabError, match=r"No notebook '99'\. There are: 00_start, 08_qlora, 10_merge, A_museum"):
        course.select(tmp_path, ["99"])
    with pytest.raises(LabError, match="no notebooks"):
        course.select(tmp_path / "empty", [])


def test_describe_takes_the_first_question():
    new = nbformat.v4
    badge = "[![Colab](https://x.y/z?a=b)](https://x.y)"
    prose = f"# 05 · Quantization\n\n{badge}\n\n> **What is lost when 16 bits become 8?**"
    notebook = new.new_notebook(cells=[new.new_markdown_cell(prose)])
    assert describe(notebook) == ("05 · Quantization", "What is lost when 16 bits become 8?")
    assert describe(new.new_notebook()) == ("Untitled", "")
    notebook.cells[0].source = "# 11\n\n**It is old. Is it: good?** Who knows?"
    assert describe(notebook) == ("11", "It is old. Is it: good?")


def test_fetched_sees_what_nbconvert_would_fetch():
    from nbconvert import HTMLExporter

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("![b](https://x.y/b.svg)")])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    found = " ".join(Fetched(HTMLExporter(template_name="lab").from_notebook_node(notebook)[0]).found)
    for part in ("require.min.js", "mathjax", "mermaid", "unpkg.com", "https://x.y/b.svg"):
        assert part in found, part
    style = "<style>@import 'a.css'; b {background: url(c.png)} i {background: url(data:image/png;base64,)}</style>"
    assert Fetched(style).found == ["@import 'a.css'", "url(c.png)"]


WIDGETS = """import ipywidgets
ipywidgets.VBox([ipywidgets.IntSlider(4, description="rank"), ipywidgets.HTML("<b>bold</b>")])"""


def test_an_executed_page_fetches_nothing(tmp_path):
    prose = "# 03 Offline\n\n[![Open in Colab](https://x.y/badge.svg)](https://x.y)\n\nSo $a_1 * b < c$ and ![p](p.png)"
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    path = make(tmp_path, "03_offline", prose, WIDGETS)
    out = tmp_path / "site"
    out.mkdir()
    page = course.execute(path)
    text = course.write_page(page, out).read_text()
    assert Fetched(text).found == []
    assert '<a href="https://x.y">Open in Colab</a>' in text and "$a_1 * b &lt; c$" in text
    assert "data:image/png;base64,iVBORw==" in text
    assert "rank: 4" in text and "<b>bold</b>" in text
    assert re.findall("<script[^>]*>.*?</script>", text, flags=re.DOTALL) == [script()]  # the site's own and no other


def test_a_page_with_an_explorer_fetches_nothing():
    text = page_html(notebook_of(Toy()))
    assert Fetched(text).found == [] and text.count('<script type="module">') == 2


def test_speakers_notes_and_the_setup_for_colab_are_not_in_a_page():
    new = nbformat.v4
    notebook = new.new_notebook(
        cells=[
            new.new_markdown_cell("# Is this the title?", metadata={"tags": ["notes"]}),
            new.new_markdown_cell("# The title\n\nIs this asked?"),
            new.new_code_cell("install()", metadata={"tags": ["colab"]}),
            new.new_code_cell("solve()", metadata={"tags": ["exercise"]}),
        ]
    )
    text = page_html(notebook)
    assert describe(notebook) == ("The title", "Is this asked?")
    assert "<title>The title · LoRA Lab</title>" in text and "solve" in text
    assert "Is this the title" not in text and "install" not in text
    assert len(notebook.cells) == 4


def test_links_lead_within_the_site_and_nowhere_else_on_the_disk():
    prose = "# A\n\n[b](b.ipynb#1.-One) [gone](c.ipynb) [data](../data/README.md) [web](https://a.org) [up](#A)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose)])
    leads = Links(page_html(notebook, stem="a", titles={"a": "A", "b": "B"}).partition("<main")[2]).leads
    assert leads[1:4] == ["b.html#1.-One", "https://a.org", "#A"]
    assert leads[4:] == ["index.html", "b.html"]
    alone = page_html(notebook)
    assert "../data/README.md" in alone and "index.html" not in alone


def test_a_page_is_fixed_for_the_ear_and_the_keyboard():
    new = nbformat.v4
    figure = new.new_output("display_data", data={"image/png": "iVBORw=="})
    prose = "| | |\n|---|---|\n| Time | short |\n\n| | b |\n|---|---|\n| 1 | 2 |"
    notebook = new.new_notebook(
        cells=[
            new.new_markdown_cell(prose),
            new.new_code_cell("plot()", outputs=[figure]),
            new.new_markdown_cell("*In words: a line.*"),
            new.new_code_cell("plot()", outputs=[figure]),
        ]
    )
    text = page_html(notebook).partition("<main")[2]
    assert re.findall(r'alt="([^"]*)"', text) == [
        "Figure: described in the text below",
        "Figure drawn by the code above",
    ]
    assert re.findall("<th[^>]*>", text) == ["<thead>", "<th>"]  # an empty heading is gone, an empty cell heads nothing
    assert '<div class="jp-Cell-inputWrapper">' in text


def test_the_index_says_what_is_a_trial_and_which_explorers_live(tmp_path):
    pages = []
    notebooks = {
        "01_a": notebook_of(Toy(), Asking()),
        "02_b": notebook_of(Asking()),
        "A_c": nbformat.v4.new_notebook(),
    }
    for stem, notebook in notebooks.items():
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"# {stem} · Page\n\n## The <part> of {stem}"))
        pages.append(course.Page(tmp_path / f"{stem}.ipynb", notebook, [61.0]))
        course.write_page(pages[-1], tmp_path)
    text = course.write_index(pages, tmp_path, shortened=True).read_text()
    assert "cut short" in text and text.count("executed in 1 min 01 s") == 3
    assert re.findall(r'>(\w+)</span> Page</a>|(explorer [a-z ]+ here)', text) == [
        ("01_a", ""), ("", "explorer answers here"), ("02_b", ""), ("", "explorer is a picture here"), ("A_c", ""),
    ]  # fmt: skip
    assert re.findall('<li><a href="(.*?)#.*?">(.*?)</a></li>', text) == [
        ("01_a.html", "01_a · The  of 01_a"),
        ("02_b.html", "02_b · The  of 02_b"),
        ("A_c.html", "A_c · The  of A_c"),
    ]
