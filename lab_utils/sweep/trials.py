"""Many fine-tunes and one tidy table: what rank, alpha, learning rate, layers, data type and data are worth.

    python data/record_sweep.py --processes 2

A trial is one setting with one seed. Its result is one row. Rows are kept as they come, so a killed sweep goes on with
the first trial that has no row. `sweep_on_ray` spreads the same trials over machines.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

from ..errors import LabError, at_least
from ..finetune.run_lock import held_file
from ..recorded.provenance import machine
from .table import EVALUATED, RESULTS, add_row, check_evaluated, read_rows
from .trial import SETTINGS, Trial

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


@cache
def _base(model: str, quantization: str):
    """One (model, tokenizer) a process and quantization."""
    from ..models import load_base

    return load_base(model, quantization, verbose=False)


@cache
def _task(name: str):
    """The task's splits, read once a process."""
    from ..quiet import quiet
    from ..tasks import load_task

    with quiet():
        return load_task(name)


def measure(trial: Trial, *, evaluated: int = EVALUATED, on_step: Callable[[list[dict]], None] | None = None) -> dict:
    """Run one trial, here and now.

    Parameters
    ----------
    trial : Trial
    evaluated : int >= 1, messages of the validation split and of the test split that it is measured on
    on_step : function, called after each step of an adapter's training with the history so far (see `finetune`)

    Returns
    -------
    dict with the keys `COLUMNS`: settings as text, results as numbers. `*_loss` are nats per answer token,
    `training_loss` the mean of the last quarter of the steps, `*_exact` shares of answers right to the last token,
    seconds of wall clock and of processor. A trial that fails (the loss is not finite) has no results, but a `problem`.
    """
    from ..evaluate import answer_losses

    recipe, began = trial.recipe, time.process_time()
    data = _task(recipe.task)
    shuffled = data["train"].shuffle(seed=recipe.seed)
    found = {name: "" for name in RESULTS}
    problem = ""
    try:
        with redirect_stdout(None):
            model, tokenizer, results = _train(trial, shuffled, on_step)
        found |= results
        shots = [shuffled[index] for index in range(trial.shots)]
        for split in ("validation", "test"):
            rows = data[split].select(range(min(evaluated, len(data[split]))))
            losses = answer_losses(model, tokenizer, rows, recipe.task, shots=shots)
            found |= {f"{split}_loss": round(losses.loss, 6), f"{split}_exact": round(losses.exact, 4)}
    except LabError as error:
        problem = str(error)
    found["cpu_seconds"] = round(time.process_time() - began, 2)
    return {**trial.settings, "evaluated": evaluated, **found, "problem": problem, **_here()}


def _train(trial: Trial, rows, on_step) -> tuple:
    """(model, tokenizer, results of training) of one trial; `rows` is the training split in the seed's order."""
    from ..finetune import finetune, take_off_adapter
    from ..finetune.full import load_full, matrices, train_full

    recipe = trial.recipe
    if recipe.train_examples is not None:
        rows = rows.select(range(min(recipe.train_examples, len(rows))))
    if trial.method == "prompt":
        model, tokenizer = _base(recipe.model, recipe.quantization)
        return take_off_adapter(model), tokenizer, {"trainable_parameters": 0}
    if trial.method == "full":
        model, tokenizer = load_full(recipe)
        wall, cpu = time.perf_counter(), time.process_time()
        losses = train_full(model, tokenizer, recipe, rows)
        trainable, tokens = sum(module.weight.numel() for module in matrices(model).values()), ""
    else:
        base = _base(recipe.model, recipe.quantization)
        wall, cpu = time.perf_counter(), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            recipe = replace(recipe, checkpoint_every=recipe.steps)
            run = finetune(recipe, folder, base=base, dataset={"train": rows}, on_step=on_step, progress=False)
        model, tokenizer = run.model, run.tokenizer
        losses, tokens = [row["loss"] for row in run.history], sum(row["tokens"] for row in run.history)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    last = losses[-max(1, len(losses) // 4) :]
    return model, tokenizer, {
        "trainable_parameters": trainable,
        "training_loss": round(sum(last) / len(last), 6),
        "training_seconds": round(time.perf_counter() - wall, 2),
        "training_cpu_seconds": round(time.process_time() - cpu, 2),
        "tokens": tokens,
    }


def _here() -> dict:
    """Where and with what a row was measured, the versions in one text."""
    here = machine(*PACKAGES)
    return here | {"versions": " ".join(f"{name} {number}" for name, number in here["versions"].items())}


def keep(table: str | Path, row: dict, number: int, of: int) -> str:
    """Add a row that has come; returns a line that says so, `number` of `of`."""
    add_row(table, row)
    outcome = row["problem"] or f"validation loss {row['validation_loss']:.4f}, exact {row['validation_exact']:.0%}"
    return f"{number} of {of}: {Trial.from_row(row)}: {outcome} ({row['cpu_seconds']:.0f} CPU s)"


def missing(trials: Iterable[Trial], table: str | Path) -> list[Trial]:
    """The trials that have no row yet, each once, in their order."""
    names = ("method", "shots", *SETTINGS)
    done = {tuple(row[name] for name in names) for row in read_rows(table)}
    waiting = {tuple(trial.settings[name] for name in names): trial for trial in trials}
    return [trial for key, trial in waiting.items() if key not in done]


def sweep(trials: Iterable[Trial], table: str | Path, *, processes: int = 1, evaluated: int = EVALUATED,
          progress: Callable[[str], object] = print) -> list[dict[str, str]]:
    """Measure every trial that the table has no row of, and add the rows as they come.

    Killed, the same call goes on: what is lost are the trials under way.

    Parameters
    ----------
    trials : of Trial
    table : path of a CSV file with the columns `COLUMNS`
    processes : int >= 1, trials at once; above 1 each runs in its own process with one thread
    evaluated : int >= 1, as in `measure`
    progress : function of a line of text

    Returns
    -------
    The table's rows (all of them), as `read_rows` gives them

    Raises
    ------
    LabError
        Another process measures into this table; it cannot be read or written, or has rows that were measured on
        another number of messages; or a number is out of range.
    """
    at_least(1, processes=processes, evaluated=evaluated)
    with held_file(table):
        check_evaluated(table, evaluated)
        return _measure_all(missing(trials, table), table, processes, evaluated, progress)


def _measure_all(waiting: list[Trial], table, processes: int, evaluated: int, progress) -> list[dict[str, str]]:
    """Measure trials, add their rows as they come, and return the table's."""
    if processes == 1:
        for number, trial in enumerate(waiting, 1):
            progress(keep(table, measure(trial, evaluated=evaluated), number, len(waiting)))
        return read_rows(table)
    import multiprocessing

    context = multiprocessing.get_context("spawn")  # a forked torch hangs
    with ProcessPoolExecutor(processes, mp_context=context, initializer=one_thread) as pool:
        futures = [pool.submit(measure, trial, evaluated=evaluated) for trial in waiting]
        for number, future in enumerate(as_completed(futures), 1):
            progress(keep(table, future.result(), number, len(waiting)))
    return read_rows(table)


def one_thread() -> None:
    """Workers share the cores: one thread each."""
    import torch

    torch.set_num_threads(1)
    os.environ["LORA_LAB_THREADS"] = "1"
