"""What a learner reads after a NameError, held to pages made here; no kernel but in the last test."""

import subprocess
import sys

import pytest
from shells import bare, listener, new_session, write
from traitlets.config import PyFileConfigLoader

from lab_utils.classroom import course
from lab_utils.errors import LabError
from lab_utils.notebook import name_errors

MENU = "Run ▸ Run All Above Selected Cell"
PAGE = (
    "# 01 Drinks\n\n```\n# no heading\n```",
    "%matplotlib inline\nimport math",
    "## Prices\n\nSome prose.",
    "price = math.sqrt(4)\nfactor = 3",
    "table = price * factor",
    "### Deposit [back](x)",
    "if table:\n    table = 7",
    "table + 1",
    "def later():\n    return far\nlater()",
    "far = 9",
)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An IPython session in a folder with one page, with nothing run."""
    write(tmp_path / "01_drinks.ipynb", PAGE)
    session = new_session(tmp_path, monkeypatch)
    session.run_line_magic = lambda *_: None  # no pictures here
    assert name_errors.install(session)
    yield session
    session.restore_sys_module_state()


@pytest.fixture
def said(shell, capsys):
    return listener(shell, capsys)


def test_the_paragraph_names_the_cell_its_heading_and_its_first_line(said):
    assert said("table = price * factor").endswith(
        "NameError: name 'price' is not defined\n\n"
        "`price` is made above, by code cell 2 of 01_drinks.ipynb, under \"Prices\". It begins with "
        "`price = math.sqrt(4)` and has not run since the kernel was started. Run it first and then this cell again, "
        f"or run all cells above it at once: {MENU}.\n"
    )


def test_the_traceback_above_it_is_ipythons_own(shell, said):
    with_advice = said("1\nprice")
    name_errors.unload_ipython_extension(shell)
    plain = said("1\nprice")
    assert "----> 2 price" in plain and "is made" not in plain
    assert bare(with_advice).startswith(bare(plain).rstrip("\n"))
    name_errors.load_ipython_extension(shell)
    assert "is made above" in said("table = price * factor")


@pytest.mark.parametrize("cells, words", [
    # The first code cell is under the title; what a fenced block holds is not a heading.
    (["price = math.sqrt(4)\nfactor = 3"], 'by code cell 1 of 01_drinks.ipynb, under "01 Drinks". It begins with `%'),
    # A cell that may not bind the name is passed over for the one that surely does.
    (["table + 1"], "made above, by code cell 3 "),
    # It has run, but broke off before the name.
    (["price = math.sqrt(4)\nfactor = 3", "table = price * factor"], "and did not get that far. Run it first"),
    # In the body of a function of the page, and only a later cell makes it.
    (["def later():\n    return far\nlater()"], "made further down, by code cell 7 of 01_drinks.ipynb"),
    # The cell was edited, so its place is unknown; what ran before tells the page.
    (["import math", "%matplotlib inline\nimport math", "print(factor)"], "made above, by code cell 2 "),
    (["%matplotlib inline\nimport math", "pirce"], "No cell of 01_drinks.ipynb makes `pirce`: is it spelled right?"),
    (["print(mine)\nmine = 3"], f"by a cell that has not run since the kernel was started. Run that one first, or run "
     f"all cells above it at once: {MENU}."),
    (["%matplotlib inline\nimport math", "print(mine)\nmine = 3"], "This very cell makes `mine`, but only after"),
    (["unheard_of"], "`unheard_of` is made by a cell that has not run since the kernel was started."),
    (["raise KeyboardInterrupt"], "Interrupted: this cell has not done its work. Run it again"),
    (["import no_such_package.part"], f"The package no_such_package is not installed in this kernel's Python "
     f"({sys.executable}). Stop JupyterLab and start it with `make lab`"),
    (["from lab_utils import no_such_module"], "the course's own package lab_utils do not belong together"),
    (["import lab_utils.no_such_module"], "Update the whole course, then restart the kernel"),
])  # fmt: skip
def test_what_it_says(said, cells, words):
    assert words in said(*cells).rpartition("\n\n")[2]


@pytest.mark.parametrize("source", [
    "def f():\n    print(a)\n    a = 1\nf()",  # a variable of the function
    "raise NameError('by hand')",
    "from math import no_such_function",
    "1 / 0",
    "exec('price', {})",  # not the page's own names
])
def test_where_no_cell_would_fix_it_nothing_is_added(shell, said, source):
    shown = said(source)
    name_errors.unload_ipython_extension(shell)
    assert bare(shown) == bare(said(source)) and "Error" in shown


def test_on_colab_it_names_colabs_menu_and_first_cell(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert said("table = price * factor").endswith("or run all cells above it at once: Runtime ▸ Run before.\n")
    assert "Run the page's first code cell: it installs what Colab lacks" in said("import no_such_package")


def test_the_page_is_found_among_others(said, tmp_path, monkeypatch):
    """By the failed cell, then by the kernel's own name, then by what has run; broken files are passed over."""
    (tmp_path / "00_half.ipynb").write_text('{"cells": [')
    write(tmp_path / "00_other.ipynb", ["# Other", "unrelated = 1", "price = 'other'"])
    assert "code cell 2 of 01_drinks.ipynb" in said("table = price * factor")
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "00_other.ipynb"))
    assert "code cell 2 of 00_other.ipynb" in said("print(price, 'edited')")
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "gone.ipynb"))
    assert "No cell of 00_other.ipynb makes `factor`" in said("unrelated = 1", "print(factor)")


def test_elsewhere_the_courses_own_pages_are_searched(said, tmp_path, monkeypatch):
    (tmp_path / "course").mkdir()
    (tmp_path / "01_drinks.ipynb").rename(tmp_path / "course" / "01_drinks.ipynb")
    assert "code cell 2 of 01_drinks.ipynb" in said("table = price * factor")


def test_where_ipython_cannot_draw_its_traceback_pythons_own_is_shown(shell, said, monkeypatch):
    """As after an interrupt in an instruction that has no line number."""

    def undrawable(*_, **__):
        assert isinstance(None, int)

    monkeypatch.setattr(shell.InteractiveTB, "structured_traceback", undrawable)
    shown = said("raise KeyboardInterrupt")
    assert shown.startswith("Traceback (most recent call last):") and "\nKeyboardInterrupt\n" in shown
    assert "Run it again before you go on" in shown and "isinstance" not in shown


def test_advice_that_fails_leaves_the_traceback(shell, said, monkeypatch):
    monkeypatch.setattr(name_errors, "_find_page", lambda *_: 1 / 0)
    shown = said("price")
    assert shown.endswith("NameError: name 'price' is not defined\n") and "ZeroDivision" not in shown
    monkeypatch.undo()
    assert "is made" in said("table = price * factor")  # the handler is still there


def test_another_handler_stays(shell, said):
    shell.set_custom_exc((ValueError,), lambda *_, **__: print("another's"))
    assert not name_errors.install(shell)
    name_errors.unload_ipython_extension(shell)
    assert said("raise ValueError") == "another's\n"


def test_importing_the_package_outside_of_ipython_installs_nothing():
    code = (
        "import sys, lab_utils; print('lab_utils.notebook.name_errors' in sys.modules); "
        "from lab_utils.notebook import name_errors; print(name_errors.install())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\nFalse\n"


def test_every_start_is_configured_once_and_what_stood_there_stays(tmp_path):
    (tmp_path / "ipython_config.py").write_text("c.InteractiveShellApp.extensions = ['autoreload']")
    for _ in range(2):
        assert name_errors.at_every_start(tmp_path) == tmp_path / "ipython_config.py"
    config = PyFileConfigLoader("ipython_config.py", path=str(tmp_path)).load_config()
    assert config.InteractiveShellApp.extensions == ["autoreload", "lab_utils.notebook.name_errors"]


def test_a_fresh_kernel_explains_its_first_error(tmp_path):
    """As after a restart: nothing was imported before."""
    name_errors.at_every_start(tmp_path / "ipython" / "profile_default")
    write(tmp_path / "page.ipynb", ["# One", "price", "price = 2"])
    failure = course.execute(tmp_path / "page.ipynb", environment={"IPYTHONDIR": str(tmp_path / "ipython")}).failure
    assert "by code cell 2 of page.ipynb" in failure.error


def test_a_pages_own_import_is_enough(tmp_path):
    write(tmp_path / "page.ipynb", ["# One", "import lab_utils\nget_ipython().custom_exceptions"])
    page = course.execute(tmp_path / "page.ipynb")
    assert "KeyboardInterrupt" in page.notebook.cells[1].outputs[0].data["text/plain"]


def test_the_configuration_is_utf_8_and_what_a_person_wrote_stays(tmp_path, monkeypatch):
    """Whatever the locale is, with a BOM, through a link, and where the last line has no end."""
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    real = tmp_path / "dotfiles ä.py"
    before = b"\xef\xbb\xbf# \xc3\xa4\r\nc.InteractiveShellApp.extensions = ['autoreload']"
    real.write_bytes(before)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ipython_config.py").symlink_to(real)
    path = name_errors.at_every_start(tmp_path / "etc")
    assert path.is_symlink() and real.read_bytes().startswith(before + b"\n")
    config = PyFileConfigLoader("ipython_config.py", path=str(path.parent)).load_config()
    assert config.InteractiveShellApp.extensions == ["autoreload", "lab_utils.notebook.name_errors"]


@pytest.mark.parametrize("content", [b"# \xe4 in latin-1\n", None])
def test_a_configuration_that_cannot_be_read_is_left_alone(content, tmp_path):
    path = tmp_path / "ipython_config.py"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(LabError, match=r"ipython_config\.py"):
        name_errors.at_every_start(tmp_path)
    assert path.is_dir() if content is None else path.read_bytes() == content


def test_the_command_says_why_it_could_not_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "etc").write_text("a file in the way")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert name_errors.main() == 2 and "A file is in the way" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"cells": 3}', b'{"cells": [3]}', b'{"cells": [{}]}'])
def test_a_damaged_page_beside_the_right_one_does_no_harm(damage, said, tmp_path):
    (tmp_path / "00_damaged.ipynb").write_bytes(damage)
    assert "code cell 2 of 01_drinks.ipynb" in said("table = price * factor")


def test_a_page_with_a_bom_is_found(said, tmp_path):
    path = tmp_path / "01_drinks.ipynb"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "code cell 2 of 01_drinks.ipynb" in said("table = price * factor")
