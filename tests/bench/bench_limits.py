"""`pytest tests/bench/bench_limits.py`: limits in seconds and in a process's memory, which a busy machine may break.

`make bench` runs them, on a machine with nothing else to do. The tests hold what a neighbour cannot disturb: bytes
counted at torch's allocator, calls counted, processor time.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lab_utils.memory.peak import measured_peak, process_bytes
from lab_utils.recorded import update

MB = 10**6


def hold(megabytes: int):
    """Take memory, touch it, let it go."""
    tensor = torch.ones(megabytes * MB, dtype=torch.uint8)
    for _ in range(20):  # long enough to be seen
        tensor.add_(1)


def test_the_process_grows_by_what_is_taken_though_it_is_given_back():
    """In a separate process: one that has trained keeps freed memory, and grows less."""
    measure = "from bench_limits import hold, measured_peak; hold(64); print(measured_peak(lambda: hold(200), 'cpu'))"
    done = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert int(done.stdout) == pytest.approx(200 * MB, rel=0.1), done.stderr


def last_line_about(program: str, folder: Path, rows: int) -> str:
    """What a program prints last that is given a file of so many rows, in a separate process."""
    file = folder / f"{rows}.jsonl"
    with open(file, "w") as lines:
        for number in range(rows):
            row = {"prompt": f"Ticket {number} " + "of some length " * 15, "answer": f"sort {number}"}
            lines.write(json.dumps(row) + "\n")
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


READ_A_FILE = """
import sys
from lab_utils.finetune.examples import Examples
from lab_utils.finetune.supervision import encode_row
from lab_utils.finetune.training_rows import training_rows
from lab_utils.memory.peak import process_bytes
from lab_utils.models import load_tokenizer
from lab_utils.tasks import own
task, tokenizer = own(sys.argv[1]), load_tokenizer()
before = process_bytes()
examples = Examples(lambda row: encode_row(tokenizer, task, row), training_rows(task), 256)
print(len(examples), process_bytes() - before)
"""


def test_fifty_thousand_rows_take_no_more_memory_than_five_hundred(tmp_path):
    """Rows stay in their file, tokens are made for each batch: about two minutes."""
    taken = {}
    for rows in (500, 50_000):
        count, taken[rows] = map(int, last_line_about(READ_A_FILE, tmp_path, rows).split())
        assert count == rows * 4 // 5
    assert taken[50_000] - taken[500] < 100 * MB


LINT_A_FILE = """
import sys
from lab_utils.memory.peak import measured_peak
from lab_utils.tasks import own
own([{"prompt": f"a {number}", "answer": f"b {number}"} for number in range(20)]).report()  # imports what it needs
print(measured_peak(lambda: own(sys.argv[1]).report(), "cpu", 0.01))
"""


def test_a_report_on_fifty_thousand_rows_takes_no_more_memory_than_on_five_hundred(tmp_path):
    """Reading, splitting and the linter, near copies too: half a minute (measured: 72 MB against 36 MB)."""
    taken = {}
    for rows in (500, 50_000):
        taken[rows] = int(last_line_about(LINT_A_FILE, tmp_path, rows))
    assert taken[50_000] - taken[500] < 100 * MB


def test_what_was_there_before_does_not_count():
    kept = torch.ones(150 * MB, dtype=torch.uint8)
    assert measured_peak(lambda: kept.add_(1), "cpu") < 10 * MB
    assert process_bytes() > 150 * MB


def test_the_recorded_update_is_read_quickly():
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        update._read.__wrapped__(update.FOLDER)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.05
