"""What people do to pages: cells twice, in any order, after a restart, interrupted. Real kernels, step by step.

A cell either works, or its message names the cell to run; a reader who follows the messages arrives.
"""

import os
import random
import re
import signal
import threading
import time
from contextlib import contextmanager

import nbformat
import pytest
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError
from unfolded import unfolded

from lab_utils.classroom import course
from lab_utils.notebook.cells import needed

pytestmark = pytest.mark.notebook
PAGES = {path.name[:2]: path for path in sorted(course.NOTEBOOKS.glob("[01]*.ipynb"))}


class Person:
    """Somebody at a page: runs its code cells in any order, and does what the messages say."""

    def __init__(self, path, environment):
        notebook = nbformat.read(path, as_version=4)
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.client = course.client_for(notebook, path, course.FAST_CELL_SECONDS)
        self.environment = environment
        self.sent_back = 0  # how often a message named another cell

    @contextmanager
    def at_work(self):
        """With its own kernel."""
        variables = {**os.environ, "LORA_LAB_FAST": "1", **self.environment}
        with self.client.setup_kernel(cleanup_kc=True, env=variables):
            yield self

    def run(self, number: int) -> str:
        """Run a code cell, counted from 1; returns the error it shows, or nothing."""
        cell = self.cells[number - 1]
        try:
            self.client.execute_cell(cell, self.client.nb.cells.index(cell))
        except CellExecutionError as error:
            return unfolded(re.sub(r"\x1b\[[0-9;]*m", "", error.traceback))
        return ""

    def run_and_interrupt(self, number: int, when) -> str:
        """Run a code cell and press ■ (SIGINT) as soon as `when()` is true; returns the error it shows."""
        over = threading.Event()

        def press():
            while not over.wait(0.05):
                if when():
                    return os.kill(self.client.km.provisioner.pid, signal.SIGINT)

        finger = threading.Thread(target=press)
        finger.start()
        try:
            return self.run(number)
        finally:
            over.set()
            finger.join()

    def follow(self, number: int) -> None:
        """Run a cell; where a message names another one, run that first, and then this one again."""
        while error := self.run(number):
            named = re.search(r"NameError.*made above, by code cell (\d+) of", error, re.DOTALL)
            assert named, f"code cell {number} leaves its reader stranded:\n{error}"
            assert int(named[1]) < number
            self.sent_back += 1
            self.follow(int(named[1]))

    def value(self, code: str) -> str:
        """repr of an expression in the kernel, asked without a trace."""

        async def ask():
            return await self.client.kc.execute("", user_expressions={"x": code}, store_history=False, reply=True)

        answer = run_sync(ask)()["content"]["user_expressions"]["x"]
        assert answer["status"] == "ok", answer
        return answer["data"]["text/plain"]

    def restart(self) -> None:
        """What "Restart Kernel" does: all names are gone."""
        run_sync(self.client.km.restart_kernel)(now=True)
        run_sync(self.client.kc.wait_for_ready)(timeout=60)

    def text(self) -> dict[int, str]:
        """What each cell last wrote, less what it measured with a clock."""
        written = {}
        for number, cell in enumerate(self.cells, 1):
            if not re.search(r"time|seconds", cell.source):
                parts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs]
                written[number] = re.sub(r"0x[0-9a-f]+", "", "".join(parts))
        return written


def test_after_a_restart_and_in_any_order_the_messages_lead_to_the_same_page(tmp_path):
    """Every cell ends with the same words as on a page run from top to bottom; run twice in a row too.

    One page: that every cell of every page names the cell that makes what it needs, test_cells.py reads from the text.
    """
    person = Person(PAGES["01"], {"LORA_LAB_RUNS": str(tmp_path)})
    numbers = list(range(1, len(person.cells) + 1))
    with person.at_work():
        assert [person.run(number) for number in numbers] == [""] * len(numbers)
        wanted = person.text()
        assert len(wanted) > len(numbers) / 2

        person.restart()
        for number in numbers[len(numbers) // 2 :]:
            person.follow(number)
        assert person.sent_back >= 1 and person.text() == wanted

        person.restart()
        random.Random(0).shuffle(numbers)
        for number in numbers:
            person.follow(number)
            assert person.run(number) == ""
        assert person.text() == wanted


def test_interrupted_while_training_the_page_goes_on_from_the_checkpoint(tmp_path):
    """Page 08 up to its training cell, with a small recipe."""
    notebook = nbformat.read(PAGES["08"], as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    training = next(index for index, source in enumerate(sources) if "run = finetune.finetune(" in source)
    picked = [sources[index] for index in [*needed(sources, training), training, training + 1]]
    small = "finetune.Recipe(steps=12, checkpoint_every=2, batch_size=2, train_examples=16)"
    picked = [re.sub(r"^recipe = .*", f"recipe = {small}", source, flags=re.MULTILINE) for source in picked]
    assert sum(small in source for source in picked) == 1
    page = tmp_path / "stand_in.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, picked))), page)

    runs, last = tmp_path / "runs", len(picked)
    person = Person(page, {"LORA_LAB_RUNS": str(runs)})
    with person.at_work():
        for number in range(1, last - 1):
            assert person.run(number) == ""
        error = person.run_and_interrupt(last - 1, when=lambda: list(runs.glob("*/checkpoint-000002")))
        written = unfolded("".join(output.get("text", "") for output in person.cells[last - 2].outputs))
        found = re.search(r"Interrupted. Steps 1 to (\d+) are saved in .*: run the same cell again", written)
        assert found, (written, error)
        saved = int(found[1])
        assert saved < 12 and "KeyboardInterrupt" in error and "Run it again before you go on" in error
        error = person.run(last)
        assert f"`run` is made above, by code cell {last - 1} of stand_in.ipynb" in error
        assert "did not get that far. Run it first" in error

        person.follow(last)
        assert person.sent_back == 1 and person.value("run.resumed_from, len(run.history)") == f"({saved}, 12)"
        person.value(
            "finetune.finetune(recipe, 'unbroken', base=(base, tokenizer), dataset=data, progress=False).resumed_from"
        )
    interrupted, unbroken = (
        next(folder.rglob("adapter/adapter_model.safetensors")).read_bytes() for folder in (runs, tmp_path / "unbroken")
    )
    assert interrupted == unbroken


def test_an_interrupted_race_can_be_run_again(tmp_path):
    """Page 04 trains six small adapters in one cell and keeps nothing of a broken one."""
    person = Person(PAGES["04"], {})
    sources = [cell.source for cell in person.cells]
    race = next(index for index, source in enumerate(sources) if "rights = [adapt(" in source)
    with person.at_work():
        for index in needed(sources, race):
            assert person.run(index + 1) == ""
        began = time.monotonic()
        error = person.run_and_interrupt(race + 1, when=lambda: time.monotonic() > began + 0.3)
        assert "KeyboardInterrupt" in error and "this cell has not done its work. Run it again" in error
        assert person.run(race + 1) == ""
        again = person.text()[race + 1]
        assert person.run(race + 1) == "" and person.text()[race + 1] == again != ""
