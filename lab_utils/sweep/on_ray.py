"""The same sweep on Ray: Ray Tune hands the trials to processes on this machine, or on a cluster's.

    .venv/bin/python -m pip install -c constraints.txt -e '.[ray]'
    ray start --head          # on one machine; it prints what to call on the others
    python data/record_sweep.py --ray --address auto

Every machine needs this lab and its model (`make lab`), and Ray's token if that Ray asks for one (RAY_AUTH_MODE=token);
the table is written by the process that calls `sweep_on_ray`.
Every trial runs to its end. Tune could stop the worse ones early (ASHA), but a table like this one answers what a
setting is worth: with trials stopped, a setting's mean would be that of its lucky seeds, and at a learning rate that
falls over all steps a loss half-way says little about the last.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import LabError, at_least
from ..files import user_path
from ..finetune.run_lock import held_file
from ..notebook.extras import how_to_install
from ..outputs import temporary_folder
from .table import EVALUATED, check_evaluated, read_rows
from .trial import Trial
from .trials import keep, measure, missing, one_thread

OBJECT_STORE_BYTES = 80 * 2**20  # only rows travel; Ray wants 75 MiB at least
QUIET = {  # no reports to Ray's makers, no log files of trials, no tables between our lines of progress
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def sweep_on_ray(trials: Iterable[Trial], table: str | Path, *, workers: int = 2, address: str | None = None,
                 evaluated: int = EVALUATED, progress: Callable[[str], object] = print) -> list[dict[str, str]]:
    """`sweep`, with Ray Tune handing out the trials: the same rows in the same table, resumed the same way.

    Parameters
    ----------
    trials : of Trial
    table : path of a CSV file with the columns `COLUMNS`, on this machine
    workers : int >= 1, trials at once; each takes one processor, runs with one thread and sees no GPU
    address : str, optional
        Of a running Ray: "auto" for this machine's, or "10.0.0.1:6379". Default: the Ray that this process has
        started, or else one on this machine that is shut down afterwards.
    evaluated : int >= 1, as in `measure`
    progress : function of a line of text

    Returns
    -------
    The table's rows (all of them), as `read_rows` gives them

    Raises
    ------
    LabError
        Ray is not installed or does not answer, or trials are left without a row: one failed twice (a worker may be
        lost once), or the sweep was interrupted (the others' rows are in the table); or as `sweep`.
    """
    at_least(1, workers=workers, evaluated=evaluated)
    table = user_path(table)
    with held_file(table):
        check_evaluated(table, evaluated)
        waiting = missing(trials, table)
        return _measure_all(waiting, table, workers, address, evaluated, progress) if waiting else read_rows(table)


def _measure_all(waiting: list[Trial], table: Path, workers: int, address, evaluated: int, progress) -> list[dict]:
    """Measure trials on Ray, add their rows as they come, and return the table's."""
    ray = load_ray()
    ours = not ray.is_initialized()
    if ours:
        connect(ray, workers, address)
    try:
        problems = _run(waiting, table, workers, evaluated, progress)
    finally:
        if ours:
            ray.shutdown()
    if left := len(missing(waiting, table)):
        why = problems[0] if problems else "the sweep was interrupted"
        raise LabError(f"{left} of {len(waiting)} trials have no row yet ({why}). The same call goes on with them.")
    return read_rows(table)


def load_ray():
    """The package ray, or how to get it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray.tune
    except ImportError as error:
        raise LabError(f"Ray Tune is not installed ({error}): {how_to_install('ray')}.") from None
    return ray


def connect(ray, workers: int, address: str | None) -> None:
    """Start Ray here, or join the one at `address`."""
    import logging

    settings = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address or "local", **settings)  # "local": a Ray of our own, whatever else runs here
    except Exception as error:  # Ray raises its plain base class when its own processes are too slow
        if address is None:  # 15 s are all it gives them: https://github.com/ray-project/ray/issues/65983
            raise LabError(f"Ray did not start: {error} Try again when this machine is less busy.") from error
        raise LabError(f"No Ray answers at address={address!r}: {error} Start one with:  ray start --head") from error


def _run(waiting: list[Trial], table: Path, workers: int, evaluated: int, progress) -> list[str]:
    """Let Tune run the trials, and add each row as it comes; returns what went wrong, a line a failed trial."""
    from ray import tune

    def run_one(config: dict) -> None:
        one_thread()
        tune.report({"row": measure(waiting[config["number"]], evaluated=evaluated)})

    class Keep(tune.Callback):
        """Called in this process, whenever a trial has reported."""

        rows = 0

        def __reduce__(self):  # Tune saves its settings, callbacks too; `progress` may be what no file can hold
            return tune.Callback, ()

        def on_trial_result(self, iteration, trials, trial, result, **info):
            self.rows += 1
            progress(keep(table, result["row"], self.rows, len(waiting)))

    with temporary_folder("lora-lab-ray-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(run_one, {"cpu": 1}),
            param_space={"number": tune.grid_search(list(range(len(waiting))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=workers, reuse_actors=True),  # a worker keeps its base
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(folder),
                verbose=0,
                callbacks=[Keep()],
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )
        errors = tuner.fit().errors
    return [(str(error).strip().splitlines() or [type(error).__name__])[-1] for error in errors]
