"""The outcome of an attempt in words and a picture: what is right, what is not, and on which smallest input."""

import torch

from .. import plots
from .comparing import show
from .engine import Attempt, Trial, arguments, examples, line_of, run
from .exercise import Exercise
from .report import Report, source

RIGHT = {
    "runs": "It runs without an error.",
    "kind": "It returns the right kind of value.",
    "shape": "The shape is right.",
    "dtype": "The data type is right.",
    "values": "The numbers are right.",
    "again": "It gives the same again for the same input.",
    "inputs": "It leaves its inputs as they were.",
}
LEAST_SHOWN, MOST_SHOWN = 12, 60  # size of a worked example: one number says little, a hundred are not read


def write_report(exercise: Exercise, function, outcome: Attempt) -> Report:
    """Put the outcome of an attempt into words and a picture."""
    picture, alt = _picture(exercise, outcome)
    spec = ("The same in plain steps", "code", source(exercise.spec))
    if outcome.passed:
        verdict, status, note = f"Solved: {exercise.title}", "right", exercise.reward
        folded = [spec, ("One way to write it", "code", source(exercise.solution))]
    else:
        status = "open" if outcome.unsolved else "wrong"
        verdict = f"Not solved {'yet' if outcome.unsolved else 'so far'}: {exercise.title}"
        note = (
            f"Need a nudge? Unfold a hint, or run checks.hint({exercise.name!r}, level=1) up to level=3 "
            f"and checks.solution({exercise.name!r})."
        )
        folded = [(f"Hint {i}", "text", hint) for i, hint in enumerate(exercise.hints, 1)]
        folded += [spec, ("A solution", "code", source(exercise.solution))]
    example = []
    if outcome.unsolved:
        example = _worked_example(exercise)
        call = f"{exercise.name}({', '.join(arguments(exercise))})"
        lines = [("open", f"{call} gives nothing back yet. Replace the placeholder, and end with a `return`.")]
    else:
        lines = _lines(exercise, outcome)
        if outcome.smallest:
            example = _example(exercise, function, outcome.smallest)
    return Report(
        verdict, status, lines,
        mistake=outcome.mistake.name if outcome.mistake else None,
        fix=outcome.mistake.fix if outcome.mistake else "",
        example=example, note=note, picture=picture, alt=alt, folded=folded,
        example_title="An example, with its result" if outcome.unsolved else Report.example_title,
        printed=outcome.trials[0].printed.strip()[:2000] if outcome.trials else "",
    )  # fmt: skip


def _lines(exercise: Exercise, outcome: Attempt) -> list[tuple[str, str]]:
    """Each aspect that was reached: right on all inputs, or what is wrong and how often."""
    lines, trials = [], outcome.trials
    sentences = {**RIGHT, **exercise.aspects}
    sentences["inputs"] = sentences.pop("inputs")  # the last
    for aspect, sentence in sentences.items():
        reached = [trial.findings[aspect] for trial in trials if aspect in trial.findings]
        wrong = [problem for problem in reached if problem]
        if wrong:
            shown = outcome.smallest.findings.get(aspect) if outcome.smallest else None
            shown = shown or (f"On another input: {wrong[0]}" if outcome.smallest else wrong[0])
            lines.append(("wrong", f"{shown} (wrong on {len(wrong)} of {len(trials)} inputs)"))
        elif reached:
            many = "" if len(reached) == len(trials) else f" (where it could be seen: {len(reached)} inputs)"
            lines.append(("right", sentence + many))
    return lines + ([("wrong", outcome.problem)] if outcome.problem else [])


def _example(exercise: Exercise, function, trial: Trial) -> list[tuple[str, str]]:
    """Inputs, what is expected and what came."""
    rows = [(name, show(value)) for name, value in zip(arguments(exercise), trial.inputs, strict=True)]
    if exercise.judge is None:
        rows.append(("expected", show(exercise.solution(*trial.inputs))))
    if trial.error is not None:
        rows.append(("yours", f"{trial.findings['runs']}\n{line_of(function, trial.error)}".strip()))
    else:
        rows.append(("yours", show(trial.results[0])))
    return rows


def _worked_example(exercise: Exercise) -> list[tuple[str, str]]:
    """Inputs and what they give: the demo, or where that is too large to be read, the smallest that says something."""
    if exercise.judge is not None:
        return []  # it has many right answers
    shown = run(exercise, exercise.solution, exercise.demo)
    if shown.size > MOST_SHOWN:
        trials = [run(exercise, exercise.solution, inputs) for inputs in examples(exercise)]
        shown = min((trial for trial in [shown, *trials] if trial.size > LEAST_SHOWN), key=lambda trial: trial.size)
    rows = [(name, show(value)) for name, value in zip(arguments(exercise), shown.inputs, strict=True)]
    gives = "gives" if exercise.view is Exercise.view else "may give"  # what is compared is made of it, such as B @ A
    return [*rows, (gives, show(shown.results[0]))]


def _picture(exercise: Exercise, outcome: Attempt) -> tuple[bytes, str]:
    """The target beside what the learner's function makes of the demo, and the same in words."""
    if exercise.picture is None:
        return b"", ""
    trial = outcome.trials[0] if outcome.trials else None
    target = exercise.picture(exercise.solution(*exercise.demo))
    yours = _drawable(exercise, trial.results[0]) if trial and trial.results else None
    alt = f"Picture. Target: {_size(target)}. Yours: "
    if yours is None:
        alt += "nothing to show yet."
    elif yours.shape != target.shape:
        alt += f"{_size(yours)}."
    elif exercise.judge is not None or not trial.failed:
        alt += "right." if not trial.failed else "of the same shape, but not right."
    else:
        differ = int(((yours - target).abs() > 1e-3 * target.abs().max()).sum())
        alt += f"{differ} of {target.numel()} fields differ." if differ else "looks the same."
    return plots.png(plots.target_and_yours(target, yours)), alt


def _drawable(exercise: Exercise, result) -> torch.Tensor | None:
    """The learner's result as a vector or matrix to draw, or None."""
    try:
        drawn = exercise.picture(result).detach().to("cpu", torch.float64)
        fits = 1 <= drawn.dim() <= 2 and 0 < drawn.numel() <= 10_000
        return torch.tensor(drawn.tolist()).masked_fill(~drawn.isfinite(), float("nan")) if fits else None
    except Exception:
        return None


def _size(drawn: torch.Tensor) -> str:
    """A shape in words."""
    return f"{len(drawn)} bars" if drawn.dim() == 1 else f"a matrix of {drawn.shape[0]} × {drawn.shape[1]}"
