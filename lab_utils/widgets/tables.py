"""Answers side by side, as a plain HTML table that a page without a kernel shows too."""

import html

from ..evaluate import Scores

STYLE = """<style>
.lab-table {border-collapse: collapse; font: 15px/1.45 system-ui, sans-serif; color: #111}
.lab-table tr, .lab-table td {background: #fff !important; color: #111}
.lab-table th, .lab-table td {border: 1px solid #d1d5db; padding: 6px 10px; text-align: left !important;
  vertical-align: top; max-width: 460px}
.lab-table th {background: #f3f4f6 !important}
.lab-table code {font-size: 14px; background: none !important; color: inherit; white-space: pre-wrap;
  overflow-wrap: anywhere}
.lab-table td.right {background: #dcfce7 !important} .lab-table td.wrong {background: #fee2e2 !important}
</style>"""


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
            text = found["output"] if len(found["output"]) <= 220 else found["output"][:220] + " …"
            cells.append(f'<td class="{kind}">{mark} <code>{html.escape(text)}</code></td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(f'{STYLE}<table class="lab-table"><tr>{head}</tr>{"".join(lines)}</table>')


def report_table(rows: list[dict]):
    """A machine report as a table: what, found, verdict, advice (see `lab_utils.models.capabilities.report`)."""
    from IPython.display import HTML

    head = "".join(f"<th>{name}</th>" for name in ("what", "found here", "", "what to do"))
    lines = []
    for row in rows:
        kind, mark = ("right", "✓") if row["ok"] else ("wrong", "!")
        cells = f"<td>{html.escape(row['what'])}</td><td>{html.escape(row['found'])}</td>"
        cells += f'<td class="{kind}">{mark}</td><td>{html.escape(row["advice"])}</td>'
        lines.append(f"<tr>{cells}</tr>")
    return HTML(f'{STYLE}<table class="lab-table"><tr>{head}</tr>{"".join(lines)}</table>')
