"""Windows, of which none is at hand: calls that it lacks are found in the source, and its rules are simulated."""

import ast
import os
import re
import subprocess
import sys

import checkpoints
import pytest
import torch
from windows import GONE, open_files_stay, unix_names, without_unix

from lab_utils import locks, lora
from lab_utils.checks import check
from lab_utils.checks.calling import time_limit
from lab_utils.files import explain, replacing_folder
from lab_utils.finetune.checkpoint import latest_record
from lab_utils.finetune.recipe import Recipe
from lab_utils.folders import ROOT
from lab_utils.memory.free import free_memory_bytes, keep_freed_memory
from lab_utils.notebook import extras

__all__ = ["open_files_stay", "without_unix"]  # fixtures

SOURCES = sorted([*ROOT.glob("lab_utils/**/*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("deploy/**/*.py")])
WATCHED = ("os", "signal", "socket", "time")
UNIX_PATHS = ("/dev/", "/proc/", "/sys/", "/tmp", "/usr/", "/bin/", "/etc/", "/var/")
FORGIVING = {"ImportError", "ModuleNotFoundError", "AttributeError", "OSError", "Exception"}


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Each node of a tree -> the one that it is part of."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def guarded(node: ast.AST, above: dict) -> bool:
    """Is it in a `try` that expects to fail, or in a function or `if` that asks hasattr(module, ...) first?

    A path is guarded anywhere in a function that expects an OSError.
    """
    path, asked = isinstance(node, ast.Constant), f"hasattr({ast.unparse(node).partition('.')[0]}, "
    while node in above:
        node = above[node]
        tried = ast.walk(node) if path and isinstance(node, ast.FunctionDef) else [node]
        if any(isinstance(one, ast.Try) and expects_to_fail(one) for one in tried):
            return True
        if isinstance(node, ast.FunctionDef | ast.If) and asked in ast.unparse(node):
            return True
    return False


def expects_to_fail(node: ast.Try) -> bool:
    caught = " ".join(ast.unparse(handler.type) for handler in node.handlers if handler.type)
    return not FORGIVING.isdisjoint(re.findall(r"\w+", caught))


def suspicious(source: str) -> bool:
    """A quick look: does a text hold anything that has to be looked at closely?"""
    used = re.findall(rf"\b({'|'.join(WATCHED)})\.(\w+)", source)
    words = rf"\b({'|'.join(GONE)})\b|from ({'|'.join(WATCHED)}) import|[\"']({'|'.join(UNIX_PATHS)})"
    return any(name in unix_names(module) for module, name in used) or bool(re.search(words, source))


def lacking(node: ast.AST, above: dict) -> str:
    """What of this piece of code Windows lacks: a module, a name of a module, or a path; empty if nothing."""
    if isinstance(node, ast.Import):
        return next((one.name for one in node.names if one.name in GONE), "")
    if isinstance(node, ast.ImportFrom):
        names = unix_names(node.module) if node.module in WATCHED else ()
        return node.module if node.module in GONE else next((one.name for one in node.names if one.name in names), "")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in WATCHED:
        return ast.unparse(node) if node.attr in unix_names(node.value.id) else ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and not isinstance(above[node], ast.Expr):
        return node.value if node.value.startswith(UNIX_PATHS) else ""
    return ""


def unix_only(source: str) -> list[str]:
    """What of a file Windows lacks and is used without a guard, with its line."""
    if not suspicious(source):
        return []
    tree = ast.parse(source)
    above = parents(tree)
    found = [(node, lacking(node, above)) for node in ast.walk(tree)]
    return [f"line {node.lineno}: {name}" for node, name in found if name and not guarded(node, above)]


@pytest.mark.parametrize("line", [
    "import fcntl", "from pwd import getpwnam", "os.fork()", "os.getuid()", "signal.SIGKILL", "signal.setitimer(0, 1)",
    "from os import geteuid", "open('/proc/self/status')", "os.open('x', os.O_DIRECTORY)", "socket.AF_UNIX",
    "os.sched_setscheduler(0, 0, 0)", "os.nice(19)",
])  # fmt: skip
def test_a_planted_call_is_found(line):
    assert unix_only(line) and unix_only(f"def f():\n    try:\n        {line}\n    finally:\n        pass")
    caught = "except (ImportError, AttributeError, OSError):"
    assert not unix_only(f"def f():\n    try:\n        {line}\n    {caught}\n        pass")


@pytest.mark.parametrize("line", [
    "os.kill(1, 2)", "os.open('x', os.O_CREAT | os.O_WRONLY)", "signal.SIGTERM", "os.cpu_count()",
    "os.replace('a', 'b')", "'''/proc/ in a docstring'''", "getattr(os, 'fork', None)",
])  # fmt: skip
def test_what_windows_has_is_not_found(line):
    assert not unix_only(line)


def test_nothing_in_the_library_is_for_unix_alone():
    found = {str(path.relative_to(ROOT)): unix_only(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not {path: lines for path, lines in found.items() if lines}


def test_every_text_file_is_opened_by_its_encoding():
    """Windows would take the one of its language. ruff knows the calls."""
    command = [sys.executable, "-m", "ruff", "check", "--preview", "--select", "PLW1514", "--isolated", "--quiet"]
    done = subprocess.run([*command, *SOURCES], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


# Its rules

simulated = pytest.mark.skipif(sys.platform == "win32", reason="Windows itself holds to its rules")


@simulated
def test_the_rules_hold_in_these_tests(open_files_stay, without_unix, tmp_path):
    (tmp_path / "a").write_text("a")
    with open(tmp_path / "a"), pytest.raises(PermissionError):
        os.replace(tmp_path / "a", tmp_path / "b")
    os.replace(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ImportError):
        exec("import fcntl", {"__name__": "lab_utils.locks"})
    with pytest.raises(AttributeError):
        locks.os.getuid()


@simulated
def test_locks_are_granted_memory_is_read_and_exercises_are_checked(without_unix, monkeypatch, tmp_path):
    monkeypatch.delenv("LORA_LAB_TESTS_LOCK", raising=False)
    with locks.locked(tmp_path / "lock") as first, locks.locked(tmp_path / "lock", wait=False) as second:
        assert first and second
    assert locks.lock_of_tests().name == "lora-lab-tests-all.lock"
    with time_limit(10**9):
        pass
    assert "right" in str(check("outer_product", lambda column, row: torch.outer(column, row)))
    assert free_memory_bytes() > 2**20
    monkeypatch.setattr("ctypes.CDLL", lambda name: open(name))  # a TypeError, as on Windows
    assert keep_freed_memory() is False


@simulated
def test_an_open_file_is_named_and_everything_stays(open_files_stay, tmp_path):
    folder = tmp_path / "folder"
    for content in ("old", "new"):
        with replacing_folder(folder, lambda name: True) as new:
            (new / "a").write_text(content)
            (new / "b").write_text(content)
    with open(folder / "b"), pytest.raises(PermissionError) as error:
        with replacing_folder(folder, lambda name: True) as new:
            (new / "a").write_text("newest")
    assert "Another program has it open: close it there." in explain(error.value)
    assert (folder / "a").read_text() == (folder / "b").read_text() == "new"


@simulated
def test_what_was_read_can_be_written_again_while_it_is_in_use(open_files_stay, without_unix, tmp_path, tiny_llama):
    """No file that the library read stays open or mapped: Windows would refuse to replace it."""
    model = tiny_llama()
    lora.inject(model, rank=2, alpha=4, target_modules=["q_proj"])
    lora.save_adapter(model, tmp_path / "adapter")
    read = lora.read_adapter(tmp_path / "adapter")
    lora.load_adapter(model, read.state)
    lora.save_adapter(model, tmp_path / "adapter")

    recipe = Recipe()
    for step in (1, 2, 1):
        checkpoints.save(tmp_path / "run", step, recipe)
        found = latest_record(tmp_path / "run", recipe)
    assert found


def test_the_line_to_install_is_one_of_powershell(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "o'python.exe"))
    said = extras.how_to_install("pictures")
    assert said.startswith("in PowerShell, in the lab's folder, run `& '") and "o''python.exe' -m pip" in said
    assert said.endswith("-c constraints.txt -e '.[pictures]'`")
