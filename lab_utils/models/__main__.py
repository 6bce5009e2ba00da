"""`python -m lab_utils.models`: make the embedded model, if need be, and print its folder."""

import sys

from ..errors import command_line
from .embedded import embedded_folder


@command_line
def main() -> int:
    """Print the folder of the embedded model; returns the exit code."""
    print(embedded_folder())
    return 0


if __name__ == "__main__":
    sys.exit(main())
