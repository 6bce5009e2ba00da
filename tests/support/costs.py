"""What each test costs, written down: `pytest --costs FILE` in one process or on many.

One line of JSON a test, and one a shared fixture: the processor's seconds, those of processes that were waited for (a
kernel, a command and what they started; not what outlives the test), the clock's, and how often something was started.
`python tests/support/costs.py FILE` makes `tests/slow.txt` of it: what `make quick` leaves out.
"""

import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LIST = TESTS / "slow.txt"
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec", "socket.bind"}
ONE_TEST, ALL_CASES = 0.25, 0.12  # processor seconds of one test; of all cases of one function

HEAD = """\
# Tests and shared fixtures that `make quick` leaves out, beside those that tests/conftest.py knows by their markers and
# fixtures: they start a process or a server, or take long. A line is a whole file, a test with all its cases, or a
# fixture with every test that asks for it. Remade by:
#   .venv/bin/pytest -m "not training and not notebook and not browser" --costs costs.jsonl
#   .venv/bin/python tests/support/costs.py costs.jsonl
"""


class Costs:
    """The plugin: `pytest_configure` in conftest.py registers it where --costs is given."""

    def __init__(self, path: Path):
        self.path, self.starts = path, 0
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments) -> None:
        self.starts += event in STARTS

    def write(self, kind: str, name: str, before: dict[str, float]) -> None:
        after = self.now()
        spent = {part: round(now - then, 3) for (part, now), then in zip(after.items(), before.values(), strict=True)}
        line = {kind: name, **spent}
        with open(self.path, "a") as file:  # one short write a line: processes that share the file do not mix
            file.write(json.dumps(line) + "\n")

    def now(self) -> dict[str, float]:
        passed = os.times()
        return {
            "seconds": time.perf_counter(), "processor": time.process_time(),
            "children": passed.children_user + passed.children_system, "starts": self.starts,
        }  # fmt: skip

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        before = self.now()
        result = yield
        self.write("test", item.nodeid, before)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before = self.now()
        result = yield
        if fixturedef.scope != "function":
            self.write("fixture", f"{fixturedef.baseid}::{fixturedef.argname}", before)
        return result


def slow_names(lines: list[dict]) -> list[str]:
    """Files, tests and fixtures, as in `tests/slow.txt`, out of the lines that --costs wrote."""
    fixtures = {line["fixture"] for line in lines if ".py::" in line.get("fixture", "") and costly(line)}
    cases = defaultdict(list)
    for line in lines:
        if "test" in line:
            cases[line["test"].partition("[")[0]].append(line)
    slow = {
        name
        for name, tests in cases.items()
        if any(map(costly, tests)) or sum(test["processor"] for test in tests) > ALL_CASES
    }
    files = defaultdict(set)
    for name in cases:
        files[name.partition("::")[0]].add(name)
    whole = {file for file, names in files.items() if names <= slow}
    return sorted(whole | {name for name in slow | fixtures if name.partition("::")[0] not in whole})


def costly(line: dict) -> bool:
    """Did it start something, or take long? The clock counts less: another process on the machine disturbs it."""
    return line["starts"] > 0 or line["processor"] > ONE_TEST or line["seconds"] > 10 * ONE_TEST


if __name__ == "__main__":
    names = slow_names([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()])
    LIST.write_text(HEAD + "\n".join(names) + "\n")
    print(f"{len(names)} lines in {LIST}")
