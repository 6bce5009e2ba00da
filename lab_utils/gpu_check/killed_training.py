"""`python -m lab_utils.gpu_check.killed_training MODEL OUTPUT DTYPE [CARD]`: a training that kills its own process."""

import sys
from pathlib import Path

from .training import train_until_killed
from .worker import prepare

if __name__ == "__main__":
    model, output, dtype, pretended = (*sys.argv[1:], "")[:4]
    prepare(pretended)
    train_until_killed(Path(model), Path(output), dtype)
