"""How good are the answers of a run that was trained earlier: its scores on examples that it was not trained on.

    python -m lab_utils.evaluate runs/tickets
    python -m lab_utils.evaluate runs/tickets --split validation --limit 50

Nothing is trained, and nothing in the folder is changed. The data are read again from the file that the run was trained
on; if it has moved, name it by --data.
"""

import sys
from dataclasses import replace

from ..errors import command_line, whole
from ..finetune import open_run
from ..outputs import print_anything
from ..tasks.arguments import FLAGS, add_arguments, command_parser, on_record
from .held_out import held_out
from .scoring import score

FLAGS = FLAGS | {
    "split": "--split", "limit": "--limit", "batch_size": "--batch-size", "max_new_tokens": "--max-new-tokens",
}  # fmt: skip


@command_line(flags=FLAGS)
def main(arguments: list[str] | None = None) -> int:
    """Print the scores of the run in a folder."""
    print_anything()
    parser = command_parser(__doc__, "lab_utils.evaluate")
    parser.add_argument("run", help="folder of a run: the --output of its training")
    parser.add_argument("--split", help="which examples (default: test; without one, validation)")
    parser.add_argument("--limit", type=int, help="the first so many of them (default: all)")
    parser.add_argument("--batch-size", type=int, default=32, help="examples answered together (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, help="room for an answer, in tokens (default: the run's)")
    add_arguments(parser)
    values = vars(parser.parse_args(arguments))
    folder, split, limit, batch_size, room = (
        values.pop(name) for name in ("run", "split", "limit", "batch_size", "max_new_tokens")
    )
    if limit is not None:
        whole("limit", limit)
    if room is not None:
        whole("max_new_tokens", room)
    run = open_run(folder, on_record(values))
    rows = held_out(run.task, split)
    rows = rows if limit is None else rows.select(range(min(limit, len(rows))))
    task = run.task if room is None else replace(run.task, max_new_tokens=room)
    print(score(run, rows, task=task, batch_size=batch_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
