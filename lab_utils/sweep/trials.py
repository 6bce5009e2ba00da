"""Many fine-tunes and one tidy table: what rank, alpha, learning rate, layers, data type and data are worth.

    python data/record_sweep.py --processes 2

A trial is one setting with one seed. Its result is one row. Rows are kept as they come, so a killed sweep goes on with
the first trial that has no row. `sweep_on_ray` spreads the same trials over machines.
"""

import csv
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

from ..errors import LabError, at_least, choose
from ..files import append_text, explain, read_text, user_path
from ..finetune import Recipe
from ..finetune.run_lock import held_file
from ..recorded.provenance import machine

METHODS = ("adapter", "full", "prompt")
SETTINGS = (  # what tells one trial from another: `method`, `shots`, and these fields of its recipe
    "model", "task", "quantization", "rank", "alpha", "use_rslora", "target_modules", "dropout", "learning_rate",
    "steps", "batch_size", "train_examples", "seed",
)  # fmt: skip
RESULTS = (
    "trainable_parameters", "validation_loss", "validation_exact", "test_loss", "test_exact", "training_loss",
    "training_seconds", "training_cpu_seconds", "cpu_seconds", "tokens",
)  # fmt: skip
PROVENANCE = ("problem", "cpu", "threads", "date", "versions")
COLUMNS = ("method", "shots", *SETTINGS, "evaluated", *RESULTS, *PROVENANCE)
OLD_COLUMNS = tuple(name for name in COLUMNS if name != "evaluated")  # of tables from before: all of `EVALUATED`
EVALUATED = 80  # messages of each split
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep.

    Parameters
    ----------
    recipe : Recipe with a model's name, not "auto"; the fields that `SETTINGS` leaves out stay at their defaults.
        Its seed draws A, the examples and their order; `train_examples` messages are drawn from all of the split.
    method : "adapter"; "full" trains all matrices of the layers in float32; "prompt" trains nothing
    shots : int >= 0, solved examples before each question; 0 unless the method is "prompt"

    Raises
    ------
    LabError
        A value is out of its range, or would not be seen in the table.
    """

    recipe: Recipe
    method: str = "adapter"
    shots: int = 0

    def __post_init__(self):
        choose("method", self.method, METHODS)
        if self.recipe.model == "auto":
            raise LabError("model='auto' differs from machine to machine: name a model, model='smollm2-135m' for one.")
        if self.shots < 0 or (self.shots and self.method != "prompt"):
            raise LabError(f"shots={self.shots} with method={self.method!r}: shots are solved examples in a prompt.")
        plain = Recipe()
        for field in fields(Recipe):
            hidden = field.name not in (*SETTINGS, "checkpoint_every")
            if hidden and getattr(self.recipe, field.name) != getattr(plain, field.name):
                raise LabError(f"{field.name} is no column of the table: leave it at {getattr(plain, field.name)!r}.")

    @property
    def settings(self) -> dict[str, str]:
        """The settings as the table's text: two trials are one and the same if these are equal."""
        values = {name: getattr(self.recipe, name) for name in SETTINGS}
        return {"method": self.method, "shots": str(self.shots)} | {name: _text(v) for name, v in values.items()}

    @classmethod
    def from_row(cls, row: dict) -> "Trial":
        """The trial that a row of the table belongs to."""
        recipe = Recipe.from_text({name: _text(row[name]) for name in SETTINGS})
        return cls(recipe=recipe, method=row["method"], shots=int(row["shots"]))

    def changed(self, **changes) -> "Trial":
        """The same trial with other fields of its recipe: `trial.changed(rank=3, alpha=6.0)`."""
        return replace(self, recipe=replace(self.recipe, **changes))

    def __str__(self) -> str:
        recipe = self.recipe
        if self.method == "prompt":
            return f"prompt with {self.shots} shots, seed {recipe.seed}"
        if self.method == "full":
            return f"full fine-tune, lr {recipe.learning_rate:g}, seed {recipe.seed}"
        rule = "√r" if recipe.use_rslora else "r"
        targets = recipe.target_modules if isinstance(recipe.target_modules, str) else "+".join(recipe.target_modules)
        return (
            f"{recipe.quantization} {targets} r={recipe.rank} α={recipe.alpha:g} (α/{rule}) lr={recipe.learning_rate:g}"
            f" dropout={recipe.dropout:g} n={recipe.train_examples} seed {recipe.seed}"
        )


def _text(value) -> str:
    """A setting as it stands in the table: 16.0 as 16, True as true, names joined by commas."""
    if isinstance(value, bool) or value in ("True", "False"):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    dict with the keys `COLUMNS`: settings as text, results as numbers. `*_loss` are nats an answer token,
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


def read_rows(table: str | Path) -> list[dict[str, str]]:
    """The table's rows as text, in the order they came; none if the file does not exist.

    Raises
    ------
    LabError
        The file cannot be read, has other columns, or a row that is not whole: its line is named.
    """
    table = user_path(table)
    if not os.path.lexists(table):
        return []
    reader = csv.reader(io.StringIO(read_text(table), newline=""))
    rows, columns = [], ()
    try:
        for fields in reader:
            if not rows:
                columns = tuple(fields)
                if columns not in (COLUMNS, OLD_COLUMNS):
                    break
            if fields and len(fields) != len(columns):
                raise LabError(
                    f"{table}, line {reader.line_num}: this row has {len(fields)} fields and not {len(columns)}. "
                    "Delete it: its trial is then run again."
                )
            if fields:
                row = {"evaluated": str(EVALUATED)} | dict(zip(columns, fields, strict=True))
                rows.append({name: row[name] for name in COLUMNS})
    except csv.Error as error:
        raise LabError(f"{table}, line {reader.line_num}: not CSV ({error}). Move it away, or repair it.") from error
    if not rows:
        raise LabError(f"{table} is not a sweep's table: its columns differ. Move it away, or give another name.")
    return rows[1:]


def add_row(table: str | Path, row: dict) -> None:
    """Append one row, and make sure that it is on the disk; a new table gets its heading.

    Raises
    ------
    LabError
        The table cannot be written; it is as before then.
    """
    table = user_path(table)
    text = io.StringIO()
    try:
        columns = _heading(table)
        if columns == OLD_COLUMNS:
            row = {name: value for name, value in row.items() if name != "evaluated"}
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if not table.exists():
            writer.writeheader()
        writer.writerow(row)
        append_text(table, text.getvalue())
    except OSError as error:
        raise LabError(f"No row could be added to {table}: {explain(error)}") from error


def _heading(table: Path) -> tuple[str, ...]:
    """The columns of a table: its own if it is there."""
    if not table.is_file():
        return COLUMNS
    first = read_text(table).partition("\n")[0].rstrip("\r")
    return OLD_COLUMNS if first == ",".join(OLD_COLUMNS) else COLUMNS


def check_evaluated(table: str | Path, evaluated: int) -> None:
    """Raise a LabError if a row of the table was measured on another number of messages than `evaluated`."""
    for number, row in enumerate(read_rows(table), 1):
        if row["evaluated"] not in ("", str(evaluated)):
            raise LabError(
                f"{table}, row {number} was measured on {row['evaluated']} messages of each split, and "
                f"evaluated={evaluated} is asked for: they cannot be compared. Give another table, or "
                f"evaluated={row['evaluated']}."
            )


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
