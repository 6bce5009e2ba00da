"""A notebook as slides whose cells run: `make slides NN=01`. Needs jupyterlab-rise.

The slides are a copy of the instructor edition (`lab_utils.classroom.editions`): changes to it are lost at the end.
JupyterLab runs with its own settings: large type, and a theme that downloads no fonts. On its slide an
explorer is a picture (https://github.com/jupyterlab-contrib/rise/issues/126): `make present` shows it
live.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from urllib.parse import quote

from ..errors import command_line
from ..outputs import home_for_jupyter, print_anything, save, temporary_folder
from .course import NOTEBOOKS, select
from .editions import write_edition
from .present import check_installed, run_server

SETTINGS = {"theme": "white", "scroll": True, "center": False, "start_slideshow_at": "beginning"}
STYLE = """
:root { --jp-content-font-size1: 24px; --jp-code-font-size: 20px; --jp-code-line-height: 1.3; }
.reveal .jp-RenderedHTMLCommon :is(h1, h2, h3) { text-transform: none; letter-spacing: 0; }
:is(.jp-RenderedHTMLCommon table, .jp-OutputArea-output pre) { font-size: 20px !important; }
"""


def write_slides(path: Path, folder: Path) -> tuple[Path, Path]:
    """Write a notebook's slides and JupyterLab's settings to `folder`; returns the slides, the settings' folder."""
    [notebook] = write_edition("instructor", [path], folder / "slides")
    save(notebook.parent / "rise.css", STYLE)
    settings = folder / "settings" / "jupyterlab-rise" / "plugin.jupyterlab-settings"
    save(settings, json.dumps(SETTINGS))
    return notebook, folder / "settings"


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; unknown options go to JupyterLab. Returns the exit code; 2 means nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m lab_utils.classroom slides", description=__doc__.split("\n")[0])
    parser.add_argument("number", help="number or name of a notebook, as 01")
    options, flags = parser.parse_known_args(arguments)
    print_anything()
    check_installed("jupyterlab_rise", "jupyterlab-rise")
    [path] = select(NOTEBOOKS, [options.number])
    with home_for_jupyter(), temporary_folder("lora-lab-slides-") as folder:
        notebook, settings = write_slides(path, folder)
        print("Space: next · Ctrl+Enter: run the cell · t: your notes in a separate window · Ctrl-C here: stop")
        command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={notebook.parent}"]
        command += [f"--LabApp.default_url=/rise/{quote(notebook.name)}", "--ServerApp.log_level=CRITICAL", *flags]
        return run_server(command, {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(settings)})
