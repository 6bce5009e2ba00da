"""A real JupyterHub from deploy/jupyterhub_config.py on loopback, for tests; nothing of it is left at the end."""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import free_ports, wait_until_up

from lab_utils.folders import ROOT

CONFIG = ROOT / "deploy" / "jupyterhub_config.py"


@dataclass(frozen=True)
class Hub:
    """A running hub: its address, its process, the folder with the students' homes, and the file of its log."""

    url: str
    process: psutil.Process
    folder: Path
    log: Path

    def home(self, name: str) -> Path:
        """A student's folder."""
        return self.folder / "homes" / name

    def servers(self) -> dict[str, psutil.Process]:
        """The single-user servers that run now, by student."""
        found = {}
        for process in self.process.children():
            with contextlib.suppress(psutil.Error):
                if "jupyterhub.singleuser" in process.cmdline():
                    found[process.environ()["JUPYTERHUB_USER"]] = process
        return found

    def kernels(self, name: str) -> dict[str, psutil.Process]:
        """A student's kernels that run now, by their id."""
        found = {}
        for process in self.servers()[name].children():
            with contextlib.suppress(psutil.Error):
                file = next((word for word in process.cmdline() if word.endswith(".json")), None)
                if file:
                    found[Path(file).stem.removeprefix("kernel-")] = process
        return found


@contextlib.contextmanager
def serve(folder: Path, environment: dict[str, str] | None = None, seconds: float = 90):
    """Start the hub with everything it keeps in `folder`; yields a Hub and ends all its processes afterwards."""
    public, inner, proxy = free_ports(3)
    command = [
        sys.executable, "-m", "jupyterhub", f"--config={CONFIG}", f"--url=http://127.0.0.1:{public}",
        f"--JupyterHub.hub_port={inner}", f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{proxy}",
    ]  # fmt: skip
    log = folder / "hub.log"
    settings = {**os.environ, "LORA_LAB_HUB_FOLDER": str(folder), **(environment or {})}
    with open(log, "wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, env=settings, cwd=folder, start_new_session=True)
    hub = Hub(f"http://127.0.0.1:{public}", psutil.Process(started.pid), folder, log)
    try:
        wait_until_up(f"{hub.url}/hub/api/", started, log, seconds)
        yield hub
    finally:
        _end(hub.process)
        started.wait()


def _end(process: psutil.Process) -> None:
    """End the hub, which ends its servers and they their kernels; kill those that are left after that."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=20)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left, timeout=10)
