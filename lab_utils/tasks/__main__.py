"""Look at a file of data before anything is trained on it.

    python -m lab_utils.tasks report tickets.csv --prompt message --answer category
"""

import sys

from ..errors import command_line, in_command_words
from ..outputs import print_anything
from .arguments import FLAGS, add_arguments, from_arguments

FLAGS = FLAGS | {"max_length": "--max-length"}


@command_line(flags=FLAGS)
def main(arguments: list[str] | None = None) -> int:
    """Print the report of a file; the exit code is 0, whatever was found, and 2 where it cannot be read."""
    import argparse

    print_anything()
    parser = argparse.ArgumentParser(prog="python -m lab_utils.tasks", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="report")
    report = commands.add_parser("report", help="what is wrong or strange in a file of data")
    add_arguments(report, positional=True)
    report.add_argument("--max-length", type=int, default=256, help="tokens; longer examples would be left out (256)")
    report.add_argument("--model", help="count tokens as this model does (default: the embedded model)")
    values = vars(parser.parse_args(arguments))
    model, max_length = values.pop("model"), values.pop("max_length")
    own = from_arguments(values)
    tokenizer = None
    if model:
        from ..models import load_tokenizer

        tokenizer = load_tokenizer(model)
    print(in_command_words(str(own.report(tokenizer, max_length)), FLAGS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
