"""Try a learner's function on an exercise, whatever it does, and find the smallest input on which it fails."""

import copy
import inspect
import math
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache

import torch
from hypothesis import HealthCheck, Phase, Verbosity, find, given, settings

from .calling import Printed, TooLong, first_line, plain, time_limit
from .comparing import agree, same_bits
from .exercise import Exercise, Mistake
from .surroundings import Surroundings

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "lora-lab-hypothesis"))
SETTINGS = settings(
    derandomize=True, database=None, deadline=None, verbosity=Verbosity.quiet,
    phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
)  # fmt: skip
EXAMPLES, SEARCHED, SEARCH_SECONDS = 60, 100, 2.0
EMPTY = 10  # calls that give nothing: so many, and the learner has not begun
IN_PLACE = Mistake(
    "changes its input in place",
    "Make a new tensor: operations such as +=, copy_ or names that end in _ write into the tensor that you were given.",
)
REMEMBERS = "It gives something else when it is called again with the same input. Does it keep something between calls?"


@dataclass
class Trial:
    """One input, what the function made of it, and what is wrong: `findings` is {aspect: problem or None}."""

    inputs: tuple
    results: list = field(default_factory=list)
    error: BaseException | None = None
    printed: str = ""
    findings: dict[str, str | None] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Is anything wrong?"""
        return any(self.findings.values())

    @property
    def size(self) -> float:
        """How much there is to read: numbers in tensors, then their size."""
        tensors = [value for value in self.inputs if isinstance(value, torch.Tensor)]
        others = [value for value in self.inputs if isinstance(value, (int, float))]
        return sum(value.numel() for value in tensors) + 1e-3 * sum(map(abs, others))


@dataclass
class Attempt:
    """All trials of a function; the first is the demo. `problem` says why there are fewer, if so."""

    trials: list[Trial]
    smallest: Trial | None = None
    mistake: Mistake | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Was everything tried, and everything right?"""
        return self.problem is None and not any(trial.failed for trial in self.trials)

    @property
    def unsolved(self) -> bool:
        """Has the learner not begun: nothing comes back, or NotImplementedError?"""
        return bool(self.trials) and all(map(_empty, self.trials))


def attempt(exercise: Exercise, function: Callable, seconds: float) -> Attempt:
    """Try `function` on the demo and on random inputs; on failure name the mistake and search the smallest example.

    After each call the surroundings are as they were before: see `Surroundings`.
    """
    trials: list[Trial] = []
    result = Attempt(trials)
    made = (exercise.demo, *examples(exercise))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = Surroundings(function, exercise, exercise.solution)  # that warnings are ignored is part of it
        try:
            end = time.monotonic() + seconds
            for inputs in made:
                trials.append(run(exercise, function, inputs, end, kept))
                if len(trials) == EMPTY and result.unsolved:
                    return result
            if exercise.judge is None and not any(trial.failed for trial in trials):
                if problem := _remembers(exercise, function, trials[0], end, kept):
                    trials[0].findings["again"] = problem
                return result
        except TooLong:
            result.problem = f"It did not come to an end within {seconds:g} seconds. Is there a loop that never stops?"
        if result.unsolved or not any(trial.failed for trial in trials):
            return result
        result.mistake = recognise(exercise, trials)
        result.smallest = smallest(exercise, function, trials, kept)
    return result


@cache
def _examples(exercise_name: str, strategy) -> tuple[tuple, ...]:
    """The inputs that hypothesis makes for an exercise, each once, the same in every session."""
    made = {}

    @settings(SETTINGS, max_examples=EXAMPLES, phases=[Phase.generate])
    @given(strategy)
    def collect(inputs):
        made.setdefault(repr(inputs), inputs)

    collect()
    return tuple(made.values())


def examples(exercise: Exercise) -> tuple[tuple, ...]:
    """The random inputs on which every attempt at this exercise is judged."""
    return _examples(exercise.name, exercise.inputs)


def run(
    exercise: Exercise, function: Callable, inputs: tuple, end: float = math.inf, kept: Surroundings | None = None,
    judged: bool = True,
) -> Trial:  # fmt: skip
    """Call `function` with copies of `inputs` and judge what came back, unless only that is asked for (`judged`).

    Only TooLong gets out, at time `end`.
    """
    trial, given_inputs, printed = Trial(inputs), copy.deepcopy(inputs), Printed()
    try:
        with time_limit(end), redirect_stdout(printed), redirect_stderr(printed):
            for _ in range(exercise.calls):
                trial.results.append(plain(function(*given_inputs)))
    except (TooLong, KeyboardInterrupt):
        raise
    except BaseException as error:
        trial.error = error
    finally:
        if kept is not None:
            kept.restore()
    trial.printed = printed.getvalue()
    if not judged:
        return trial
    if trial.error is not None:
        trial.findings["runs"] = f"It raises {type(trial.error).__name__}: {first_line(trial.error)}"
    else:
        trial.findings = {"runs": None, **_findings(exercise, trial)}
    changed = [
        name for name, before, after in zip(arguments(exercise), inputs, given_inputs, strict=True)
        if not _untouched(before, after)
    ]
    trial.findings["inputs"] = f"It changes `{'` and `'.join(changed)}` in place." if changed else None
    return trial


def _remembers(exercise: Exercise, function: Callable, first: Trial, end: float, kept: Surroundings) -> str | None:
    """What is wrong if two calls with the same input, and nothing put back between them, give two results."""
    given_inputs, printed = [copy.deepcopy(first.inputs) for _ in range(2)], Printed()
    try:
        with time_limit(end), redirect_stdout(printed), redirect_stderr(printed):
            results = [plain(function(*inputs)) for inputs in given_inputs]
    except (TooLong, KeyboardInterrupt):
        raise
    except BaseException as error:
        return f"Called again with the same input, it raises {type(error).__name__}: {first_line(error)}"
    finally:
        kept.restore()
    return None if agree(*results, exercise.view) else REMEMBERS


def recognise(exercise: Exercise, trials: list[Trial]) -> Mistake | None:
    """The first mistake that explains every trial, or None."""
    for mistake in exercise.mistakes:
        if mistake.when is not None:
            done = [trial for trial in trials if trial.error is None]
            if done and all(_holds(mistake.when, trial) for trial in done):
                return mistake
        if any(_explains(exercise, wrong, trials) for wrong in mistake.wrong):
            return mistake
    return IN_PLACE if any(trial.findings["inputs"] for trial in trials) else None


def smallest(
    exercise: Exercise, function: Callable, trials: list[Trial], kept: Surroundings | None = None
) -> Trial:  # fmt: skip
    """The smallest failing trial: of a search by hypothesis, or of those at hand if that finds none in time."""
    failing = [trial for trial in trials if trial.failed]
    aspect = next(iter(name for name, problem in failing[0].findings.items() if problem))
    best = min((trial for trial in failing if trial.findings.get(aspect)), key=lambda trial: trial.size)

    def fails(inputs) -> bool:
        nonlocal best
        trial = run(exercise, function, inputs, end, kept)
        if trial.findings.get(aspect) and trial.size <= best.size:
            best = trial
        return bool(trial.findings.get(aspect))

    end = time.monotonic() + SEARCH_SECONDS
    try:
        found = find(exercise.inputs, fails, settings=settings(SETTINGS, max_examples=SEARCHED))
        trial = run(exercise, function, found, end + SEARCH_SECONDS, kept)
        return trial if trial.findings.get(aspect) else best
    except (TooLong, Exception):  # also what hypothesis raises at a function that answers by chance
        return best


def arguments(exercise: Exercise) -> list[str]:
    """The names of an exercise's arguments."""
    return list(_parameters(exercise.solution))


@cache
def _parameters(function: Callable) -> tuple[str, ...]:
    """The names of a function's parameters."""
    return tuple(inspect.signature(function).parameters)


def line_of(function: Callable, error: BaseException) -> str:
    """Number and text of the learner's line that raised, or ""."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.co_filename]
    return f"line {frames[-1].lineno - code.co_firstlineno + 1}: {frames[-1].line}" if frames else ""


def _findings(exercise: Exercise, trial: Trial) -> dict[str, str | None]:
    """What the exercise says of the results, or that they cannot even be looked at."""
    try:
        return exercise.findings(trial.inputs, trial.results)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also what a method of the result raises, say SystemExit
        return {"kind": f"It returns what cannot be compared ({type(error).__name__}: {first_line(error)})."}


def _explains(exercise: Exercise, wrong: Callable, trials: list[Trial]) -> bool:
    """Does `wrong` do on every input what the learner's function did, and differ from the solution somewhere?"""
    evidence = False
    for trial in trials:
        made = run(exercise, wrong, trial.inputs, judged=not evidence)
        if made.error is not None or trial.error is not None:
            if type(made.error) is not type(trial.error) or first_line(made.error) != first_line(trial.error):
                return False  # torch's errors name the shapes that do not fit: the same error is the same mistake
            evidence = True
        elif not agree(made.results[0], trial.results[0], exercise.view):
            return False
        else:
            evidence |= made.failed
    return evidence


def _holds(when: Callable, trial: Trial) -> bool:
    """Is the condition true of this trial? Results that it cannot handle are a no."""
    try:
        return bool(when(trial.inputs, trial.results))
    except Exception:
        return False


def _empty(trial: Trial) -> bool:
    """Did nothing come back?"""
    if isinstance(trial.error, NotImplementedError):
        return True
    return bool(trial.results) and any(trial.results[0] is nothing for nothing in (None, Ellipsis, NotImplemented))


def _untouched(before, after) -> bool:
    """Does an argument still hold what it held?"""
    if isinstance(before, torch.Tensor):
        return same_bits(before, after)
    if type(before) is not type(after):
        return False
    if isinstance(before, dict):
        return list(before) == list(after) and all(_untouched(before[name], after[name]) for name in before)
    if isinstance(before, (tuple, list)):
        return len(before) == len(after) and all(map(_untouched, before, after))
    return before == after or before != before
