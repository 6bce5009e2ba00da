"""Google Colab and Kaggle: on which of them this kernel runs, the folders there, and how their pages name things."""

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A service that runs notebooks, and ships its own torch and Jupyter kernel.

    Attributes
    ----------
    name : str
    clone : str, the folder that the first cell of a page puts the lab in
    runs : str or None, the folder for training runs where the service keeps files of a session without being asked
    above, restart, newest, fresh : str
        How a reader runs all cells above, restarts the kernel, gets the newest runtime, and gets a fresh one.
    """

    name: str
    clone: str
    runs: str | None
    above: str
    restart: str
    newest: str
    fresh: str


COLAB = Host(
    name="Colab",
    clone="/content/lora-lab",
    runs=None,
    above="Runtime ▸ Run before",
    restart="Choose Runtime ▸ Restart session",
    newest="Choose Runtime ▸ Change runtime type ▸ Runtime version: Latest",
    fresh="Runtime ▸ Disconnect and delete runtime",
)
KAGGLE = Host(
    name="Kaggle",
    clone="/kaggle/temp/lora-lab",
    runs="/kaggle/working/runs",
    above="the menu Run",
    restart="Restart the session",
    newest="In the notebook's settings, choose the latest environment",
    fresh="stop the session",
)


def host() -> Host | None:
    """The service that this kernel runs on, or None.

    Kaggle is asked for first: its image is made from Colab's and contains Colab's own package.
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return KAGGLE
    return COLAB if "google.colab" in sys.modules else None  # Colab imports it before the first cell
