"""Every page whose cells meet the card, on a pretended one: `tests/support/pretended_pages.py` runs them, in fast mode.

A T4 computes in float16 with loss scaling, an A100 in bfloat16. The T4 comes twice in its machine, as on Kaggle, where
nothing may be spread over both; there the pages in AGAIN are run again, which must do no harm. Pages 01 to 06, 11 and
13 never ask which device there is: test_notebooks.py holds that. What a pretended card cannot show is in
`lab_utils.pretended`: kernels' numerics, speed, memory beyond tensors.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pretended_pages import NEVER_ASK

from lab_utils.folders import NOTEBOOKS, ROOT
from lab_utils.notebook.notebook_files import read_notebook

RUNNER = ROOT / "tests" / "support" / "pretended_pages.py"
PAGES = {
    "2xT4": ("00", "07", "08", "09", "10", "12", "14", "15", "16", "A", "explorers"),
    "A100": ("08", "12"),  # those that train in the card's dtype; of 12, what the dtype decides
}
ON_THE_PROCESSOR = {"A": 2**20}  # page -> bytes on the card: peft reads files by way of it


@functools.cache
def reports(card: str, folder: Path) -> dict[str, dict]:
    """page -> what became of it, in a separate process."""
    environment = os.environ | {
        "LORA_LAB_FAST": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    environment.pop("LORA_LAB_DEVICE", None)
    command = [sys.executable, str(RUNNER), card, str(folder), *PAGES[card]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"page"')]
    return {one["page"]: one for one in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pretended")


@pytest.mark.notebook
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("card", "page"), [(card, page) for card, pages in PAGES.items() for page in pages])
def test_no_cell_fails_on_a_card(card, page, folder):
    report = reports(card, folder)[page]
    assert report["failed"] == []
    if page == "explorers":
        return
    print(f"page {page} on {card}: {report['cells']} cells, {report['seconds']:.0f} s of processor time")
    assert not any("CUDA reports that you have 2" in warning for warning in report["warned"])
    if page in ON_THE_PROCESSOR:
        assert report["card_bytes"] <= ON_THE_PROCESSOR[page]
    else:
        assert report["card_bytes"] > 2**20, "nothing was put on the card"


@pytest.mark.notebook
@pytest.mark.timeout(1800)
def test_the_small_models_are_taken_where_a_larger_one_would_fit(folder):
    """Nothing is downloaded that nobody asked for, and the cards compute in their own dtype."""
    for card, dtype in (("2xT4", "float16"), ("A100", "bfloat16")):
        said = {page: one.get("said", "") for page, one in reports(card, folder).items()}
        assert "smollm2-135m, nf4, on cuda" in said["08"] and f"computing in {dtype}" in said["08"]
        assert "Qwen2.5-VL, tiny and random, nf4, on cuda." in said["12"]
    assert "Painter: tiny on Tesla T4" in reports("2xT4", folder)["12"]["said"]


def test_what_is_timed_on_a_card_is_waited_for():
    """A pretended card is never ahead of Python, so the text is looked at. Loading ends when the weights are there."""
    timed = []
    for path in NOTEBOOKS.glob("*.ipynb"):
        page = path.stem.partition("_")[0]
        if page not in NEVER_ASK and page not in ON_THE_PROCESSOR:
            sources = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]
            timed += [(page, one) for one in sources if "perf_counter" in one and "load_base" not in one]
    assert "07" in dict(timed)
    assert [page for page, source in timed if "torch.cuda.synchronize()" not in source] == []


def test_every_page_is_run_on_a_card_or_never_asks_for_one():
    pages = {path.stem.partition("_")[0] for path in NOTEBOOKS.glob("*.ipynb")}
    assert pages == NEVER_ASK | {page for pages in PAGES.values() for page in pages if page != "explorers"}
