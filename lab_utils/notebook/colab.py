"""Google Colab and Kaggle: what a page's first cell does there, and checkpoints on Google Drive.

    python -m lab_utils.notebook.colab            which files have old badges or an old first cell
    python -m lab_utils.notebook.colab --write    put both into every notebook, and the badges into the README

What is installed is decided in `colab_packages`; the badges and the cell are made in `badges`.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from ..errors import LabError, command_line
from ..files import explain
from ..folders import NOTEBOOKS, ROOT
from ..outputs import print_anything, save
from .badges import stale
from .colab_packages import WITHOUT_DEPENDENCIES, in_the_way, install, missing, refuse_stale, uninstall
from .hosts import COLAB, host

DRIVE = Path("/content/drive")


def setup() -> bool:
    """Make a runtime of Colab or Kaggle ready for the lab; elsewhere do nothing and return False.

    Installs what the lab lacks, puts the lab on the path of this kernel and of the programs it starts, and goes to the
    notebooks' folder. On Kaggle training runs go to the folder that a saved version keeps. Calling it again is safe.

    Raises
    ------
    LabError
        pip failed, the runtime is an old one, or an old version of a package was imported before.
    """
    here = host()
    if here is None:
        return False
    began, specs = time.monotonic(), missing()
    if specs:
        print(f"Installing {', '.join(specs)}: up to 70 MB, once for each runtime ...", flush=True)
        alone = [spec for spec in specs if spec.split("==")[0] in WITHOUT_DEPENDENCIES]
        install([spec for spec in specs if spec not in alone])
        install(alone, "--no-deps")
    uninstall(in_the_way())
    refuse_stale()
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, paths)]))
    if here.runs and not os.environ.get("LORA_LAB_RUNS", "").strip():
        os.environ["LORA_LAB_RUNS"] = here.runs
    os.chdir(NOTEBOOKS)
    print(f"The lab is ready ({time.monotonic() - began:.0f} s). Run on.")
    return True


def use_drive(folder: str = "lora-lab") -> Path:
    """Keep checkpoints and adapters on Google Drive, so that they outlive the runtime. Call it before training.

    Parameters
    ----------
    folder : str, in "My Drive"; created if it is missing

    Returns
    -------
    Path of the runs, also set as LORA_LAB_RUNS for this kernel and the programs it starts.

    Raises
    ------
    LabError
        This is not Colab, Drive was not mounted, or the folder cannot be written.
    """
    if host() is not COLAB:
        raise LabError("Google Drive can be mounted on Colab only. Here, set LORA_LAB_RUNS to a folder that is kept.")
    from google.colab import drive

    try:
        drive.mount(str(DRIVE))
    except Exception as error:  # ValueError, or a MessageError of Colab's own when the reader says no
        raise LabError(
            f"Google Drive was not mounted ({type(error).__name__}: {error}). Run this cell again and allow the "
            "access. Or train without it: checkpoints then last as long as this runtime."
        ) from error
    mine = DRIVE / "MyDrive"
    runs = mine / folder / "runs"
    if not runs.is_relative_to(mine) or ".." in runs.parts:
        raise LabError(f"{folder!r} is not in My Drive. Name a folder in it: colab.use_drive('name').")
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        way_out = "Choose another folder: colab.use_drive('name')."
        raise LabError(f"{runs} cannot be made: {explain(error)} {way_out}") from error
    os.environ["LORA_LAB_RUNS"] = str(runs)
    print(f"Checkpoints and adapters go to {runs}.")
    return runs


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 all files are as they should be, 1 some are not."""
    parser = argparse.ArgumentParser(prog="python -m lab_utils.notebook.colab", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write badges and first cells")
    options = parser.parse_args(arguments)
    print_anything()
    old = stale()
    for path, text in old.items():
        if options.write:
            save(path, text)
        print(f"{path.name}: {'written' if options.write else 'not up to date; --write fixes it'}")
    return 1 if old and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
