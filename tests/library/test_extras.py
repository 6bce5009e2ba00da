"""`%%needs`, in a real IPython session: the cell runs as a plain one would, or one line says what to install."""

import re
import signal
import subprocess
import sys
import threading
import tomllib

import nbformat
import pytest
from shells import bare, listener, new_session, write
from unfolded import unfolded

from lab_utils.checks import EXERCISES
from lab_utils.classroom import course
from lab_utils.classroom.editions import instructor_edition
from lab_utils.errors import LabError
from lab_utils.folders import ROOT
from lab_utils.notebook import extras, name_errors
from lab_utils.notebook.cells import bound_names, maker, used_names

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted(course.NOTEBOOKS.glob("*.ipynb"))
GONE = "no_such_package"
LINE = rf"Skipped: {GONE} is not installed: .*pip install -c constraints.txt no-such-package`\. Then run this cell "


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An IPython session with both extensions, in an empty folder."""
    session = new_session(tmp_path, monkeypatch)
    name_errors.install(session)
    for _ in range(2):  # the second time changes nothing
        session.run_line_magic("load_ext", "lab_utils.notebook.extras")
        extras.load_ipython_extension(session)
    yield session
    session.restore_sys_module_state()


@pytest.fixture
def said(shell, capsys):
    return listener(shell, capsys)


# What is missing


@pytest.mark.parametrize("name", ["torch", "lab_utils"])
def test_what_is_there_is_not_missing(name):
    assert extras.missing(name) == ""


def test_a_missing_package_is_named_with_its_line():
    assert re.fullmatch(rf"{GONE} is not installed: in the lab's folder, run `\S+ -m pip install -c constraints.txt "
                        r"no-such-package`", extras.missing(GONE))  # fmt: skip


def test_of_an_extra_only_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "pictures", ("torch", "gone_one", "gone_two"))
    assert extras.missing("pictures").startswith("gone_one and gone_two are not installed: ")
    assert extras.missing("pictures").endswith(" -m pip install -c constraints.txt -e '.[pictures]'`")


def test_the_line_calls_this_very_python(monkeypatch):
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
    assert "run `.venv/bin/python -m pip" in extras.how_to_install("keras")
    monkeypatch.setattr(sys, "executable", "/opt/my lab/python")
    assert "run `'/opt/my lab/python' -m pip" in extras.how_to_install("keras")


def test_on_colab_it_is_a_cell_with_the_versions_of_pyproject(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    [serve] = PROJECT["optional-dependencies"]["serve"]
    assert extras.how_to_install("serve") == f"in a new cell, run `%pip install '{serve}'`"
    assert extras.missing(GONE).endswith("run `%pip install no-such-package`")


@pytest.mark.parametrize(
    "version, wrong", [("0.26.0", True), ("0.32.0", False), ("0.32.5", False), ("0.33.0", True), (None, False)]
)
def test_a_version_out_of_range_is_as_good_as_none(monkeypatch, version, wrong):
    monkeypatch.setitem(extras.EXTRAS, "keras", ("keras",))  # keras-hub need not be there
    monkeypatch.setattr(extras, "version_here", {"keras": "3.15.1", "keras-hub": version}.get)
    said = f"keras-hub {version} is here and <0.33,>=0.32 is needed: {extras.how_to_install('keras')}"
    assert extras.missing("keras") == (said if wrong else "")


def test_nothing_is_imported_to_find_out():
    names = sum(extras.EXTRAS.values(), ())
    code = "import sys; from lab_utils.notebook import extras; [extras.missing(name) for name in extras.EXTRAS]; "
    code += f"print(set({names!r}) & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "set()\n"


def test_what_is_installed_later_is_found_without_a_restart(tmp_path, monkeypatch, said):
    """Also where the folder was searched in vain before."""
    monkeypatch.syspath_prepend(tmp_path)
    cell = "%%needs came_later\nimport came_later\ncame_later.value"
    assert said(cell).startswith("Skipped: came_later is not installed")
    (tmp_path / "came_later.py").write_text("value = 21")
    assert said(cell).endswith(": 21\n")
    del sys.modules["came_later"]


def test_what_the_tests_install_is_found():
    """By the names in EXTRAS; otherwise a page would skip its cells for ever."""
    [own] = re.findall(r"lora-lab\[(.*?)\]", " ".join(PROJECT["optional-dependencies"]["dev"]))
    assert [extras.missing(name) for name in own.split(",")] == [""] * (own.count(",") + 1)


def test_extras_are_those_of_pyproject():
    assert set(PROJECT["optional-dependencies"]) - {"dev"} == set(extras.EXTRAS)
    for name, packages in extras.EXTRAS.items():
        distributions = {re.match(r"[\w-]+", one)[0] for one in PROJECT["optional-dependencies"][name]}
        assert {package.replace("_", "-") for package in packages} <= distributions
        assert all(extras.extra_of(package) == name for package in packages)
    assert extras.extra_of("torch") is None


# A cell that runs


@pytest.mark.parametrize("body", [
    "x = 3\nx * 7",
    "x = 3;\nx * 7;",
    "def f():\n    return 1 / 0\n\nf()",
    "1 +",
    "if 1:\nprint(2)",
    "here = %pwd\n!echo hello\nfiles = !echo there\nfiles",
    "import asyncio\nawait asyncio.sleep(0, 5)",
    "for _ in range(2):\n    pass\nraise KeyboardInterrupt",
    "undefined_name + 1",
    "import no_such_package",
])  # fmt: skip
def test_a_cell_shows_what_it_shows_with_a_comment_in_the_lines_place(said, body):
    shown = [re.sub(r"\[\d+\]|input-\d+", "", bare(said(f"{first}\n{body}")))
             for first in ("# %%needs torch", "%%needs torch")]  # fmt: skip
    assert shown[0] == shown[1]


def test_names_line_numbers_and_the_last_value(shell, said):
    assert "%%needs" not in said("%%needs torch\nx = 2\nx + 1") and shell.user_ns["_"] == 3 and shell.user_ns["x"] == 2
    assert "----> 3 1 / 0" in said("%%needs torch\n\n1 / 0")
    assert "\n    %%needs" not in said("\n\n  %%needs torch\n  x = 5") and shell.user_ns["x"] == 5
    assert not extras.needs("x = '''\n%%needs torch'''") and not extras.needs("%%needsmore")


def test_a_cell_in_its_loop_can_be_interrupted(shell, said):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a kernel's; Ray, once used, leaves its own
    try:
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        shown = said("%%needs torch\nimport time\nfor n in range(100):\n    time.sleep(0.1)")
    finally:
        signal.signal(signal.SIGINT, before)
    assert "KeyboardInterrupt" in shown and shell.user_ns["n"] < 50 and "Run it again before you go on" in shown


# A cell that is skipped


def test_a_skipped_cell_says_so_in_one_line_and_binds_nothing(shell, said):
    shell.user_ns["_"] = "before"
    shown = said(f"%%needs {GONE}\nx = 1\nprint('ran')\nthis is no Python")
    assert re.match(LINE, shown) and shown.count("\n") == 1 and shown.endswith("the kernel need not be restarted.\n")
    assert "x" not in shell.user_ns
    assert said("1 + 1").endswith(": 2\n")


def test_several_names_are_all_needed(said):
    assert re.match(LINE, said(f"%%needs torch {GONE}\n1"))
    assert said("%%needs torch numpy\n1").endswith(": 1\n")


def test_a_name_of_a_skipped_cell_is_explained(said, tmp_path):
    write(tmp_path / "01_page.ipynb", ["# Page", f"%%needs {GONE}\npainter = 3", "painter + 1"])
    shown = said(f"%%needs {GONE}\npainter = 3", "painter + 1").rpartition("\n\n")[2]
    assert shown.startswith("`painter` is made above, by code cell 1 of 01_page.ipynb, under \"Page\". It was skipped: "
                            f"{GONE} is not installed: in the lab's folder, run ")  # fmt: skip


def test_a_cell_that_has_not_run_is_named_by_its_own_first_line(said, tmp_path):
    write(tmp_path / "01_page.ipynb", ["# Page", "%%needs torch\npainter = 3", "%%needs torch\npainter + 1"])
    shown = said("%%needs torch\npainter + 1")
    assert "by code cell 1 of 01_page.ipynb" in shown and "begins with `painter = 3` and has not run" in shown
    assert said("%%needs torch\npainter = 3", "%%needs torch\npainter + 1").endswith(": 4\n")


def test_the_import_of_a_package_of_an_extra_names_the_extra(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    assert "keras_hub " in (shown := said("import keras_hub")) and "-e '.[keras]'`. Then run this cell again." in shown


def test_unloaded_it_is_an_unknown_magic(shell, capsys):
    extras.unload_ipython_extension(shell)
    extras.unload_ipython_extension(shell)
    shell.run_cell("%%needs torch\nx = 1")
    assert "x" not in shell.user_ns and "%%needs" in capsys.readouterr().err


def test_a_pages_own_import_is_enough(tmp_path):
    cells = ["import lab_utils", f"%%needs {GONE}\n1", "%%needs torch\n2"]
    write(tmp_path / "page.ipynb", ["# Page", *cells])
    empty = {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(ROOT)}
    page = course.execute(tmp_path / "page.ipynb", environment=empty, passes=2)
    assert page.failure is None and page.notebook.cells[1].outputs == []
    assert re.match(LINE, unfolded(page.notebook.cells[2].outputs[0].text))
    assert page.notebook.cells[3].outputs[0].data["text/plain"] == "2"


def test_a_kernel_as_make_lab_sets_it_up_knows_it_before_any_import(tmp_path):
    name_errors.at_every_start(tmp_path / "ipython" / "profile_default")
    cells = [f"%%needs {GONE}\n1", "%%needs torch\n2", "%load_ext lab_utils.notebook.extras"]
    cells.append("%%needs torch\nimport os\nhere")
    write(tmp_path / "page.ipynb", ["# Page", *cells, "here = 1"])
    page = course.execute(tmp_path / "page.ipynb", environment={"IPYTHONDIR": str(tmp_path / "ipython")})
    skipped, two = (page.notebook.cells[index].outputs[0] for index in (1, 2))
    assert re.match(LINE, unfolded(skipped.text)) and two.data["text/plain"] == "2"
    assert page.failure.cell == 4 and "----> 3 here" in page.failure.error and "code cell 5 of" in page.failure.error


# What reads cells


def test_its_names_are_found():
    cells = ["import a", "%%needs torch\nx = a.b\ny: int = 1", "%%time\nz = 1"]
    assert bound_names(cells[1]) == {"x", "y"} and used_names(cells[1]) == {"a"}
    assert maker(cells, "x", 3) == 1 and maker(cells, "z", 3) is None


def test_an_exercise_cannot_be_skipped():
    name = next(iter(EXERCISES))
    source = f'%%needs torch\ndef {name}():\n    ...\n\nchecks.check("{name}", {name})'
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    with pytest.raises(LabError, match="take the %%needs line out"):
        instructor_edition(page)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_may_skip_no_other_cell_waits_for(path):
    """Each cell asks for all that the makers of its names ask for, in words that EXTRAS or pyproject.toml has."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    known = {re.match(r"[\w-]+", one)[0] for one in PROJECT["dependencies"]} | set(extras.EXTRAS)
    for index, source in enumerate(cells):
        wanted = set(extras.needs(source))
        assert wanted <= known, f"code cell {index + 1}"
        assert bool(wanted) == source.lstrip().startswith("%%needs")
        for name in used_names(source):
            made = maker(cells, name, index)
            asked = set() if made is None else set(extras.needs(cells[made]))
            assert asked <= wanted, f"code cell {index + 1} uses {name!r} of cell {made + 1}: begin it with %%needs"


@pytest.mark.parametrize("name", ["no_such.part", "json.no_such", "no such", ".x", "..", "a..b", "1"])
def test_a_name_that_no_package_can_have_is_not_installed(name):
    assert f"{name} is not installed" in extras.missing(name)
