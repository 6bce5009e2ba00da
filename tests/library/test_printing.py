"""printing: a long sentence in lines that fit, nothing lost, and what is copied from a page is in one piece."""

import ast
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_utils import checks
from lab_utils.errors import LabError
from lab_utils.folders import ROOT
from lab_utils.printing import WIDTH, folded, put, say

WORDS = "a word and another that is somewhat longer, of which no page of the lab would be proud at all "
PATH = "/home/reader/with-a-name/" + "a-folder-below/" * 8 + "run-1.json"
ADDRESS = "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/resolve/main/model-00001-of-00002.safetensors"
CALL = "lab_utils.models.load_base('smollm2-135m', quantization='nf4', device='cpu', verbose=False)"
CODE = "`python -m lab_utils.finetune --task bookings --steps 200 --rank 8 --learning-rate 2e-4`"
LINES = st.lists(st.text(st.sampled_from("abc-/() `\n"), max_size=120), max_size=3)


@given(LINES)
def test_folding_loses_no_word_and_adds_none(lines):
    text = "\n".join(lines)
    assert folded(text).split() == text.split()


@given(LINES)
def test_a_line_is_wider_only_where_it_cannot_be_broken(lines):
    for line in folded("\n".join(lines)).split("\n"):
        whole = re.sub(r"`[^`\n]+`|\w[\w.]*\([^()\n]*\)", lambda found: "x" * len(found[0]), line.strip())
        assert len(line) <= WIDTH or " " not in whole


def test_what_fits_is_left_as_it_is():
    table = "rank  loss\n   8  0.25\t*\n\n" + "x" * WIDTH
    assert folded(table) == table and folded("") == ""


@pytest.mark.parametrize("one", [PATH, ADDRESS, CALL, CODE])
def test_what_is_copied_from_a_page_stays_in_one_piece(one):
    lines = folded(f"{WORDS}{one} {WORDS}").split("\n")
    assert len(one) > WIDTH and sum(one in line for line in lines) == 1


@pytest.mark.parametrize(("edge", "below"), [("", "  "), ("  ", "  "), ("      ", "      ")])
def test_a_line_goes_on_as_far_in_as_it_begins_or_two_spaces_in(edge, below):
    first, *rest = folded(edge + 3 * WORDS).split("\n")
    assert first.startswith(f"{edge}a word") and len(rest) > 2
    assert all(re.match(" *", line).group() == below for line in rest)


def test_a_width_can_be_asked_for():
    assert folded("one two three", 7) == "one two\n  three"


def test_say_prints_the_folded_text(capsys):
    say(f"Note: {2 * WORDS}")
    assert capsys.readouterr().out == folded(f"Note: {2 * WORDS}") + "\n"


def test_an_error_is_folded_in_a_page_and_one_line_to_a_program():
    error = LabError(f"{PATH} cannot be read. {WORDS}Call {CALL}.")
    shown = error._render_traceback_()
    assert str(error) == f"{PATH} cannot be read. {WORDS}Call {CALL}."
    assert " ".join(shown).split() == f"LabError: {error}".split()
    assert all(len(line) <= WIDTH or PATH in line or CALL in line for line in shown)


@pytest.mark.parametrize("name", ["adapter_parameters", "lead_over_majority"])
@pytest.mark.parametrize("answer", [lambda *_: None, lambda *_: "wrong"], ids=["open", "wrong"])
def test_a_check_is_folded_as_text(name, answer):
    report = checks.check(name, answer)
    sentences = [sentence for _, sentence in report.lines] + [report.note]
    lines = [line for line in repr(report).split("\n") if not line.startswith("    ")]  # not the example's
    assert any(len(sentence) > WIDTH for sentence in sentences)
    assert all(sentence in report.text for sentence in sentences)
    assert all(len(line) <= WIDTH or "checks.hint(" in line for line in lines)


def printed_prose(source: str) -> list[int]:
    """The lines on which `print` is given a text of more than WIDTH characters, whatever fills its gaps."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            texts = [one.value for text in node.args for one in ast.walk(text) if isinstance(one, ast.Constant)]
            if sum(len(max(str(one).split("\n"), key=len)) for one in texts) > WIDTH:
                found.append(node.lineno)
    return found


def test_printed_prose_is_found():
    assert printed_prose(f"print('short')\nprint(f'{'x' * 40} {{1}} {'y' * 40}')") == [2]


def test_the_library_prints_no_long_sentence_in_one_line():
    """Whatever a page may call; the commands of instructors and of the check of a GPU print to a terminal."""
    terminal = {"classroom", "gpu_check"}
    files = [path for path in (ROOT / "lab_utils").rglob("*.py") if path.parent.name not in terminal]
    assert len(files) > 200
    found = [
        (path.name, line)
        for path in files if path.name not in ("__main__.py", "command.py")
        for line in printed_prose(path.read_text(encoding="utf-8"))
    ]  # fmt: skip
    assert found == []


@pytest.mark.parametrize("way", [put, say])
def test_what_an_encoding_lacks_is_printed_as_an_escape(monkeypatch, way):
    """On Windows, what goes into a file or a pipe has the letters of one language."""
    for encoding, expected in (("utf-8", "Müll ✓"), ("cp1252", "Müll \\u2713"), ("ascii", "M\\xfcll \\u2713")):
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding=encoding, newline="\n", write_through=True)
        monkeypatch.setattr("sys.stdout", stream)
        way("Müll ✓")
        assert written.getvalue().decode(encoding) == f"{expected}\n"
