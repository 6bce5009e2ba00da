"""A real JupyterLab in a headless Chromium, for tests: start the server, open a notebook, run it, take pictures.

    with serve(folder) as server, open_notebook(server, "08_qlora_finetune.ipynb") as page:
        assert run_all(page, timeout_seconds=600)
        page.screenshot(path="shot.png")
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import find_browser

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"
KERNEL_STATUS = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, token, and the file of its log."""

    url: str
    token: str
    log: Path


@contextlib.contextmanager
def serve(folder: Path, environment: dict[str, str] | None = None):
    """Start `jupyter lab` on a free port with `folder` as its root; yields a Server and ends it afterwards.

    Everything Jupyter keeps (settings, workspaces, runtime, history) goes to a temporary folder. `environment`
    is added to this process's for the server and its kernels.
    """
    with tempfile.TemporaryDirectory(prefix="lora-lab-jupyter-", ignore_cleanup_errors=True) as home:
        home, token = Path(home), secrets.token_hex(16)
        config = home / "config" / "labconfig"
        config.mkdir(parents=True)
        (config / "page_config.json").write_text(json.dumps({"disabledExtensions": {ANNOUNCEMENTS: True}}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}",
            "--LabApp.expose_app_in_browser=True", f"--LabApp.workspaces_dir={home / 'workspaces'}",
            f"--LabApp.user_settings_dir={home / 'settings'}",
        ]  # fmt: skip
        folders = {
            f"{name}_DIR": str(home / name.rpartition("_")[2].lower())
            for name in ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME")
        }
        process_environment = {**os.environ, **folders, "IPYTHONDIR": str(home / "ipython"), **(environment or {})}
        log = home / "server.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=process_environment)
        try:
            server = Server(f"http://127.0.0.1:{port}", token, log)
            _wait_until_up(server, process)
            yield server
        finally:
            _stop(process)


def _wait_until_up(server: Server, process: subprocess.Popen, seconds: float = 120) -> None:
    """Return when the server answers; raise with its log when it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{server.url}/api/status?token={server.token}", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{server.log.read_text(errors='replace')[-3000:]}")


def _stop(process: subprocess.Popen) -> None:
    """End the server; on SIGTERM it shuts its kernels down first."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def open_notebook(server: Server, name: str, *, width: int = 1280, height: int = 900):
    """Open a notebook in its own Chromium window; yields Playwright's page once the kernel is idle."""
    from playwright.sync_api import sync_playwright

    browser = find_browser.find()
    if browser is None:
        raise RuntimeError(find_browser.ADVICE)
    with tempfile.TemporaryDirectory(prefix="lora-lab-chromium-", ignore_cleanup_errors=True) as profile:
        with sync_playwright() as playwright:
            context = playwright.chromium.launch_persistent_context(
                profile, executable_path=browser, args=FLAGS, headless=True, viewport={"width": width, "height": height}
            )
            try:
                page = context.pages[0] if context.pages else context.new_page()
                page.goto(f"{server.url}/doc/tree/{name}?token={server.token}", timeout=120_000)
                page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=120_000)
                wait_for_kernel(page)
                yield page
            finally:
                context.close()


def wait_for_kernel(page, timeout_seconds: float = 120) -> None:
    """Wait until the notebook's kernel is idle."""
    page.wait_for_function(f"({KERNEL_STATUS})() === 'idle'", timeout=timeout_seconds * 1000)


def run_all(page, timeout_seconds: float) -> bool:
    """Run all cells as the menu does; False if one raised, an AssertionError if they take too long."""
    page.evaluate(
        "() => { window.labRun = null; window.jupyterapp.commands.execute('notebook:run-all-cells')"
        ".then(ok => { window.labRun = ok; }, error => { window.labRun = false; }); }"
    )
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        done = page.evaluate("() => window.labRun")
        if done is not None:
            wait_for_kernel(page)
            return bool(done)
        page.wait_for_timeout(500)
    raise AssertionError(f"the cells had not ended after {timeout_seconds:.0f} s")


def errors(page) -> list[str]:
    """The text of every error output on the page, also of cells outside the window."""
    return page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap(cell =>
             (cell.type === 'code' ? cell.toJSON().outputs : []).filter(output => output.output_type === 'error')
             .map(output => `${output.ename}: ${output.evalue}`))"""
    )


def scroll_to(page, index: int) -> None:
    """Bring cell `index` (counted from 0, prose included) to the top of the window and give it time to be drawn."""
    page.evaluate(
        "index => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'start', 0.05)", index
    )
    page.wait_for_timeout(1000)


def output(page, index: int):
    """Playwright's locator of the output area of cell `index`."""
    return page.locator(f'.jp-NotebookPanel .jp-Cell[data-windowed-list-index="{index}"] .jp-OutputArea-output')


def visible_pictures(page, smallest: int = 100) -> int:
    """How many drawn pictures (PNG or SVG, at least `smallest` pixels wide) are inside the window now."""
    return page.evaluate(
        """smallest => [...document.querySelectorAll('.jp-OutputArea-output img, .jp-OutputArea-output svg')]
             .filter(picture => { const box = picture.getBoundingClientRect();
               return box.width >= smallest && box.bottom > 0 && box.top < innerHeight
                 && (picture.tagName !== 'IMG' || picture.naturalWidth > 0); }).length""",
        smallest,
    )
