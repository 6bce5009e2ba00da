"""Answers side by side, as a plain HTML table that a page without a kernel shows too."""

import html
import re

from ..evaluate import Scores
from ..scores import Measured

DARK = ('[data-jp-theme-light="false"]', "html[theme=dark]", ".vscode-dark")  # JupyterLab, Colab, VS Code
STYLE = """<style>
.lab-answers {--lab-back: #fff; --lab-text: #111; --lab-edge: #c3c9d1; --lab-head: #f3f4f6; --lab-right: #dcfce7;
  --lab-wrong: #fee2e2}
DARK {--lab-back: #1b1f24; --lab-text: #f3f4f6; --lab-edge: #5b6470; --lab-head: #2a3038; --lab-right: #14452a;
  --lab-wrong: #5c1f1f}
.lab-answers.lab-answers {border-collapse: collapse; font: 15px/1.45 system-ui, sans-serif; color: var(--lab-text)}
.lab-answers.lab-answers tr :is(th, td) {border: 1px solid var(--lab-edge); padding: 6px 10px; text-align: left;
  vertical-align: top; max-width: 460px; background: var(--lab-back); color: var(--lab-text)}
.lab-answers.lab-answers tr th {background: var(--lab-head)}
.lab-answers.lab-answers caption {text-align: left; padding: 0 0 8px; font-size: 17px; font-weight: 650; color: inherit}
.lab-answers.lab-answers tr td.right {background: var(--lab-right)}
.lab-answers.lab-answers tr td.wrong {background: var(--lab-wrong)}
.lab-answers.lab-answers.lab-answers tr code {font-size: 14px; background: none; color: inherit; white-space: pre-wrap;
  overflow-wrap: anywhere}
</style>""".replace("DARK", ", ".join(f"{theme} .lab-answers" for theme in DARK))


def answers_table(columns: dict[str, Scores], rows: int = 6):
    """The first `rows` prompts with what each model wrote, right answers marked ✓ and wrong ones ✗.

    Parameters
    ----------
    columns : dict heading -> Scores of the same examples
    rows : int, prompts to show

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    first = next(iter(columns.values()))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("message", *columns))
    lines = []
    for index, row in enumerate(first.rows[:rows]):
        cells = [f"<td>{html.escape(row['prompt'])}</td>"]
        for scores in columns.values():
            found = scores.rows[index]
            kind, mark = ("right", "✓") if found["right"] else ("wrong", "✗")
            text = re.sub(r"\n+", " ⏎ ", found["output"])
            text = text if len(text) <= 220 else text[:220] + " …"
            cells.append(f'<td class="{kind}">{mark} <code>{html.escape(text)}</code></td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(f'{STYLE}<table class="lab-answers"><tr>{head}</tr>{"".join(lines)}</table>')


def shares_table(columns: dict[str, Measured]):
    """Each measure as a count out of n and a share with its 95 % interval, one column per model or set of examples.

    Parameters
    ----------
    columns : dict heading -> scores.Measured, all of the same measures, which are shares

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    first = next(iter(columns.values()))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *columns))
    lines = []
    for row in first.measures:
        cells = [f"<td>{html.escape(row.name)}</td>"]
        for measured in columns.values():
            one = measured[row.name]
            count = f"{round(one.value * one.n)} of {one.n}"
            cells.append(f"<td>{count} · {one.value:.0%} ({one.low:.0%} to {one.high:.0%})</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(f'{STYLE}<table class="lab-answers"><tr>{head}</tr>{"".join(lines)}</table>')


def report_table(rows: list[dict]):
    """A machine report as a table: verdict, what, found, advice (see `lab_utils.models.capabilities.report`).

    Its caption names what is to be fixed, if anything is; what the advice has in backticks is shown as code.
    """
    from IPython.display import HTML

    head = "".join(f"<th>{name}</th>" for name in ("", "what", "found here", "what to do"))
    lines = []
    for row in rows:
        kind, mark, word = ("right", "✓", "fine") if row["ok"] else ("wrong", "!", "to fix")
        cells = f'<td class="{kind}" aria-label="{word}">{mark}</td>'
        cells += "".join(f"<td>{_with_code(row[part])}</td>" for part in ("what", "found", "advice"))
        lines.append(f"<tr>{cells}</tr>")
    wrong = ", ".join(row["what"] for row in rows if not row["ok"])
    caption = f"To fix: {html.escape(wrong)}." if wrong else "Everything the course needs is here."
    return HTML(
        f'{STYLE}<table class="lab-answers"><caption>{caption}</caption><tr>{head}</tr>{"".join(lines)}</table>'
    )


def _with_code(text: str) -> str:
    """Text as HTML, with what is in backticks as code."""
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is a backtick
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
