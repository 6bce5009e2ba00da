"""Windows, simulated on another system: what its Python lacks, and its rule that an open file stays where it is."""

import ast
import builtins
import errno
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import jedi
import psutil
import pytest

STUBS = Path(jedi.__file__).parent / "third_party" / "typeshed" / "stdlib"  # typeshed, as jedi ships it
GONE = ("crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty")


@cache
def unix_names(module: str) -> frozenset[str]:
    """What a module of the standard library has on Unix and not on Windows, by typeshed's stubs."""
    path = STUBS / f"{module}.pyi"
    path = path if path.exists() else STUBS / module / "__init__.pyi"
    unix, windows = set(), set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        condition = ast.unparse(node.test) if isinstance(node, ast.If) else ""
        if any(system in condition for system in ("win32", "linux", "darwin")):
            on_windows = condition == "sys.platform == 'win32'"
            unix |= _names(node.orelse if on_windows else node.body)
            windows |= _names(node.body if on_windows else node.orelse)
        else:
            windows |= _names([node])
    return frozenset(unix - windows)


def _names(nodes: list[ast.stmt]) -> set[str]:
    """The names that statements of a stub define, those under an `if` included."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.If):
            found |= _names(node.body) | _names(node.orelse)
    return found


class WithoutUnix(ModuleType):
    """A module as Windows has it."""

    def __init__(self, module: ModuleType):
        super().__init__(module.__name__)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str):
        if name in unix_names(self.__name__):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)


@pytest.fixture
def without_unix(monkeypatch):
    """The library's modules see `os`, `signal` and `time` as Windows has them; Unix's own modules are not there."""
    monkeypatch.setattr(builtins, "__import__", _refusing_unix(builtins.__import__))
    for module in [one for name, one in sys.modules.items() if one and name.partition(".")[0] == "lab_utils"]:
        for name in ("os", "signal", "time"):
            if isinstance(vars(module).get(name), ModuleType):
                monkeypatch.setattr(module, name, WithoutUnix(vars(module)[name]))


def _refusing_unix(real):
    def load(name, globals=None, *rest, **more):
        if name in GONE and (globals or {}).get("__name__", "").partition(".")[0] == "lab_utils":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals, *rest, **more)

    return load


@pytest.fixture
def open_files_stay(monkeypatch):
    """What this process has open or mapped is neither moved nor deleted, and os.rename replaces nothing."""
    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, _refusing(name, getattr(os, name)))


def _refusing(name: str, real):
    def call(*paths, **options):
        if options.get("dir_fd") is None:
            _refuse_open_files(*paths[:2])
        if name == "rename" and os.path.lexists(paths[1]):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", paths[1])
        return real(*paths, **options)

    return call


def _refuse_open_files(*paths) -> None:
    maps = Path("/proc/self/maps")  # there on Linux; psutil's own way takes a second
    mapped = maps.read_text(encoding="utf-8", errors="replace").splitlines() if maps.exists() else []
    used = {file.path for file in psutil.Process().open_files()} | {line[73:] for line in mapped if len(line) > 73}
    for path in map(os.path.realpath, paths):
        if any(one == path or one.startswith(path + os.sep) for one in used):
            error = PermissionError(errno.EACCES, "The process cannot access the file", path)
            error.winerror = 32  # ERROR_SHARING_VIOLATION
            raise error
