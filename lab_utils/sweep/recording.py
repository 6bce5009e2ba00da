"""Recording the studies: what is there, what is missing, how long the rest takes, and the loop that runs it.

    make evidence                               # what is recorded and what is missing
    python data/record_evidence.py              # record what is missing; killed, it goes on
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..locks import locked
from .evidence import Recorded, Run, add_row, read_table, table_of
from .rate_search import best_exponent, expected_runs, exponent_of, missing_runs, rate
from .studies import STUDIES, Arm

Measure = Callable[[Arm, Run], dict]


@dataclass(frozen=True)
class Progress:
    """How far an arm is.

    Attributes
    ----------
    study : str
    arm : Arm
    done : lines of the table that belong to it
    waiting : runs that can be run now
    expected : int, runs still missing if no further rate is needed; those in `waiting` are among them
    centre : int or None, exponent from which the arm's search counts; None while the arm that gives it is not done
    best : int or None, exponent of the best rate, once it is known
    """

    study: str
    arm: Arm
    done: list[dict]
    waiting: list[Run]
    expected: int
    centre: int | None
    best: int | None


def progress(folder: str | Path, studies: Sequence[str] = tuple(STUDIES)) -> list[Progress]:
    """How far each arm of the studies is, in the order of recording.

    Parameters
    ----------
    folder : path of the tables
    studies : names in `STUDIES`
    """
    rows: dict[str, list[dict]] = {}
    for study in STUDIES:
        for row in read_table(table_of(folder, study)):
            rows.setdefault(f"{study}: {row['arm']}", []).append(row)
    arms = {f"{study}: {arm.name}": (study, arm) for study in STUDIES for arm in STUDIES[study].arms}
    reached: dict[str, Progress] = {}
    for name, (study, arm) in arms.items():
        centre = reached[arm.centre].best if arm.centre else 0
        reached[name] = _reached(study, arm, centre, rows.get(name, []))
    return [reached[name] for name, (study, _) in arms.items() if study in studies]


def _reached(study: str, arm: Arm, centre: int | None, rows: list[dict]) -> Progress:
    """One arm's progress; `rows` are those under its name, of which another recipe's do not count."""
    if centre is None:
        return Progress(study, arm, [], [], expected_runs(arm.search, {}), None, None)
    search, done, found = arm.search, [], {}
    for row in rows:
        exponent, seed = exponent_of(row["choices"]["learning_rate"]), row["choices"]["seed"]
        if row["key"] == arm.at(rate(exponent), seed).key:
            done.append(row)
            found[exponent - centre, seed] = Recorded.from_row(row).loss("validation")
    waiting = [arm.at(rate(exponent + centre), seed) for exponent, seed in missing_runs(search, found)]
    best = best_exponent(search, found)
    best = None if best is None else best + centre
    return Progress(study, arm, done, waiting, expected_runs(search, found), centre, best)


def record(
    folder: str | Path, measure: Measure, *, studies: Sequence[str] = tuple(STUDIES), runs: int | None = None,
    say: Callable[[str], object] = print,
) -> int:  # fmt: skip
    """Run what is missing, one run after the other, and keep each as it comes.

    Several processes may record into one folder: a run belongs to the one that holds its lock. Killed, the same call
    goes on; a run that was under way is taken up again by `measure`.

    Parameters
    ----------
    folder : path of the tables
    measure : function of an arm and a run of it; returns the line's results (see `data/record_evidence.py`)
    studies : names in `STUDIES`, in the order to record them in
    runs : int, stop after so many; default when nothing is left, or all that is left is under way elsewhere
    say : function of a line of text

    Returns
    -------
    int, how many runs were recorded
    """
    folder, count = Path(folder), 0
    while runs is None or count < runs:
        if not any(_claimed(folder, *task, measure, say) for task in _tasks(folder, studies)):
            break
        count += 1
    return count


def _tasks(folder: Path, studies: Sequence[str]) -> Iterator[tuple[str, Arm, Run]]:
    """What could be run now: study by study, short runs before long ones, and seeds beside the best rates last."""
    tasks = []
    for place, one in enumerate(progress(folder, studies)):
        for run in one.waiting:
            beside = one.best is not None and exponent_of(run.recipe.learning_rate) != one.best
            order = (studies.index(one.study), run.recipe.steps, beside, place)
            tasks.append((order, one.study, one.arm, run))
    for _, study, arm, run in sorted(tasks, key=lambda task: task[0]):
        yield study, arm, run


def _claimed(folder: Path, study: str, arm: Arm, run: Run, measure: Measure, say: Callable[[str], object]) -> bool:
    """Run this one if no other process does or did; returns whether it was run here."""
    with locked(folder / ".locks" / f"{run.key}.lock", wait=False) as mine:
        if not mine or any(row["key"] == run.key for row in read_table(table_of(folder, study))):
            return False
        results = measure(arm, run)
        row = {"key": run.key, "study": study, "arm": arm.name, "choices": run.choices} | results
        add_row(table_of(folder, study), row)
    done = Recorded.from_row(row)
    outcome = row["problem"] or f"validation loss {done.loss('validation'):.4f}, test exact {done.exact():.0%}"
    say(f"{study}: {arm.name}: lr {run.recipe.learning_rate:g}, seed {run.recipe.seed}: {outcome} "
        f"({row['cpu_seconds']:.0f} CPU s)")
    return True


def guessed_seconds(arm: Arm, run: Run) -> float:
    """CPU seconds that a run takes on one thread of the machine where they were first measured (AMD EPYC, AVX512)."""
    recipe = run.recipe
    step = {"full": 1.64, "adapter": 1.25 + 0.003 * recipe.rank, "variant": 2.1}[run.method] * recipe.batch_size / 4
    if recipe.target_modules == "qv":
        step *= 0.9
    messages = 300 * (1 + len(arm.reads)) + 100 * arm.trained + 9 * 200 * arm.spectra
    return recipe.steps * step + 0.13 * messages + 8


def seconds_left(reached: Sequence[Progress]) -> dict[str, float]:
    """Study -> CPU seconds that the rest takes: as long as the arm's runs so far, or the guess at this machine's pace.
    """
    left: dict[str, float] = {}
    taken = [(row["cpu_seconds"], guessed_seconds(one.arm, Recorded.from_row(row).run))
             for one in reached for row in one.done if not row["problem"]]
    pace = sum(seconds for seconds, _ in taken) / sum(guess for _, guess in taken) if taken else 1.0
    for one in reached:
        own = [row["cpu_seconds"] for row in one.done if not row["problem"]]
        each = sum(own) / len(own) if own else pace * guessed_seconds(one.arm, one.arm.run)
        left[one.study] = left.get(one.study, 0.0) + one.expected * each
    return left


def overview(reached: Sequence[Progress]) -> str:
    """What is recorded, what is missing and how long the rest takes, as text."""
    left, lines = seconds_left(reached), []
    for study in dict.fromkeys(one.study for one in reached):
        arms = [one for one in reached if one.study == study]
        done, missing = sum(len(one.done) for one in arms), sum(one.expected for one in arms)
        lines.append(f"{study}: {done} runs recorded, {missing} missing, {_hours(left[study])} left")
        for one in arms:
            told = "done" if not one.expected else f"{one.expected} missing"
            if one.centre is None:
                told += f", waits for {one.arm.centre}"
            if one.best is not None:
                best = rate(one.best)
                told += f", best learning rate {best:g}"
            lines.append(f"    {one.arm.name}: {len(one.done)} recorded, {told}")
    lines.append(f"In all: {sum(len(one.done) for one in reached)} runs recorded, "
                 f"{sum(one.expected for one in reached)} missing or more, {_hours(sum(left.values()))} left.")
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} core hours"

