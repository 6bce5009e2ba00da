"""The commands of `data/`, `deploy/` and `lab_utils` answer a LabError in one line."""

import ast
import runpy
import sys

import pytest

from lab_utils.folders import ROOT

FOLDERS = ("data", "deploy", "lab_utils/classroom", "lab_utils/notebook")
MODULES = ("locks", "serving/chat_page", "tasks/__main__", "models/__main__", "pretended/__main__")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
FILES += [ROOT / "lab_utils" / f"{name}.py" for name in MODULES]
COMMANDS = [path for path in FILES if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")]


def test_there_are_commands():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_command_runs_answers_a_lab_error(path):
    """Either its `main` is decorated with `command_line`, or what it calls is, or it is wrapped where it is called."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [guard] = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(guard.body[-1]) in ("sys.exit(main())", "sys.exit(command_line(main)())")
    [main] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    decorators = [ast.unparse(one).partition("(")[0] for one in main.decorator_list]
    wrapped = "command_line(main)" in ast.unparse(guard) or "command_line" in decorators
    chooses = path.parent.name == "classroom"  # hands the rest of the line to a command that is decorated
    assert wrapped or chooses


def test_a_wrong_argument_is_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["record_variants.py", "--only", "nonsense"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "data" / "record_variants.py"), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Unknown variant 'nonsense'. Choose one of: ") and "\n" not in said
