"""A real JupyterLab in a headless Chromium, for tests: start the server, open a notebook, run it, take pictures.

    with serve(folder) as server, open_notebook(server, "08_qlora_finetune.ipynb") as page:
        assert run_all(page, timeout_seconds=600)
        page.screenshot(path="shot.png")
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import find_browser
from servers import free_ports, wait_until_up

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
        [port] = free_ports(1)
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
            wait_until_up(f"{server.url}/api/status?token={token}", process, log, 120)
            yield server
        finally:
            _stop(process)


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


def open_other(page, name: str) -> None:
    """Open another notebook of the server in the JupyterLab of `page`; the one that was open loses its kernel."""
    page.evaluate(
        """async path => {
          const { shell, commands } = window.jupyterapp, before = shell.currentWidget;
          if (before.context.path === path) return;
          const panel = await commands.execute('docmanager:open', { path });
          await before.sessionContext.shutdown();
          before.dispose();
          await panel.revealed;
          shell.activateById(panel.id);
        }""",
        name,
    )
    page.wait_for_function("path => window.jupyterapp.shell.currentWidget?.context?.path === path", arg=name)
    wait_for_kernel(page)


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


def explorer(page, index: int):
    """Playwright's locator of the explorer that cell `index` shows, in the window."""
    scroll_to(page, index)
    found = page.locator(f'.jp-NotebookPanel .jp-Cell[data-windowed-list-index="{index}"] .lab-explorer')
    found.wait_for(timeout=30_000)
    return found


def kernel_value(page, expression: str):
    """The value of a Python expression in the notebook's kernel; it must be plain JSON."""
    return json.loads(
        page.evaluate(
            """async code => {
              const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              const content = { code: 'import json as _json', silent: true, user_expressions: { value: code } };
              const reply = await kernel.requestExecute(content, true).done;
              const value = reply.content.user_expressions.value;
              if (value.status !== 'ok') throw new Error(value.evalue);
              return value.data['text/plain'];
            }""",
            f"_json.dumps({expression})",
        )[1:-1].encode().decode("unicode_escape")
    )  # fmt: skip


WATCH = """
  const signature = (root, selector) => painted(root.querySelector(selector));
  const painted = (target) => {
    if (target.tagName !== 'CANVAS') return target.outerHTML;
    const data = target.getContext('2d').getImageData(0, 0, target.width, target.height).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 3) sum = (31 * sum + data[i]) | 0;
    return sum;
  };
"""


def settle(page, root) -> None:
    """Wait until browser and kernel have answered each other and nothing in the explorer `root` moves any more.

    A sentence that ends in "…" says that there is more to come.
    """
    for _ in range(3):  # a widget holds back what it has to send until its last message is answered
        kernel_value(page, "None")
        root.evaluate(
            f"""root => new Promise(done => {{ {WATCH}
              let seen, since;
              const look = () => {{
                const now = [root, ...root.querySelectorAll('canvas')].map(painted).join();
                const more = root.querySelector('.lab-summary').textContent.endsWith('…');
                if (more || now !== seen) [seen, since] = [now, performance.now()];
                if (performance.now() - since < 150) setTimeout(look, 30);
                else done();
              }};
              look();
            }})"""
        )


def press_times(page, root, slider, watch: str, keys: list[str], pause_ms: int = 150) -> list[float]:
    """Milliseconds from each key press on `slider` until changed pixels of `watch` (a selector in `root`) were painted.

    A press that changes nothing within three seconds counts as infinite.
    """
    root.evaluate(
        f"""(root, watch) => {{ {WATCH}
          root.labTimes = [];
          root.labListener?.abort();
          root.labListener = new AbortController();
          root.addEventListener('keydown', () => {{
            const began = performance.now(), before = signature(root, watch);
            const look = () => {{
              if (signature(root, watch) !== before) {{
                const painted = new MessageChannel(); // its message comes after the frame is painted
                painted.port1.onmessage = () => root.labTimes.push(performance.now() - began);
                painted.port2.postMessage(0);
              }} else if (performance.now() - began < 3000) requestAnimationFrame(look);
              else root.labTimes.push(Infinity);
            }};
            requestAnimationFrame(look);
          }}, {{ capture: true, signal: root.labListener.signal }});
        }}""",
        watch,
    )
    slider.focus()
    for count, key in enumerate(keys):
        page.keyboard.press(key)
        page.wait_for_function("([root, count]) => root.labTimes.length > count", arg=[root.element_handle(), count])
        page.wait_for_timeout(pause_ms + 7 * (count % 5))  # at different moments of a frame
    times = root.evaluate("root => { root.labListener.abort(); return root.labTimes; }")
    return [float("inf") if value is None else value for value in times]


def drag(page, root, slider, steps: int = 20) -> dict:
    """Drag a slider's handle from left to right with the mouse in `steps` fast moves.

    Returns "heights", all heights of the explorer seen in the frames of the drag, and "nodes", how many elements it had
    before and after.
    """
    slider.evaluate("input => { input.value = input.min; input.dispatchEvent(new Event('input', { bubbles: true })); }")
    settle(page, root)
    root.evaluate(
        """root => {
          root.labSeen = { heights: new Set(), nodes: [root.querySelectorAll('*').length], on: true };
          const look = () => {
            root.labSeen.heights.add(root.offsetHeight);
            if (root.labSeen.on) requestAnimationFrame(look);
          };
          look();
        }"""
    )
    box = slider.bounding_box()
    y, left, right = box["y"] + box["height"] / 2, box["x"] + 8, box["x"] + box["width"] - 8
    page.mouse.move(left, y)
    page.mouse.down()
    for step in range(1, steps + 1):
        page.mouse.move(left + (right - left) * step / steps, y)
        page.wait_for_timeout(12)
    page.mouse.up()
    settle(page, root)
    return root.evaluate(
        """root => {
          const seen = root.labSeen;
          seen.on = false;
          return { heights: [...seen.heights], nodes: [...seen.nodes, root.querySelectorAll('*').length] };
        }"""
    )


def set_theme(page, name: str) -> None:
    """Switch JupyterLab's theme: "JupyterLab Light" or "JupyterLab Dark"."""
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
    page.wait_for_function(
        "light => document.body.dataset.jpThemeLight === light", arg="false" if "Dark" in name else "true"
    )
    page.wait_for_timeout(500)


@contextlib.contextmanager
def chromium():
    """Playwright's headless Chromium alone, without JupyterLab; closed at the end."""
    from playwright.sync_api import sync_playwright

    path = find_browser.find()
    assert path, find_browser.ADVICE
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS, headless=True)
        yield chromium
        chromium.close()
