"""How fast the explorers answer, in a real JupyterLab in headless Chromium: `python tests/bench/bench_explorers.py`.

For each explorer of the notebooks: milliseconds from a key press on its slider until changed pixels were painted;
for the trainer, those of the first new curve. And from a fresh kernel's first import to an explorer on the screen.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import browser
from explorer_pages import CELL, PAGES, lay_out

FIRST = """from lab_utils.widgets import rank_explorer
import torch
rank_explorer.RankExplorer({"noise": torch.randn(96, 128)})"""


def quantile(times: list[float], share: float) -> float:
    """The value that `share` of the times do not exceed."""
    return sorted(times)[max(0, round(share * len(times) + 0.5) - 1)]


def answer_times(server, name: str, presses: int) -> list[float]:
    """Milliseconds of `presses` key presses, up and down in turns."""
    where = PAGES[name]
    with browser.open_notebook(server, where.notebook, height=1100) as page:
        if not browser.run_all(page, 300):
            raise SystemExit(f"{where.notebook} failed: {browser.errors(page)}")
        root = browser.explorer(page, CELL)
        keys = (["ArrowRight"] * 4 + ["ArrowLeft"] * 4) * (presses // 8 + 2)  # the shortest slider has four moves
        pause = 700 if where.limit_ms > 100 else 120
        slider = root.get_by_label(where.label, exact=True)
        browser.press_times(page, root, slider, where.watch, keys[:4], pause)  # warm
        return browser.press_times(page, root, slider, where.watch, keys[4 : 4 + presses], pause)


def first_explorer_seconds(server, folder: Path, name: str) -> float:
    """Seconds from running a one-cell notebook, in a kernel that has imported nothing, to an explorer on the screen."""
    cell = {"cell_type": "code", "id": "a", "source": FIRST, "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / name).write_text(json.dumps(notebook))
    with browser.open_notebook(server, name) as page:
        began = time.perf_counter()
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        page.wait_for_selector(".lab-explorer canvas", timeout=60_000)
        return time.perf_counter() - began


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presses", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), metavar="NAME", help="default: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-lab-bench-") as temporary:
        folder = Path(temporary) / "notebooks"
        lay_out(folder)
        with browser.serve(folder, {"HF_HUB_OFFLINE": "1"}) as server:
            print(f"{options.presses} key presses each")
            print(f"{'explorer':12}{'median ms':>11}{'p95 ms':>9}{'limit ms':>10}", flush=True)
            for name in options.only:
                where, times = PAGES[name], answer_times(server, name, options.presses)
                high = quantile(times, 0.95)
                verdict = "" if high <= where.limit_ms else "  TOO SLOW"
                middle = statistics.median(times)
                print(f"{name:12}{middle:11.1f}{high:9.1f}{where.limit_ms:10.0f}{verdict}", flush=True)
            seconds = [first_explorer_seconds(server, folder, f"first{turn}.ipynb") for turn in range(3)]
            print(f"first import to first explorer: {', '.join(f'{s:.1f}' for s in seconds)} s (limit 3)")


if __name__ == "__main__":
    main()
