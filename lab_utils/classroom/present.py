"""The explorers alone as web pages for a class, full screen and in large type: `make present`. Needs Voilà.

`python -m lab_utils.classroom present --help`. What the pages hold is in `presented`; here they are served.
"""

import argparse
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ..errors import LabError, command_line
from ..notebook.extras import how_to_install
from ..outputs import home_for_jupyter, print_anything, temporary_folder
from .presented import select, write_pages

PORT = 8866


def command(root: Path, port: int, *, browser: bool, ready: bool) -> list[str]:
    """The command that serves the pages of `root`."""
    extensions = ("anywidget", "@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8")
    return [
        sys.executable, "-m", "voila", str(root), f"--port={port}", "--Voila.port_retries=0", "--Voila.log_level=ERROR",
        "--template=lora-lab", "--classic-tree", "--show_tracebacks=True", f"--preheat_kernel={ready}",
        # A page that is left ends its kernel; one whose browser went away loses it after two minutes.
        "--MappingKernelManager.cull_idle_timeout=120", "--MappingKernelManager.cull_interval=30",
        *(part for name in extensions for part in ("--VoilaConfiguration.extension_allowlist", name)),
        *([] if browser else ["--no-browser"]),
    ]  # fmt: skip


def check_port(port: int) -> None:
    """Raise a LabError if another program listens on this machine's `port`, or there is no such port."""
    if not 0 < port < 65536:
        raise LabError(f"There is no port {port}: choose one from 1024 to 65535.")
    with socket.socket() as free:
        # Windows would let two programs share the port with the option that Unix needs after a server has ended.
        free.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
        try:
            free.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise LabError(f"Port {port} is reserved ({error.strerror}): choose one from 1024 to 65535.") from error
        except OSError as error:
            raise LabError(
                f'Port {port} is in use ({error.strerror}). Choose another: make present PRESENT="--port {port + 1}"'
            ) from error


def refuse_in_list(folder: Path) -> None:
    """Raise a LabError if a folder's path contains the character that separates the folders in JUPYTER_PATH."""
    if os.pathsep in str(folder):
        raise LabError(f"The path of the temporary folder, {folder}, contains {os.pathsep!r}: set TMPDIR to another.")


def check_installed(package: str, name: str) -> None:
    """Raise a LabError if a package for instructors cannot be imported."""
    if importlib.util.find_spec(package) is None:
        raise LabError(f"{name} is not installed: {how_to_install('instructors')}.")


def run_server(command: list[str], environment: dict[str, str]) -> int:
    """Run a server until it ends or Ctrl-C is pressed; a SIGTERM is passed on to it."""
    process = subprocess.Popen(command, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    except KeyboardInterrupt:  # a terminal sends it to both
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.terminate()
        process.wait()
        raise


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 if nothing could be served."""
    parser = argparse.ArgumentParser(prog="python -m lab_utils.classroom present", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some explorers, as rank lora")
    parser.add_argument(
        "--ready", action="store_true",
        help="start a kernel for every page at once, and again after each visit: pages open sooner, for more memory",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    print_anything()
    check_installed("voila", "Voilà")
    pages = select(options.only)
    check_port(options.port)
    with home_for_jupyter(), temporary_folder("lora-lab-present-") as folder:
        root, share = write_pages(folder, pages)
        refuse_in_list(share)
        path = os.pathsep.join([str(share), *filter(None, [os.environ.get("JUPYTER_PATH")])])
        print(f"The explorers: http://localhost:{options.port}/   Stop with Ctrl-C here.", flush=True)
        serve = command(root, options.port, browser=not options.no_browser, ready=options.ready)
        return run_server(serve, {**os.environ, "JUPYTER_PATH": path})
