"""Check the course on this machine's GPU, without a network, and write a report of what works.

    python -m lab_utils.gpu_check                       # on a machine with a card: at most 8 minutes
    python -m lab_utils.gpu_check --only memory speed   # some sections alone
    python -m lab_utils.gpu_check --pretend T4          # a dry run on a CPU: no number of it is a measurement

It prints a line for each section and leaves gpu-report.json and gpu-report.md, to be sent as an issue. Exit code 0: all
required sections passed or were skipped; 1: one failed; 2: nothing could be checked.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from ..errors import LabError, command_line, real
from ..files import explain, user_path, write_text
from .report import MARKDOWN_NAME, PASSED, Report
from .sections import NAMES, SECTIONS
from .supervise import Worker, supervise

BUDGET_SECONDS, DRY_SECONDS = 460, 3600
LOG_NAME = "gpu-report.log"


def read_command(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options, checked.

    Raises
    ------
    LabError
        A section or a card is unknown, or the budget is not a time.
    """
    from ..pretended import CARDS

    parser = argparse.ArgumentParser(
        prog="python -m lab_utils.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretend", metavar="CARD", default="", help=f"one of {', '.join(CARDS)}")
    parser.add_argument("--budget", metavar="SECONDS", type=float,
                        help=f"for everything (default {BUDGET_SECONDS}, {DRY_SECONDS} with --pretend); what does not "
                             "fit is skipped")
    parser.add_argument("--output", metavar="FOLDER", default=".", help="where the report goes (default: here)")
    parser.add_argument("--only", nargs="+", metavar="SECTION", default=NAMES, help=f"of {', '.join(NAMES)}")
    options = parser.parse_args(arguments)
    if options.budget is None:
        options.budget = DRY_SECONDS if options.pretend else BUDGET_SECONDS
    real("budget", options.budget, "seconds, more than 0")
    unknown = [name for name in options.only if name not in NAMES]
    if unknown:
        raise LabError(f"There is no section {unknown[0]!r}. Choose from: {', '.join(NAMES)}.")
    if options.pretend and options.pretend not in CARDS:
        raise LabError(f"The card {options.pretend!r} cannot be pretended. Choose from: {', '.join(CARDS)}.")
    return options


def refuse_no_card(pretended: str) -> None:
    """Raise a LabError where there is no card to check, or a card where one is to be pretended."""
    import torch

    if not pretended and not torch.cuda.is_available():
        raise LabError(
            "torch sees no GPU here, so there is nothing to check: the course runs on the CPU, and page 00 tells what "
            "else it needs. To try the check itself, pretend a card: --pretend T4."
        )


@command_line
def main(arguments: list[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    options = read_command(arguments)
    refuse_no_card(options.pretend)
    folder = user_path(options.output)
    log, report = folder / LOG_NAME, Report(folder, options.pretend)
    try:
        write_text(log, "")
        report.write()
    except OSError as error:
        why = f"The report cannot be written to {folder}: {explain(error)} --output names a folder."
        raise LabError(why) from error
    chosen = [section for section in SECTIONS if section.name in (*options.only, "card")]
    if options.pretend:
        print(f"Pretending: {options.pretend}. A dry run on the CPU; no time and no size below is a GPU's.")
    with tempfile.TemporaryDirectory(prefix="lora-lab-gpu-", ignore_cleanup_errors=True) as scratch:
        worker = Worker(options.pretend, Path(scratch), log)
        supervise(chosen, report, worker, options.budget, say=lambda line: print(line, flush=True))
    print(f"\n{report.verdict()} The report: {folder / MARKDOWN_NAME}; what was printed: {log.name}.")
    if not any(row.status == PASSED for row in report.rows):
        print("Nothing passed.", file=sys.stderr)
    return 1 if report.failures else 0
