"""Was it worth it: write the report card of a run that was trained earlier, as HTML and Markdown, in its folder.

    python -m lab_utils.report_card runs/tickets
    python -m lab_utils.report_card runs/tickets --limit 50 --shots 0

Nothing is trained. The adapter, the base with a prompt and the base with examples answer the same questions, so it
takes about three times as long as scores. The data are read again from the file that the run was trained on; if it has
moved, name it by --data.
"""

import sys

from ..errors import command_line
from ..finetune import open_run
from ..outputs import print_anything
from ..tasks.arguments import FLAGS, add_arguments, command_parser, on_record
from .writing import report_card

FLAGS = FLAGS | {name: f"--{name}" for name in ("split", "limit", "shots")}


@command_line(flags=FLAGS)
def main(arguments: list[str] | None = None) -> int:
    """Write the card of the run in a folder, and say where it is."""
    print_anything()
    parser = command_parser(__doc__, "lab_utils.report_card")
    parser.add_argument("run", help="folder of a run: the --output of its training")
    parser.add_argument("--split", default="test", help="which examples are answered (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=100, help="how many of them (default: %(default)s)")
    parser.add_argument("--shots", type=int, default=4,
                        help="examples in the prompt of the last baseline; 0: without it (default: %(default)s)")
    add_arguments(parser)
    values = vars(parser.parse_args(arguments))
    folder, options = values.pop("run"), {name: values.pop(name) for name in ("split", "limit", "shots")}
    report_card(open_run(folder, on_record(values)), **options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
