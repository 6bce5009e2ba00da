"""Find a Chromium or Chrome for the browser tests; `python tests/support/find_browser.py --install` gets one if there
is none.

Prints the path of the browser's program. Looked for in this order: LORA_LAB_BROWSER, the PATH, macOS's
Applications, Playwright's own download. Installed as Debian's package where we are root, else by Playwright.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
DEBIAN = ("chromium", "fonts-liberation", "fonts-dejavu-core", "fonts-noto-color-emoji")
ADVICE = """No Chromium or Chrome was found, which the browser test needs. Any one of these gives it one:
  Debian, Ubuntu:  sudo apt-get install chromium
  macOS:           install Google Chrome
  anywhere:        .venv/bin/playwright install chromium
  elsewhere on this machine: set LORA_LAB_BROWSER to the path of its program
All other tests run without: .venv/bin/pytest -m "not browser\""""


def find() -> str | None:
    """The path of a browser that starts, or None."""
    given = os.environ.get("LORA_LAB_BROWSER")
    candidates = [given] if given else [*map(shutil.which, NAMES), *APPLICATIONS]
    found = next((path for path in candidates if path and _starts(path)), None)
    if found or given:
        return found
    own = _playwrights()
    return own if own and _starts(own) else None


def _starts(path: str) -> bool:
    """Whether `path` answers --version: Ubuntu's package `chromium` is a mere pointer to a snap."""
    if not Path(path).is_file():
        return False
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and "Chrom" in result.stdout


def _playwrights() -> str | None:
    """Where Playwright would put the Chromium that it downloads."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return None
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def install() -> None:
    """Try to get a browser; the tools' own messages go to stderr."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if is_root and shutil.which("apt-get"):
        _run("apt-get", "update", "-qq")
        if _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *DEBIAN) and find():
            return
    _run(sys.executable, "-m", "playwright", "install", "--no-shell", "chromium")


def _run(*command: str) -> bool:
    """Run a command, saying so; whether it succeeded."""
    print(f"No browser yet: {' '.join(command)}", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, stdout=sys.stderr, env=environment).returncode == 0


def main() -> int:
    path = find()
    if path is None and "--install" in sys.argv[1:]:
        install()
        path = find()
    print(path or ADVICE, file=sys.stdout if path else sys.stderr)
    return 0 if path else 2


if __name__ == "__main__":
    sys.exit(main())
