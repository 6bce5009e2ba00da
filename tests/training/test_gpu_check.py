"""The check of a GPU: nothing of its report is lost, a section's failure stops no other, and a dry run passes."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.errors import LabError
from lab_utils.folders import NOTEBOOKS, ROOT
from lab_utils.gpu_check import command, worker
from lab_utils.gpu_check.command import main, read_command
from lab_utils.gpu_check.report import JSON_NAME, MARKDOWN_NAME, Report, row_of
from lab_utils.gpu_check.sections import NAMES, SECTIONS, Finding, Section, Setting, Skipped
from lab_utils.gpu_check.supervise import Worker, supervise

PAGE = "page-01"  # the one page of the dry run here: a quick one
PASSED = {"status": "passed", "text": "fine", "seconds": 1.0, "values": {"number": 1.5}, "details": "", "broken": False}


def section(name, **changes):
    return Section(**{"name": name, "title": name, "function": "none:none", "seconds": 60, "needs": ()} | changes)


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


class Played:
    """A worker whose answers are written down: a dict, None for one that is late, or an exception."""

    def __init__(self, clock, answers, seconds=1.0, before=lambda name: None):
        self.clock, self.answers, self.seconds, self.before = clock, answers, seconds, before
        self.asked, self.ends = [], 0

    def ask(self, name, seconds):
        self.before(name)
        self.asked.append(name)
        answer = self.answers.get(name, PASSED)
        self.clock.now += seconds if answer is None else self.seconds
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self, politely=False):
        self.ends += 1


def run(folder, sections, answers=None, budget=1000.0, pretended="", **played):
    """(report, worker, lines) of sections that were supervised."""
    clock, lines = Clock(), []
    report, one = Report(folder, pretended), Played(clock, answers or {}, **played)
    supervise(sections, report, one, budget, say=lines.append, clock=clock)
    return report, one, lines


def saved(folder):
    return json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))


def test_a_check_that_is_killed_has_left_the_rows_that_were_done(tmp_path):
    seen = []
    look = lambda name: seen.append(len(saved(tmp_path)["sections"]) if seen else 0)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [section(name) for name in "abc"], {"c": KeyboardInterrupt()}, before=look)
    left = saved(tmp_path)
    assert seen == [0, 1, 2] and [row["name"] for row in left["sections"]] == ["a", "b"]
    assert not left["finished"] and not left["passed"]
    assert "did not come to its end" in (tmp_path / MARKDOWN_NAME).read_text(encoding="utf-8")


def test_a_section_that_fails_hangs_or_dies_stops_no_other(tmp_path):
    answers = {"a": {**PASSED, "status": "failed"}, "b": None, "c": EOFError("its process ended with -9")}
    report, one, lines = run(tmp_path, [section(name) for name in "abcd"], answers)
    assert [row.status for row in report.rows] == ["failed", "failed", "failed", "passed"]
    assert one.asked == list("abcd") and one.ends == 1 and report.failures == list("abc")
    assert "not done after 180 s" in report.rows[1].text  # its own 60, 120 for a process to start
    assert "ended with -9" in report.rows[2].text and len(lines) == 4 and saved(tmp_path)["finished"]


def test_what_does_not_fit_into_the_time_is_skipped_and_says_how_to_run_it(tmp_path):
    report, one, _ = run(tmp_path, [section("a"), section("b"), section("c")], {"b": None}, budget=100, seconds=20)
    assert [row.status for row in report.rows] == ["passed", "skipped", "skipped"] and one.asked == ["a", "b"]
    assert all(f"--only {row.name}" in row.text for row in report.rows[1:]) and report.failures == []


def test_a_missing_package_is_named_and_nothing_is_asked(tmp_path):
    report, one, _ = run(tmp_path, [section("a", needs=("json", "not_a_package_at_all"))])
    assert report.rows[0].status == "skipped" and one.asked == []
    assert "pip install not_a_package_at_all" in report.rows[0].text


def test_where_the_card_cannot_be_used_nothing_else_is_tried(tmp_path):
    answers = {"card": {**PASSED, "status": "failed", "text": "no kernels for it"}}
    report, one, _ = run(tmp_path, [section("card", gate=True), section("a"), section("b")], answers)
    assert one.asked == ["card"] and [row.text for row in report.rows[1:]] == ["not tried, because card failed"] * 2


def test_only_required_sections_decide(tmp_path):
    failed = {**PASSED, "status": "failed"}
    sections = [section("a", remedy="Nothing."), section("b", required=False, remedy="Look.")]
    report, _, lines = run(tmp_path, sections, {"b": failed})
    assert report.failures == [] and saved(tmp_path)["passed"] and "failed, not required" in lines[1]
    assert [line.count("\n") for line in lines] == [0, 1] and lines[1].endswith("Look.")
    assert (tmp_path / MARKDOWN_NAME).read_text(encoding="utf-8").count("What to do: ") == 1


@pytest.mark.parametrize("pretended", ["", "T4"])
def test_numbers_of_a_pretended_card_are_called_so(tmp_path, pretended):
    _, _, lines = run(tmp_path, [section("card"), section("speed", measures=True)], pretended=pretended)
    text, data = (tmp_path / MARKDOWN_NAME).read_text(encoding="utf-8"), saved(tmp_path)
    assert [row["not_measured"] for row in data["sections"]] == [False, bool(pretended)]
    assert ("pretended" in text.splitlines()[0]) == bool(pretended) and data["pretended"] == (pretended or None)
    assert text.count("Of a pretended card: not a measurement.") == bool(pretended)
    assert ("fine (pretended)" in text) == ("fine (pretended)" in lines[1]) == bool(pretended)


def test_every_page_has_a_section_and_every_section_a_function():
    pages = {page.stem for page in NOTEBOOKS.glob("*.ipynb")}
    assert {one.argument for one in SECTIONS if one.argument} == pages and len(set(NAMES)) == len(SECTIONS)
    assert all(callable(worker._function(one.function)) and one.remedy for one in SECTIONS)


def test_the_guide_names_every_section():
    guide = (NOTEBOOKS / "INSTRUCTORS.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if not name.startswith("page-") and f"`{name}`" not in guide] == []
    assert "`page-08` and so on" in guide


def raising(error):
    def function(setting):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "status", "text", "broken"),
    [
        (Skipped("no room"), "skipped", "no room", False),
        (LabError("Lower the rank."), "failed", "Lower the rank.", False),
        (ValueError("odd"), "failed", "ValueError: odd", False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "failed", "RuntimeError: CUDA", True),
    ],
)
def test_whatever_a_section_raises_is_a_row(monkeypatch, tmp_path, error, status, text, broken):
    monkeypatch.setattr(worker, "_function", lambda address: raising(error))
    found = worker.answer(section("a"), Setting("", tmp_path))
    assert (found["status"], found["broken"]) == (status, broken) and found["text"].startswith(text)
    assert str(Path.home()) not in found["details"]
    assert ("test_gpu_check.py" in found["details"]) == (status == "failed")


def test_a_finding_becomes_a_row(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "_function", lambda address: lambda setting: Finding(True, "all equal", {"cases": 3}))
    found = worker.answer(section("a"), Setting("", tmp_path))
    row = row_of(section("a"), found["status"], found["text"], found["seconds"], values=found["values"])
    assert (row.status, row.text, row.values) == ("passed", "all equal", {"cases": 3})


def test_a_process_that_dies_is_an_end_of_file_and_the_next_section_gets_another_one(tmp_path):
    one = Worker("", tmp_path, tmp_path / "log")
    try:
        with pytest.raises(EOFError, match="ended with 1"):
            one.ask("no such section", 60)
        assert one.process is None and "KeyError" in (tmp_path / "log").read_text(encoding="utf-8")
        assert one.ask("card", 60)["status"] in ("failed", "passed") and one.process.is_alive()
    finally:
        one.end(politely=True)


def test_without_a_card_it_says_what_can_be_done(capsys, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--output", str(tmp_path)]) == 2
    assert "--pretend T4" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_where_no_report_can_be_written_it_says_so(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["--pretend", "T4", "--output", str(tmp_path / "file" / "folder")]) == 2
    assert "--output names a folder" in capsys.readouterr().err


def test_a_disk_that_is_full_ends_no_check(monkeypatch, tmp_path):
    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Report, "write", full)
    _, one, lines = run(tmp_path, [section("a"), section("b")])
    assert one.asked == ["a", "b"] and [line for line in lines if "not written" in line and "free some space" in line]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--only", "stars"], "stars"), (["--pretend", "Z80"], "Z80"), (["--budget", "0"], "budget")],
)
def test_an_unknown_word_is_named(arguments, named):
    with pytest.raises(LabError, match=named):
        read_command(arguments)


def test_a_pretended_card_gets_more_time_because_its_times_mean_nothing():
    assert read_command([]).budget == command.BUDGET_SECONDS < 480
    assert read_command(["--pretend", "T4"]).budget > sum(one.seconds for one in SECTIONS)
    assert section("a").allowed_seconds("T4") > section("a").allowed_seconds("") == 60


def python(*arguments, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LORA_LAB_DEVICE": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd)


@pytest.mark.training
def test_a_dry_run_on_a_pretended_t4_passes_every_section(tmp_path):
    """About 40 s of processor time."""
    chosen = [name for name in NAMES if not name.startswith("page-") or name == PAGE]
    done = python("-m", "lab_utils.gpu_check", "--pretend", "T4", "--output", str(tmp_path), "--only", *chosen)
    found = saved(tmp_path)
    assert {row["name"]: row["status"] for row in found["sections"]} == dict.fromkeys(chosen, "passed"), done.stdout
    assert done.returncode == 0 and found["finished"] and found["pretended"] == "T4"
    rows = {row["name"]: row for row in found["sections"]}
    assert [name for name in chosen if rows[name]["not_measured"]] == ["memory", "speed", "large"]
    assert (tmp_path / MARKDOWN_NAME).read_text(encoding="utf-8").startswith("# GPU check: pretended T4")


@pytest.mark.training
def test_planted_faults_are_found(tmp_path):
    """About 15 s of processor time."""
    done = python(str(ROOT / "tests" / "support" / "gpu_check_faults.py"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {fault: status for fault, (_, status, _) in found.items()} == dict.fromkeys(found, "failed"), found
    assert len(found) == 6 and "bitsandbytes on the card" in found["another_code"][2]
    assert "further from float32" in found["larger_gradient"][2] and "not paged" in found["unpaged"][2]
    assert "into 4 bits was not refused" in found["merge_takes_anything"][2]
    assert found["cell_that_fails"][2].startswith("cell 2 of 3: ZeroDivisionError")
