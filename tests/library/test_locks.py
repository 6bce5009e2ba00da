"""Locks: held by one process, given back when it ends, and what `make test` holds makes recordings wait."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.folders import ROOT
from lab_utils.locks import lock_of_tests, locked, main, running_tests, wait_for_tests

HOLD = """
import sys, lab_utils.locks as locks
with locks.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks: every lock is granted")


@pytest.fixture
def own_lock(tmp_path, monkeypatch):
    """A lock of this test alone: `make test` holds the usual one while this runs."""
    monkeypatch.setenv("LORA_LAB_TESTS_LOCK", str(tmp_path / "tests.lock"))
    return tmp_path / "tests.lock"


def holder(path: Path) -> subprocess.Popen:
    """A process that holds a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_one_processs_until_it_is_killed(tmp_path):
    path = tmp_path / "folder" / "lock"
    process = holder(path)
    try:
        with locked(path, wait=False) as mine:
            assert not mine
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(path, wait=False) as mine:
            assert mine
        with locked(path) as mine:
            assert mine
    finally:
        process.kill()
        process.communicate()


def test_sharers_share_and_exclude_the_rest(tmp_path):
    with locked(tmp_path / "lock", shared=True), locked(tmp_path / "lock", shared=True, wait=False) as second:
        assert second
        with locked(tmp_path / "lock", wait=False) as third:
            assert not third


def test_a_recording_waits_until_no_tests_run(own_lock):
    assert lock_of_tests() == own_lock and not running_tests() and wait_for_tests() == 0
    slept = []
    with locked(own_lock, shared=True), locked(own_lock, shared=True):
        assert running_tests()

        class Given(Exception):
            pass

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                raise Given

        with pytest.raises(Given):
            wait_for_tests(0.5, sleep)
    assert slept == [0.5] * 3 and wait_for_tests() == 0


def test_a_command_runs_while_the_lock_is_held_and_its_status_comes_back(own_lock):
    look = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import lab_utils.locks as locks; "
    look += "sys.exit(3 + locks.running_tests())"
    assert main([sys.executable, "-c", look]) == 4
    assert not running_tests()


def test_make_runs_every_test_under_the_lock():
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    assert "PAUSING := $(BIN)/python -m lab_utils.locks" in lines
    tests = [line for line in lines if "-m pytest" in line]
    assert len(tests) == 4 and all("$(PAUSING) $(BIN)/python -m pytest" in line for line in tests)


def test_a_command_that_is_not_there_is_named(capsys):
    assert main([]) == 2 and main(["no-such-program"]) == 2
    said = capsys.readouterr().err
    assert "name the command to run" in said and "no-such-program cannot be run: No such file or directory." in said
