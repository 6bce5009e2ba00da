"""Checks under a pretended card: many of them in one process, whose answers come back as JSON.

    answers = answers_of("pretended_rules.py", "T4")        # in a test's fixture
    main({name: check})                                     # in that script

A check is a function without arguments. Its answer is what it returns, or "RuntimeError: text" of what it raised.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from lab_utils.folders import ROOT

SUPPORT = Path(__file__).parent
MARK = "answers: "


def answers_of(script: str, card: str, *arguments: str, by_command: bool = False) -> dict:
    """Run a script of tests/support under a card, in a separate process; returns its answers by name.

    With `by_command` it is `python -m lab_utils.pretended` that enables the card and runs the script.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("LORA_LAB_DEVICE", "LORA_LAB_FAST")
    }
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1", "MPLBACKEND": "agg"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SUPPORT), str(ROOT)])
    command = ["-m", "lab_utils.pretended", card, Path(script).stem] if by_command else [str(SUPPORT / script)]
    done = subprocess.run(
        [sys.executable, *command, card, *arguments],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600,
    )  # fmt: skip
    last = (done.stdout.splitlines() or [""])[-1]
    assert done.returncode == 0 and last.startswith(MARK), f"{script} {card}:\n{done.stdout}\n{done.stderr}"
    return json.loads(last.removeprefix(MARK))


def answer(check: Callable[[], object]):
    """What a check returns, or its error as a text; the traceback goes to stderr."""
    try:
        return check()
    except Exception as error:
        traceback.print_exc(limit=-12)
        return f"{type(error).__name__}: {error}"


def main(checks: dict[str, Callable[[], object]]) -> None:
    """Enable the card that the command line names, run all checks, and print their answers."""
    import torch

    from lab_utils.pretended import enable, enabled

    torch.set_num_threads(1)
    found = {"before": [torch.cuda.is_available(), enabled() is not None]}
    enable(sys.argv[1])
    found |= {name: answer(check) for name, check in checks.items()}
    print(f"\n{MARK}{json.dumps(found)}")
