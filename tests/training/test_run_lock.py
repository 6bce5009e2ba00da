"""One process per run: the second is refused at once, and what a killed one leaves behind is in nobody's way."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from unfolded import unfolded

from lab_utils.errors import LabError
from lab_utils.finetune.run_lock import NAME, held, held_file
from lab_utils.folders import ROOT

HOLD = "import sys, pathlib; from lab_utils.finetune.run_lock import held\nwith held(pathlib.Path(sys.argv[1])):\n"


def holder(folder: Path) -> subprocess.Popen:
    """A process that holds a run's folder until its input ends."""
    code = f"{HOLD}    print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_another_process_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "deeper" / "run"
    process = holder(folder)
    words = r"run is in use: another process trains there.*another output_dir"
    with pytest.raises(LabError, match=words), held(folder):
        pass
    with held(tmp_path / "deeper" / "other"):
        pass
    end(process)
    with held(folder):
        pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_lock_that_a_killed_process_leaves_behind_blocks_nobody(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert (tmp_path / NAME).exists()
    with held(tmp_path):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_call_that_was_interrupted_can_be_repeated(tmp_path, error):
    for _ in range(2):
        with pytest.raises(error), held(tmp_path):
            raise error


def test_another_thread_is_refused_too(tmp_path):
    found = []

    def try_it():
        try:
            with held(tmp_path):
                found.append("held")
        except LabError as error:
            found.append(str(error))

    with held(tmp_path):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert "is in use" in found[0]


@pytest.mark.parametrize("folder", ["a\0b", "a\ud800b", "a" * 300, None, 5], ids=lambda folder: ascii(folder)[:9])
def test_a_folder_that_cannot_be_is_refused(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    for lock in (held, held_file):
        with pytest.raises(LabError, match=r"cannot be a path|is not a path"), lock(folder):
            pass
    assert list(tmp_path.iterdir()) == []


def test_one_file_of_a_folder_can_be_held_while_another_one_is(tmp_path):
    table = tmp_path / "deep" / "table.csv"
    with held_file(table), held_file(tmp_path / "deep" / "other.csv"):
        with pytest.raises(LabError, match=r"table\.csv is in use: another process writes it.*another path"):
            with held_file(str(table)):
                pass
        assert not table.exists()
    with held_file(table):
        pass


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("mine")
    words = r"run cannot be this run's folder: .*A file is in the way"
    with pytest.raises(LabError, match=words), held(tmp_path / "run"):
        pass
    with pytest.raises(LabError, match="A file is in the way"), held(tmp_path / "run" / "deeper"):
        pass
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "words"),
    [("EROFS", "can only be read: choose another folder"), ("EACCES", "choose a folder of your own"),
     ("ENOSPC", "disk is full"), ("EDQUOT", "quota is used up")],
)  # fmt: skip
def test_a_folder_that_cannot_be_written_is_named_with_the_cause(tmp_path, monkeypatch, number, words):
    import errno

    from filelock import FileLock

    def fail(self, *_, **__):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(FileLock, "acquire", fail)
    with pytest.raises(LabError, match=f"cannot be this run's folder: .*{words}"), held(tmp_path):
        pass


def test_where_nothing_can_be_locked_it_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    import errno

    from filelock import FileLock

    def fail(self, *_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", fail)
    with held(tmp_path):
        pass
    assert "cannot be locked here" in unfolded(capsys.readouterr().out)
