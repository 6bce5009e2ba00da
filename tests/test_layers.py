"""The library's layers: an import points down or sideways, never up, and heavy packages wait for their function."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lab_utils"
LEVELS = {
    0: "errors files locks rate_search replacing notebook_files outputs recorded_files finite lora_keys activations "
    "cells architectures budget configurations families guard sizes colab colab_packages counts data_lines "
    "extras lowrank memory quantize run_lock saved sharding training_rows weights",
    1: "checkpoint_files device loading quiet stranded adapter_folders lora lora_config lora_facts lora_files "
    "lora_layers variants nf4 nf4_layers peak double_quant",
    2: "adapter adapter_sums base_weights capabilities checkpoint control_tokens conversation decoding differences "
    "digits drawings embedded evaluate evidence export finetune fourbit fsdp full_finetune gguf_file "
    "gguf_vocabulary plain_model identity model_sizes processes trainer keras_gemma keras_lora keras_presets "
    "merge_costs merging models optimizer painter painter_training peft_adapters picture_questions "
    "picture_samples plain_copy recipe recorded recorded_training recording serving serving_costs studies "
    "study_results supervision sweep sweep_ray sweep_summary tasks towers traffic traffic_process "
    "variants_record vision_language",
    3: "contents plots pages snapshots",
    4: "widgets checks course chat_page editions nbgrader_course present slides",
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names.split()}
LIGHT = {"torch", "numpy", "psutil"}  # all that levels 0 and 1 may import at module level, besides the standard library
HEAVY = {  # never at module level
    "transformers", "peft", "bitsandbytes", "datasets", "trl", "pandas", "scipy", "ray", "gradio",
    "keras", "keras_hub",
}  # fmt: skip
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def area(path: Path) -> str:
    """The name that has a level: of a module, or of the folder it lies in."""
    return path.parts[0].removesuffix(".py")


def imports(source: str, package: tuple[str, ...]) -> list[tuple[str, bool]]:
    """(dotted name, at module level) of everything that `source` imports; `package` is where the module lies."""
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                start = ".".join([*base, *([child.module] if child.module else [])])
                if start == "lab_utils":  # `from . import errors`
                    found.extend((f"lab_utils.{alias.name}", top) for alias in child.names)
                else:
                    found.append((start, top))
            visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(ast.parse(source), True)
    return found


def imports_of(path: Path) -> list[tuple[str, bool]]:
    return imports((PACKAGE / path).read_text(encoding="utf-8"), ("lab_utils", *path.parts[:-1]))


def test_imports_are_found_wherever_they_stand():
    source = "import os, torch.nn\nfrom . import tasks\nfrom ..errors import LabError\nif os:\n    import peft\n"
    source += "class A:\n    import trl\n    def f(self):\n        from .x import y\n        import datasets\n"
    assert imports(source, ("lab_utils", "widgets")) == [
        ("os", True), ("torch.nn", True), ("lab_utils.widgets", True), ("lab_utils.errors", True), ("peft", True),
        ("trl", True), ("lab_utils.widgets.x", False), ("datasets", False),
    ]
    assert imports("from . import tasks", ("lab_utils",)) == [("lab_utils.tasks", True)]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_has_a_level(path):
    assert area(path) in LEVEL, f"{path}: give it a level in tests/test_layers.py"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_import_points_up(path):
    level = LEVEL[area(path)]
    wanted = {name.split(".")[1] for name, _ in imports_of(path) if name.startswith("lab_utils.")}
    wanted = {name for name in wanted if not name.startswith("__")}
    assert {name: LEVEL[name] for name in wanted if LEVEL[name] > level} == {}, f"{path} is at level {level}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_heavy_packages_are_imported_in_functions_only(path):
    at_module_level = {name.split(".")[0] for name, top in imports_of(path) if top}
    assert at_module_level & HEAVY == set()
    if LEVEL[area(path)] <= 1:
        assert at_module_level - LIGHT - {"lab_utils"} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_drawing_stays_in_plots_and_controls_in_widgets(path):
    packages = {name.split(".")[0] for name, _ in imports_of(path)}
    if LEVEL[area(path)] < 3:
        assert not packages & {"matplotlib", "ipywidgets", "anywidget", "IPython"}
    if area(path) != "widgets":
        assert not packages & {"ipywidgets", "anywidget"}


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    """The best of three runs: beyond what the interpreter itself takes to start."""
    code = (
        "import sys, time; began = time.perf_counter(); import lab_utils; seconds = time.perf_counter() - began; "
        "print(seconds, sorted({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for _ in range(3)
    ]
    seconds, loaded = zip(*(output.strip().split(" ", 1) for output in outputs), strict=True)
    assert set(loaded) == {"[]"}
    assert min(map(float, seconds)) < 0.1
