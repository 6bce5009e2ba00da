"""Run a module under a pretended card: python -m lab_utils.pretended T4 lab_utils.finetune --output runs/dry."""

import runpy
import sys

from ..errors import LabError, command_line
from .process import enable


@command_line
def main() -> int:
    """Enable the card, then run the module as `python -m` does."""
    if len(sys.argv) < 3:
        raise LabError("python -m lab_utils.pretended CARD MODULE ...: name a card, as T4, and the module to run.")
    card, module = sys.argv[1:3]
    sys.argv[:] = sys.argv[2:]
    enable(card)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
