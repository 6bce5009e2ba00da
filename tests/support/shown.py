"""What an explorer shows at a setting, as text, without a browser: its own script drawn on a page that only reads."""

import json
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).with_name("fake_page.mjs")


def node() -> str | None:
    """The program that runs JavaScript: the machine's, or the one that comes with Playwright; None without both."""
    found = shutil.which("node")
    if found is None:
        try:
            from playwright._impl._driver import compute_driver_executable
        except ImportError:
            return None
        found = str(compute_driver_executable()[0])
    return found


def shown(explorer, moves: list[dict]) -> list[dict]:
    """What is read after each move.

    Parameters
    ----------
    explorer : an explorer, as Python made it; it is not changed
    moves : list of dict trait -> value, each made after the one before

    Returns
    -------
    list of dict: "sentence", what the explorer says, and "named", the names of its pictures and charts
    """
    hidden = ("_esm", "_css", "layout", "comm", "_model_id")
    state = {name: value for name, value in explorer.get_state().items() if name not in hidden}
    text = json.dumps({"esm": explorer._esm, "state": state, "moves": moves})
    done = subprocess.run([node(), str(SCRIPT)], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
