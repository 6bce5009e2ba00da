"""What a check has to say, as text and as HTML that needs no kernel."""

import base64
import html
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .. import plots
from ..printing import folded
from .comparing import show
from .engine import Attempt, Trial, arguments, examples, line_of, run
from .exercise import Exercise

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
EXAMPLE_WIDTH = 80  # characters of a worked example beside each other, in a card on a screen of 1024 pixels
THEMES = ('[data-jp-theme-light="false"]', "html[theme=dark]", ".vscode-dark")  # dark: JupyterLab, Colab, VS Code
MARKS = {"right": "✓", "wrong": "✗", "open": "○"}
# JupyterLab's own colours where it defines them, so that a card follows any theme; else ours, for light and for dark.
STYLE = """<style>
.lab-check {--lab-back: var(--jp-layout-color1, #fff); --lab-soft: var(--jp-layout-color2, #f3f4f6);
  --lab-text: var(--jp-content-font-color1, #1f2937); --lab-edge: var(--jp-border-color1, #c3c9d1);
  --lab-link: var(--jp-content-link-color, #0b4f8a); --lab-right: #14602f; --lab-wrong: #a03c06; --lab-open: #4b5563;
  --lab-named: #fef3c7; --lab-on-named: #451a03}
DARK {--lab-back: var(--jp-layout-color1, #1b1f24); --lab-soft: var(--jp-layout-color2, #2a3038);
  --lab-text: var(--jp-content-font-color1, #f3f4f6); --lab-edge: var(--jp-border-color1, #5b6470);
  --lab-link: var(--jp-content-link-color, #8cc4f8); --lab-right: #7ddb9c; --lab-wrong: #ffb080; --lab-open: #b6bfca;
  --lab-named: #43320d; --lab-on-named: #fdeec4}
.lab-check.lab-check {--lab-kind: var(--lab-open); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif;
  background: var(--lab-back); color: var(--lab-text); max-width: 900px; box-sizing: border-box; padding: 16px 20px;
  border: 1px solid var(--lab-edge); border-left: 6px solid var(--lab-kind); border-radius: 10px}
.lab-check.lab-check-right {--lab-kind: var(--lab-right)}
.lab-check.lab-check-wrong {--lab-kind: var(--lab-wrong)}
.lab-check p, .lab-check ul, .lab-check div {color: inherit; font-size: 16px; margin: 8px 0}
.lab-check p.lab-verdict {font-size: 18px; font-weight: 700; margin: 0 0 10px}
.lab-check .lab-verdict .lab-mark {color: var(--lab-kind)}
.lab-check ul.lab-lines {list-style: none; padding: 0}
.lab-check ul.lab-lines li {padding-left: 1.6em; text-indent: -1.6em; margin: 2px 0}
.lab-check b.lab-mark {display: inline-block; width: 1.6em; text-indent: 0}
.lab-check .lab-right {color: var(--lab-right)} .lab-check .lab-wrong {color: var(--lab-wrong)}
.lab-check p.lab-mistake {background: var(--lab-named); color: var(--lab-on-named); padding: 10px 14px;
  border-radius: 8px}
.lab-check.lab-check pre, .lab-check.lab-check code {font: 15px/1.5 ui-monospace, Menlo, Consolas, monospace;
  background: var(--lab-soft); color: var(--lab-text); padding: 1px 4px; border-radius: 4px}
.lab-check.lab-check pre {padding: 10px 14px; margin: 6px 0; border-radius: 8px; overflow-x: auto; white-space: pre}
.lab-check details {margin: 8px 0}
.lab-check summary {cursor: pointer; color: var(--lab-link); font-size: 16px; width: fit-content}
.lab-check img {max-width: 100%; height: auto}
DARK .lab-figure {mix-blend-mode: lighten}
</style>""".replace("DARK", f":is({', '.join(THEMES)}) .lab-check")


@dataclass
class Report:
    """The outcome of a check. As a cell's last expression it shows itself.

    Attributes
    ----------
    verdict : str, one line
    status : "right", "wrong" or "open" (nothing solved yet)
    lines : list of (status, sentence), what is right and what is not
    mistake : str or None, the name of the mistake if it was recognised
    fix : str, what to do about it
    example : list of (label, text), the smallest failing example
    note : str, the reward, or what to do next
    printed : str, what the function printed
    code : str, source to show openly
    picture : bytes, PNG; alt : str, the same in words
    folded : list of (summary, "text" or "code", body), what is shown on demand
    example_title : str, what the example is one of
    """

    verdict: str
    status: str = "open"
    lines: list[tuple[str, str]] = field(default_factory=list)
    mistake: str | None = None
    fix: str = ""
    example: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    printed: str = ""
    code: str = ""
    picture: bytes = b""
    alt: str = ""
    folded: list[tuple[str, str, str]] = field(default_factory=list)
    example_title: str = "The smallest example that fails"

    @property
    def passed(self) -> bool:
        """Is the exercise solved?"""
        return self.status == "right"

    @property
    def text(self) -> str:
        """The report as plain text, all but what a card folds away; a sentence is one line."""
        return self._plain(str)

    def _plain(self, shaped: Callable[[str], str]) -> str:
        """The report as plain text, each sentence as `shaped` makes it."""
        parts = [shaped(f"{MARKS[self.status]} {self.verdict}")]
        parts += [shaped(f"  {MARKS[status]} {sentence}") for status, sentence in self.lines]
        if self.mistake:
            parts.append(shaped(f"This looks like a common mistake: {self.mistake}. {self.fix}"))
        if self.example:
            parts.append(f"{self.example_title}:\n" + textwrap.indent(self._example(), "    "))
        if self.printed:
            parts.append(f"Your function printed:\n{textwrap.indent(self.printed, '    ')}")
        return "\n".join([*parts, *filter(None, (self.code, shaped(self.alt), shaped(self.note)))])

    @property
    def html(self) -> str:
        """The report as HTML; hints and solution are folded."""
        e = html.escape
        mark = f'<b class="lab-mark">{MARKS[self.status]}</b>'
        parts = [f'<p class="lab-verdict">{mark}{e(self.verdict)}</p>']
        if self.lines:
            items = "".join(
                f'<li><b class="lab-mark lab-{status}">{MARKS[status]}</b>{prose(sentence)}</li>'
                for status, sentence in self.lines
            )
            parts.append(f'<ul class="lab-lines">{items}</ul>')
        if self.mistake:
            named = f"<b>{prose(self.mistake)}</b>. {prose(self.fix)}"
            parts.append(f'<p class="lab-mistake">This looks like a common mistake: {named}</p>')
        if self.example:
            parts.append(f"<div><b>{e(self.example_title)}</b><pre>{e(self._example())}</pre></div>")
        if self.printed:
            parts.append(f"<div>Your function printed<pre>{e(self.printed)}</pre></div>")
        if self.code:
            parts.append(f"<pre>{e(self.code)}</pre>")
        if self.picture:
            source = base64.b64encode(self.picture).decode()
            image = f'<img class="lab-figure" src="data:image/png;base64,{source}" alt="{e(self.alt, quote=True)}">'
            parts.append(plots.style.DARK + image)
        if self.note:
            parts.append(f"<p>{prose(self.note)}</p>")
        for summary, kind, body in self.folded:
            body = f"<pre>{e(body)}</pre>" if kind == "code" else f"<p>{prose(body)}</p>"
            parts.append(f"<details><summary>{e(summary)}</summary>{body}</details>")
        return f'{STYLE}<div class="lab-check lab-check-{self.status}">{"".join(parts)}</div>'

    def _example(self) -> str:
        """The example, values in one column; a long one goes on below, so that no card scrolls sideways."""
        width = max(len(label) for label, _ in self.example)
        fold = textwrap.TextWrapper(
            max(48, EXAMPLE_WIDTH - width), subsequent_indent=" ", replace_whitespace=False, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        rows = []
        for label, value in self.example:
            first, *rest = [part for line in value.splitlines() for part in fold.wrap(line) or [""]] or [""]
            rows += [f"{label:<{width}} = {first}", *(" " * (width + 3) + line for line in rest)]
        return "\n".join(rows)

    def __repr__(self) -> str:
        return self._plain(folded)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """What Jupyter shows."""
        return {"text/plain": repr(self), "text/html": self.html}


def prose(text: str) -> str:
    """A sentence as HTML: what is between backticks is set as code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text))


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


def source(function) -> str:
    """The source of a function."""
    return textwrap.dedent(inspect.getsource(function)).strip()


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
