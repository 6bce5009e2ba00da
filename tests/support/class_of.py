"""Play a class at a real JupyterHub: everyone at once, some kernels killed in the middle, memory measured.

    python tests/support/class_of.py --students 10 --kills 2
    python tests/support/class_of.py --students 1 --kills 0 --pages 01 02 03 04 05 06 07 08
"""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
import psutil
from hub_server import Hub, serve
from hub_student import KernelDied, Student
from tornado.httpclient import AsyncHTTPClient

NAMES = "ada ben cleo dan eva finn gina hugo ines jan".split()
FOLDER = "lora-lab/notebooks"  # of the pages, in a student's home
MIB = 2**20


@dataclass
class Report:
    """What happened to one student; memory in MiB."""

    name: str
    errors: list = field(default_factory=list)
    finished: dict = field(default_factory=dict)  # page -> seconds
    killed: dict = field(default_factory=dict)  # page -> what was true after the kill
    server_mib: float = 0.0
    kernels_mib: dict = field(default_factory=dict)  # page -> of its kernel
    peaks_mib: dict = field(default_factory=dict)  # page -> the most its kernel ever had resident
    cpu_seconds: dict = field(default_factory=dict)  # of the server and, by page, of the kernels that run at the end
    ready_seconds: float = 0.0  # from the request for a server to its first answer


def memory_mib(process: psutil.Process) -> float:
    """Memory that a process takes, its share of shared pages included (Linux); elsewhere what it alone has."""
    info = process.memory_full_info()
    return getattr(info, "pss", info.uss) / MIB


def peak_mib(process: psutil.Process) -> float:
    """The most that a process had resident so far (Linux); elsewhere what it has now."""
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    return process.memory_info().rss / MIB


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that a process has taken."""
    times = process.cpu_times()
    return times.user + times.system


def pages_named(folder: Path, numbers: list[str]) -> list[str]:
    """Paths of pages in a student's home by their numbers."""
    return [f"{FOLDER}/{next(folder.glob(f'{number}_*.ipynb')).name}" for number in numbers]


async def attend(hub: Hub, client, name: str, numbers: list[str], kill: str | None, report: Report) -> dict:
    """One student's lesson; returns the kernels that it leaves running, by page. `kill` is the page that is cut."""
    student = Student(hub.url, name, client)
    began = time.monotonic()
    await student.log_in()
    await student.start_server()
    report.ready_seconds = time.monotonic() - began
    kernels = {}
    for page in pages_named(hub.home(name) / FOLDER, numbers):
        began = time.monotonic()
        notebook = await student.load(page)
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"Notes of {name}: predict first, then run."))
        await student.save(page, notebook)
        kernel = kernels[page] = await student.open_kernel(page)
        if Path(page).name[:2] == kill:
            await be_cut(hub, student, page, kernel, notebook, report)
        report.errors += await student.run(page, kernel)
        report.finished[page] = time.monotonic() - began
    return kernels


async def be_cut(hub: Hub, student: Student, page: str, kernel, notebook, report: Report) -> None:
    """Run a page until its kernel is killed in the middle of a cell; note what is left once it is back."""
    middle = sum(cell.cell_type == "code" for cell in notebook.cells) // 2
    disk = hub.home(student.name) / page

    def kill(number: int) -> None:
        if number == middle:
            os.kill(hub.kernels(student.name)[kernel.identifier].pid, signal.SIGKILL)

    began = time.monotonic()
    try:
        await student.run(page, kernel, notebook, kill)
    except KernelDied:
        before, now = json.loads(student.saved[page]), json.loads(disk.read_text(encoding="utf-8"))
        report.killed[page] = {
            "saved outputs": sum(len(cell.get("outputs", [])) for cell in now["cells"]),
            "same file": now["cells"] == _as_on_disk(before) == _as_on_disk(await student.load(page)),
            "fresh kernel": await kernel.value("'torch' not in dir()") == "True",
            "seconds": time.monotonic() - began,
        }


def _as_on_disk(notebook: dict) -> list:
    """Cells of a notebook in memory, written and read once as the server does."""
    return json.loads(nbformat.writes(nbformat.from_dict(notebook)))["cells"]


async def play(hub: Hub, names: list[str], numbers: list[str], kills: dict[str, str], stagger: float) -> list[Report]:
    """Everyone comes, a little after one another, and works through the pages; then all memory is measured.

    `kills` maps a student's name to the number of the page whose kernel is killed; `stagger` is in seconds.
    """
    client = AsyncHTTPClient(force_instance=True, max_clients=4 * len(names))
    reports = {name: Report(name) for name in names}

    async def come(late: float, name: str) -> dict:
        await asyncio.sleep(late)
        return await attend(hub, client, name, numbers, kills.get(name), reports[name])

    async with asyncio.timeout(900):
        opened = await asyncio.gather(*(come(stagger * place, name) for place, name in enumerate(names)))
    for name, kernels in zip(names, opened, strict=True):
        report, server, running = reports[name], hub.servers()[name], hub.kernels(name)
        report.server_mib = memory_mib(server)
        report.cpu_seconds["server"] = cpu_seconds(server)
        for page, process in ((page, running[kernel.identifier]) for page, kernel in kernels.items()):
            report.kernels_mib[page] = memory_mib(process)
            report.peaks_mib[page] = peak_mib(process)
            report.cpu_seconds[page] = cpu_seconds(process)
    client.close()
    return list(reports.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=10, choices=range(1, len(NAMES) + 1), metavar="1..10")
    parser.add_argument("--kills", type=int, default=2, help="how many of them lose a kernel (default 2)")
    parser.add_argument("--pages", nargs="+", default=["01", "05"], help="numbers of pages (default 01 05)")
    parser.add_argument("--stagger", type=float, default=1.0, help="seconds between two who come (default 1)")
    arguments = parser.parse_args()
    names = NAMES[: arguments.students]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the hub is ended too
    kills = {name: arguments.pages[place % len(arguments.pages)] for place, name in enumerate(names[: arguments.kills])}
    with tempfile.TemporaryDirectory(prefix="lora-lab-hub-", ignore_cleanup_errors=True) as folder:
        began = time.monotonic()
        with serve(Path(folder)) as hub:
            up = time.monotonic() - began
            reports = asyncio.run(play(hub, names, arguments.pages, kills, arguments.stagger))
            hub_mib = memory_mib(hub.process)
            proxy_mib = sum(memory_mib(each) for each in hub.process.children() if each not in hub.servers().values())
            print(f"hub up in {up:.1f} s, {hub_mib:.0f} MiB, proxy {proxy_mib:.0f} MiB")
        for report in reports:
            print(json.dumps(asdict(report), default=float))
        print(f"{len(names)} students, {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
