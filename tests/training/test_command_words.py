"""Messages behind a command speak of its flags: all that its functions raise, and those that a wrong line gives."""

import ast
import re
from dataclasses import fields

import pytest

from lab_utils.errors import in_command_words
from lab_utils.finetune.command import FLAGS, HELP, described, main
from lab_utils.finetune.recipe import Recipe
from lab_utils.folders import ROOT

REACHED = [path for room in ("finetune", "tasks") for path in sorted((ROOT / "lab_utils" / room).glob("*.py"))]
# What only a call in Python can cause: an argument that a command makes itself, or a function that the caller passes.
PYTHON_ALONE = (
    "recipe=X is out of range: a X, as in", "base=X is out of range", "recipe.model is X", "dataset", "Your X(output",
    "fields=X", "metric=", "split=X is out of range", "name=X is out of range", "The data of X were in memory",
    "The data are a dict", "The data are X", "The split X is none of", "X X: expected a dict", "task=X is a file",
    "X of this base has no values", "X says modules_to_save=X", "folder=X",
)  # fmt: skip
PYTHON = re.compile(r"\b\w+\.\w+\(|\b[a-z]\w*=|\b(?:load_base|own)\(|resume|output_dir|\bcell\b|\ba list of dicts\b")


def literal(node: ast.AST) -> str:
    """A text of the source, X for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(one.value if isinstance(one, ast.Constant) else "X" for one in node.values)
    return "X"


def messages() -> list[str]:
    """Every text that is raised as a LabError in the rooms that the command reaches."""
    found = []
    for path in REACHED:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "LabError" and node.args:
                found.append(literal(node.args[0]))
    return [text for text in found if text.strip("X")]


def test_no_message_of_the_command_speaks_python():
    texts = [text for text in messages() if not text.startswith(PYTHON_ALONE)]
    assert len(texts) > 90
    said = {text: in_command_words(text, FLAGS) for text in texts}
    wrong = {text: found[0] for text, one in said.items() if (found := PYTHON.search(one)) and "in Python" not in one}
    wrong = {text: word for text, word in wrong.items() if "In Python" not in text}
    assert wrong == {}
    flags = [name for name in FLAGS if "_" in name and "=" not in name]
    assert not any(re.search(rf"\b{name}\b", one) for name in flags for one in said.values())


def test_messages_that_name_a_flag_are_among_them():
    text = " ".join(in_command_words(text, FLAGS) for text in messages())
    for flag in ("--restart", "--output", "--max-length", "--batch-size", "--turns last", "--encoding", "--prompt"):
        assert flag in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--rank 0", "--rank 0 is out of range: a whole number from 1 to 1,024, both included."),
        ("--rank eight", "--rank eight is not a number (a whole number is expected)."),
        ("--learning-rate 2", "--learning-rate 2.0 is out of range: a number in (0, 1)."),
        ("--keep-best maybe", "Unknown --keep-best 'maybe'. Choose one of: true, false."),
        ("--patience 2", "--patience 2 and --keep-best False go by the validation loss: set --validate-every too, for "
                         "example --validate-every 10."),
        ("--target-modules ,", "--target-modules , is out of range: all-linear, attention, qv, mlp, or names of "
                               "modules."),
        ("--task tickets.csv", "--task tickets.csv is a file: give it as your own data, --data tickets.csv."),
        ("--task poems", "Unknown task 'poems'. Choose one of: bookings, style, dolly."),
        ("--prompt message", "--prompt: columns of which file? Name it with --data."),
        ("--data DATA", "a.csv: which column is asked and which is answered? It has: 'message', 'category'. Say so: "
                        "--prompt '…', --answer '…'; or --messages '…' for a column of conversations."),
        ("--data DATA --prompt message", "a.csv: --answer is missing. Name both columns, of: 'message', 'category'."),
        ("--data DATA --prompt message --messages x", "Give either --messages, or --prompt and --answer: a row is a "
                                                      "conversation or a pair."),
    ],
)  # fmt: skip
def test_a_wrong_line_is_answered_in_its_own_words(tmp_path, capsys, line, said):
    (tmp_path / "a.csv").write_text("message,category\nx,y\n")
    command = line.replace("DATA", str(tmp_path / "a.csv")).split()
    assert main(["--output", str(tmp_path / "run"), *command]) == 2
    assert capsys.readouterr().err.strip().removeprefix(f"{tmp_path}/") == said


def test_help_says_what_each_field_is_and_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    said = described(Recipe.__doc__) | HELP
    assert said.keys() == {one.name for one in fields(Recipe)}
    assert all(len(said[one.name].split()) > 4 and f"(default: {str(one.default).lower()})" in text
               for one in fields(Recipe))  # fmt: skip
    assert "examples per step, over all processes together (default: 4)" in text
