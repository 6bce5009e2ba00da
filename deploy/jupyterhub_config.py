"""JupyterHub for a class on one machine, the instructor's own, to try things out.

    pip install -c constraints.txt -e '.[hub]'
    jupyterhub -f deploy/jupyterhub_config.py        # then open http://127.0.0.1:8000

Every student's server runs under the account that started the hub, in its own folder: nothing keeps students from each
other's files, and nothing limits memory. So the hub listens only on this machine. For a class, see deploy/README.md.

Environment: LORA_LAB_HUB_FOLDER (homes and database; default ~/lora-lab-class), LORA_LAB_HUB_PASSWORD (one for all,
eight characters or more; without it any name is accepted), LORA_LAB_HUB_THREADS (threads per student; default 1).
"""

import os
import re
import sys
from pathlib import Path

from lab_utils.errors import LabError
from lab_utils.files import user_path
from lab_utils.folders import NOTEBOOKS
from lab_utils.models.embedded import embedded_folder
from lab_utils.outputs import output_folder, save

c = get_config()  # noqa: F821  JupyterHub defines it
PASSWORD = os.environ.get("LORA_LAB_HUB_PASSWORD")
THREADS = os.environ.get("LORA_LAB_HUB_THREADS") or "1"
try:
    FOLDER = user_path(os.environ.get("LORA_LAB_HUB_FOLDER") or "~/lora-lab-class").resolve()
    if found := re.search(r"\?|%[0-9A-Fa-f]{2}", str(FOLDER)):  # special in the database's address
        raise LabError(f"The path {FOLDER} contains {found[0]!r}: set LORA_LAB_HUB_FOLDER to a path without it.")
    output_folder(FOLDER)
    CACHE = embedded_folder().parent  # made now if it is missing: no student waits for it
except LabError as error:
    sys.exit(f"The hub was not started: {error}")

c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.db_url = f"sqlite:///{FOLDER / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(FOLDER / "cookie_secret")
c.ConfigurableHTTPProxy.command = [
    str(Path(sys.executable).with_name("configurable-http-proxy")),  # the Python port: needs no Node
    "--proxy-timeout=180000",  # ms; the default of 20 s is too short for thirty kernels that start at once
]
c.ConfigurableHTTPProxy.pid_file = str(FOLDER / "proxy.pid")

c.Authenticator.allow_all = True
if PASSWORD:
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = PASSWORD
else:
    c.JupyterHub.authenticator_class = "dummy"

c.JupyterHub.spawner_class = "simple"
HOMES = str(FOLDER / "homes").replace("{", "{{").replace("}", "}}")  # a template, in which braces have a meaning
c.SimpleLocalProcessSpawner.home_dir_template = f"{HOMES}/{{username}}"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab/tree/lora-lab/notebooks/00_start_here.ipynb"
c.Spawner.start_timeout = c.Spawner.http_timeout = 180  # thirty students who arrive at once share a few cores
c.Spawner.args = [
    "--MappingKernelManager.cull_idle_timeout=3600",  # a kernel that has been idle for an hour is stopped;
    "--MappingKernelManager.cull_connected=True",  # saved files stay
    "--ServerApp.shutdown_no_activity_timeout=7200",
]
if hasattr(os, "geteuid") and os.geteuid() == 0:
    c.Spawner.args.append("--allow-root")
c.Spawner.environment = {
    **{name: value for name, value in os.environ.items() if name.startswith("LORA_LAB_") and "_HUB_" not in name},
    "LORA_LAB_CACHE": str(CACHE),  # one model for all
    "LORA_LAB_THREADS": THREADS,
    "OMP_NUM_THREADS": THREADS,  # torch would take every core for every student
}
c.Spawner.env_keep.extend(["HF_HUB_OFFLINE"])


def lay_out_pages(spawner) -> None:
    """Copy the notebooks that a student does not have yet; a student's changes are never overwritten."""
    for source in (*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("images/*")):
        copy = Path(spawner.home_dir) / "lora-lab" / "notebooks" / source.relative_to(NOTEBOOKS)
        if not copy.exists():
            save(copy, source.read_bytes())  # whole or not at all: half a copy would never be replaced


c.Spawner.pre_spawn_hook = lay_out_pages
