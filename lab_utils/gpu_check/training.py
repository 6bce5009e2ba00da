"""Trainings of a tiny model through `finetune`: one learns, one begins with overflows, one is killed and goes on."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from ..finetune import Recipe, finetune
from ..finetune.runs import Run
from ..models import load_base
from .recorded_steps import recording
from .sections import Finding, Setting
from .stand_in import MODEL, computing_in, dtypes, lessons, standing_in, write_model

LEARNED = 0.1  # nats per token
RATE = 1e-2
FIRST_SCALE = 2.0**22  # of GradScaler: the gradient of a tiny model's loss is beyond float16 for some steps
MOST_SKIPPED = 16
RELATIVE = 0.02  # by how much the loss of a resumed step may differ from an uninterrupted one's
KILL_AFTER, EVERY = 5, 2


def recipe(steps: int, **changes) -> Recipe:
    """A recipe for the tiny model."""
    settings = {"rank": 16, "alpha": 32, "learning_rate": RATE, "checkpoint_every": steps}
    return Recipe(model=MODEL, steps=steps, **settings | changes)


def train(folder: Path, output: Path, recipe: Recipe, **options) -> Run:
    """`finetune` of the model in a folder on the lessons, by this card's own dtype."""
    with standing_in(folder):
        base = load_base(MODEL, recipe.quantization, verbose=False)
        return finetune(recipe, output, base=base, dataset=lessons(), progress=False, **options)


def learns(setting: Setting) -> Finding:
    """Four lessons by heart, in every dtype of the card: the loss ends below `LEARNED`."""
    folder = write_model(setting.scratch / "tiny")
    values, problems = {}, []
    for dtype in dtypes():
        with computing_in(dtype), recording() as steps:
            run = train(folder, setting.scratch / dtype, recipe(setting.size(150, 40)))
        applied = sum(step.applied for step in steps)
        loss = run.history[-1]["loss"]
        values[dtype] = {"first loss": run.history[0]["loss"], "last loss": loss, "steps": len(run.history),
                         "left out by GradScaler": len(run.history) - applied}  # fmt: skip
        if not loss < LEARNED:
            problems.append(f"in {dtype} the last loss is {loss:.3g}, and below {LEARNED} was expected")
    text = "; ".join(f"{dtype}: {one['first loss']:.2f} to {one['last loss']:.3f}" for dtype, one in values.items())
    return Finding(not problems, "; ".join([f"loss {text}", *problems]), values)


def overflow(setting: Setting) -> Finding:
    """GradScaler begins far too high: the first steps are left out, and training goes on."""
    import torch

    folder = write_model(setting.scratch / "tiny")
    begin = torch.amp.GradScaler.__init__

    def high(self, *arguments, **options):
        begin(self, *arguments, **{**options, "init_scale": FIRST_SCALE})

    with computing_in("float16"), mock.patch.object(torch.amp.GradScaler, "__init__", high), recording() as steps:
        run = train(folder, setting.scratch / "run", recipe(setting.size(40, 14)))
    applied = sum(step.applied for step in steps)
    skipped, first, last = len(run.history) - applied, run.history[0]["loss"], run.history[-1]["loss"]
    values = {"steps": len(run.history), "left out": skipped, "first loss": first, "last loss": last}
    passed = 1 <= skipped <= MOST_SKIPPED and math.isfinite(last) and last < first
    return Finding(passed, f"{skipped} of {len(run.history)} steps left out, loss {first:.2f} to {last:.2f}", values)


def resume(setting: Setting) -> Finding:
    """A child is killed in the middle and the training goes on here; beside it one that was not interrupted."""
    folder = write_model(setting.scratch / "tiny")
    values, problems = {}, []
    for dtype in dtypes()[: setting.size(2, 1)]:
        output = setting.scratch / f"killed-{dtype}"
        code = _run_child(folder, output, dtype, setting)
        with computing_in(dtype):
            again = train(folder, output, _resumable())
            whole = train(folder, setting.scratch / f"whole-{dtype}", _resumable())
        pairs = [(one["loss"], other["loss"]) for one, other in zip(again.history, whole.history, strict=True)]
        off = max(abs(one - other) / abs(other) for one, other in pairs)
        values[dtype] = {"the child ended with": code, "resumed from step": again.resumed_from,
                         "largest relative difference of a loss": off, "bit for bit": off == 0}  # fmt: skip
        if again.resumed_from != KILL_AFTER // EVERY * EVERY:
            problems.append(f"in {dtype} the training began at step {again.resumed_from}; the child ended with {code}")
        elif not off < RELATIVE:
            problems.append(f"in {dtype} a loss is {off:.1%} off an uninterrupted training's")
    text = "; ".join(f"{dtype}: from step {one['resumed from step']}" for dtype, one in values.items())
    return Finding(not problems, "; ".join([text, *problems]), values)


def _resumable() -> Recipe:
    return recipe(4 * EVERY, checkpoint_every=EVERY)


def _run_child(folder: Path, output: Path, dtype: str, setting: Setting) -> int:
    """Train in a separate process that is killed; returns its exit code."""
    command = [sys.executable, "-m", f"{__package__}.killed_training", str(folder), str(output), dtype]
    command += [setting.pretended] if setting.pretended else []
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=setting.size(80, 1600))
    print(done.stdout[-2000:], done.stderr[-4000:], sep="\n")
    return done.returncode


def train_until_killed(folder: Path, output: Path, dtype: str) -> None:
    """Train, and kill this process after a step that no checkpoint follows."""

    def kill(history: list[dict]) -> None:
        if len(history) == KILL_AFTER:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    with computing_in(dtype):
        train(folder, output, _resumable(), on_step=kill)
