"""Which cells a cell needs: by hand, and as laws of all pages."""

import ast
import re

import nbformat
import pytest

from lab_utils.classroom.course import NOTEBOOKS
from lab_utils.folders import ROOT
from lab_utils.notebook.cells import bound_names, maker, needed, used_names
from lab_utils.notebook.extras import EXTRAS, needs

PAGES = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


def sources_of(stem):
    """The code cells of a page."""
    return [cell.source for cell in nbformat.read(PAGES[stem], as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("source, bound", [
    ("a = b = 1; c, (d, *e) = x", "a b c d e"),
    ("a: int = 1\nb += 1", "a b"),
    ("import os.path, torch as t\nfrom math import pi as p", "os t p"),
    ("def f(x):\n    y = x\nclass C:\n    z = 1", "f C"),
    ("for i, (j, k) in x:\n    m = i", "i j k m"),
    ("with open(p) as file, lock:\n    text = file.read()", "file text"),
    ("if x:\n    a = 1\nelse:\n    b = 2", "a b"),
    ("try:\n    import a\nexcept ImportError as error:\n    a = None", "a"),
    ("values = [x for x in y]; {k: v for k, v in z}; {s for s in t}; sum(g for g in h)", "values"),
    ("x[0] = 1; y.a = 2; del z[3]", ""),
    ("%matplotlib inline\n!pip install a\nfiles = !ls\nhelp?\nif y:\n    %time f()\na = 1", "files a"),
    ("%%bash\na=1", ""),
    ("this is no Python", ""),
    ("nonlocal a", ""),
    ("if (n := f()) > 3:\n    pass", "n"),
])  # fmt: skip
def test_bound_names(source, bound):
    assert bound_names(source) == set(bound.split())


@pytest.mark.parametrize("source, used", [
    ("a = b + c; d = a", "b c"),
    ("a += 1", "a"),
    ("a = a.eval()", "a"),
    ("print(len(a), display, _, get_ipython())", "a"),
    ("x[i] = y; z.attr = 1", "x i y z"),
    ("del a", "a"),
    ("values = [x + k for x in y if z]", "k y z"),
    ("{k: v + w for k, v in z.items()}; {s for s in t}", "w z t"),
    ("def f(x: T = d) -> R:\n    y = x + G\n    return H(y)", "T d R G H"),
    ("def f():\n    return k\nk = 3\nf()", ""),
    ("f = lambda x: x + k", "k"),
    ("@torch.no_grad()\ndef f(): return 1", "torch"),
    ("class C(B):\n    c = D\n    def f(self):\n        return G", "B D G"),
    ("for i in rows:\n    a = i\nprint(a, i)", "rows"),
    ("with lock as l:\n    print(l, f'{x:{w}}')", "lock x w"),
    ("if fast:\n    a = 1\nprint(a)", "fast a"),
    ("if fast:\n    a = 1\nelse:\n    a = 2\nprint(a)", "fast"),
    ("while go:\n    a = 1\nprint(a)", "go a"),
    ("try:\n    import a\nexcept ImportError as e:\n    a = e\nprint(a)", ""),
    ("try:\n    a = 1\nexcept E:\n    b = 2\nprint(a, b)", "E a b"),
    ("%timeit f(x)\n!echo $y\na", "a"),
    ("%%time\na", ""),
    ("def broken(", ""),
])  # fmt: skip
def test_used_names(source, used):
    assert used_names(source) == set(used.split())


@pytest.mark.parametrize("sources, wanted", [
    (["a = 1", "b = 2", "a"], [0]),
    (["a = 1", "b = a", "c = 0", "b"], [0, 1]),  # through another
    (["a = 1", "a = 2", "a"], [1]),  # the last one counts
    (["a = 1", "a = a + 1", "a += 1", "a"], [0, 1, 2]),
    (["a = 1", "if b:\n    a = 2", "a"], [0, 1]),  # it may not have run
    (["a = []", "a[0] = 1", "a.x = 2", "a.sort()", "del a[1]", "a[2] += 3", "len(a)", "a"], [0, 1, 2, 3, 4, 5]),
    (["import torch", "model = f()", "for i in (1, 2):\n    torch.nn.init.zeros_(model.weight)", "model"], [0, 1, 2]),
    (["import torch", "torch.manual_seed(0)", "torch.ones(1)"], [0]),  # a module is not changed by its functions
    (["if b:\n    import os\nelse:\n    os = 1", "os.sync()", "os"], [0]),
    (["a = []", "a.append(1)", "a = []", "a"], [2]),  # what was changed is gone
    (["def f():\n    return k", "k = 1", "m = 2", "f()"], [0, 1]),  # read when called
    (["k = 1", "def f():\n    return k", "k = 2", "f()"], [1, 2]),
    (["a = 1", "def f():\n    a = 2", "a"], [0]),
    (["a = 1", "plot(a)", "a"], [0]),  # shown, so called for its value
    (["a = 1", "print(a)\n1", "a"], [0]),
    (["missing", "a"], []),
    (["a = 1"], []),
])  # fmt: skip
def test_needed_by_hand(sources, wanted):
    assert needed(sources, len(sources) - 1) == wanted


@pytest.mark.parametrize("sources, name, before, cell", [
    (["a = 1", "a = 2", "a = 3"], "a", 2, 1),
    (["a = 1", "if b:\n    a = 2", "a"], "a", 2, 0),  # surely, before perhaps
    (["if b:\n    a = 1", "c = 1"], "a", 2, 0),
    (["b = 1", "a = 1"], "a", 1, None),
])  # fmt: skip
def test_the_maker_of_a_name(sources, name, before, cell):
    assert maker(sources, name, before) == cell


@pytest.mark.parametrize("stem", PAGES)
def test_whatever_a_cell_uses_an_earlier_cell_binds(stem):
    """So a learner who follows the names backwards always arrives."""
    bound = set()
    for number, source in enumerate(sources_of(stem), 1):
        assert used_names(source) <= bound, f"{stem}, code cell {number}"
        bound |= {name for name in bound_names(source) if maker([source], name, 1) == 0}


@pytest.mark.parametrize("stem", PAGES)
def test_a_name_that_goes_from_cell_to_cell_has_one_maker(stem):
    """Otherwise a cell run out of order takes another cell's `model` for its own, and no error says so."""
    sources = sources_of(stem)
    for name in set().union(*map(used_names, sources)):
        makers = [number for number, source in enumerate(sources, 1) if name in bound_names(source)]
        assert len(makers) == 1, f"{stem}: {name} is made by code cells {makers}"


@pytest.mark.parametrize("stem", PAGES)
def test_what_a_cell_needs_needs_nothing_more(stem):
    sources = sources_of(stem)
    for index in range(len(sources)):
        cells = needed(sources, index)
        assert cells == sorted(set(cells)) and all(cell < index for cell in cells)
        bound = set().union(*(bound_names(sources[cell]) for cell in cells))
        assert used_names(sources[index]) <= bound
        for cell in cells:
            assert set(needed(sources, cell)) <= set(cells)


def calls_that_need_extras() -> dict[str, str]:
    """Pattern of a call in a cell -> the extra that it cannot do without: it leads to `extras.require` in its file."""
    found = {}
    for path in sorted((ROOT / "lab_utils").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "import require\n" not in text:
            continue
        parts = [part for part in ast.parse(text).body if isinstance(part, (ast.FunctionDef, ast.ClassDef))]
        texts = {part.name: ast.unparse(part) for part in parts}
        constants = dict(re.findall(r"^([A-Z_]+)(?:, [A-Z]+)* = ['\"](\w+)['\"]", text, re.M))
        here = {
            name: constants.get(extra, extra.strip("'"))
            for name, text in texts.items() for extra in re.findall(r"\brequire\(('\w+'|[A-Z_]+)", text)
        }  # fmt: skip
        for _ in texts:  # and what calls those
            here |= {name: here[one] for name, text in texts.items() for one in sorted(here) if f"{one}(" in text}
        found |= {rf"\b({path.stem}|{path.parent.stem})\.{name}\(": extra for name, extra in here.items()}
    return found


def test_a_cell_that_uses_an_extra_says_so_in_its_first_line():
    """Else the page ends there for everybody who has not installed it, as on Colab."""
    needing = calls_that_need_extras()
    assert {"pictures", "keras", "retrieval", "llamacpp", "serve"} <= set(needing.values()) <= EXTRAS.keys()
    used = [
        (stem, call, extra in needs(source)) for stem in PAGES for source in sources_of(stem)
        for call, extra in needing.items() if re.search(call, source)
    ]  # fmt: skip
    assert len({call for _, call, _ in used}) >= 4 and [one for one in used if not one[2]] == []


def run_only(stem, monkeypatch):
    """Run the cells that the page's first explorer needs, and it, in this process; returns the names they leave."""
    sources = sources_of(stem)
    last = next(i for i, source in enumerate(sources) if "Explorer(" in source or "Trainer(" in source)
    names = {"display": print}
    monkeypatch.setenv("LORA_LAB_FAST", "1")
    for index in [*needed(sources, last), last]:
        lines = [line for line in sources[index].splitlines() if not line.startswith("%")]
        exec(compile("\n".join(lines), f"{stem}, code cell {index + 1}", "exec"), names)
    return len(needed(sources, last)), last, names


@pytest.mark.parametrize("stem", [
    "01_rank_one", "02_counting_parameters", "03_lora_from_scratch", "11_lora_variants",
])  # fmt: skip
def test_an_explorer_comes_up_on_the_cells_it_needs(stem, monkeypatch):
    count, last, names = run_only(stem, monkeypatch)
    assert ("explorer" in names or "trainer" in names) and count < last


@pytest.mark.parametrize("source", [
    "(" * 5000 + ")" * 5000, "x = " + "-" * 20_000 + "1", "a\0b", "'\ud800'", "[" * 300,
])  # fmt: skip
def test_text_that_python_cannot_take_apart_binds_nothing(source):
    assert bound_names(source) == used_names(source) == set() or "x" in bound_names(source)
    assert needed(["y = 1", source, "y"], 2) == [0]
