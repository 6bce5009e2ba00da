"""The index of the site that `lab_utils.classroom.course` writes: the promise, the pages, a search for sections."""

import html
import re
from pathlib import Path

from ..files import read_text
from ..outputs import save
from .pages import address, describe, script, sections, shown, style

PROMISE = "Fine-tune a real language model in four bits on your own laptop, and understand every number on the way."


def reading_time(notebook) -> str:
    """The time that a page states: the first sentence in the row `| Time | … |` of its first cells, or ""."""
    prose = "\n".join(cell.source for cell in shown(notebook).cells[:3] if cell.cell_type == "markdown")
    row = re.search(r"^\| *Time *\| *(.+?)\.? *\|", prose, flags=re.MULTILINE)
    return re.split(r"[.:;] +", row.group(1))[0] if row else ""


def write_index(pages: list, folder: Path, *, shortened: bool = False) -> Path:
    """Write `index.html` for pages that have been written to `folder`.

    Parameters
    ----------
    pages : list of course.Page, in the site's order
    folder : Path
    shortened : bool, whether the pages ran with LORA_LAB_FAST=1: the index says so

    Returns
    -------
    Path of the index: one row per page with its title, question, time and, if it failed, the cell; then all sections.
    """
    rows, items = [], []
    for page in pages:
        name = address(page.path.stem)
        text = read_text(folder / f"{page.path.stem}.html")
        title, question = (html.escape(part) for part in describe(page.notebook))
        state = f"executed in {clock(page.seconds)}"
        if page.failure:
            state = f'<b class="site-bad">failed in code cell {page.failure.cell}</b>'
        explorer = _explorer(text)
        rows.append(
            f'<tr><th scope="row"><a href="{name}">{title}</a> <span class="site-question">{question}</span> '
            f'<span class="site-state">{f"{explorer}; " if explorer else ""}{state}</span></th>'
            f"<td>{html.escape(reading_time(page.notebook))}</td></tr>"
        )
        number = title.split(" · ")[0]
        items += [f'<li><a href="{name}#{anchor}">{number} · {head}</a></li>' for anchor, head in sections(text)]
    body = _INDEX.format(
        style=style(), script=script(), promise=PROMISE, rows="\n".join(rows), items="\n".join(items), count=len(items),
        shortened=_SHORTENED if shortened else "",
    )  # fmt: skip
    return save(folder / "index.html", body)


def _explorer(page: str) -> str:
    """What the explorers of a page do without a kernel, from its HTML; empty for a page without widgets."""
    places = re.findall('<div class="lab-place"([^>]*)>', page)
    if any("data-asks" not in place for place in places):
        return "explorer answers here"
    return "explorer is a picture here" if places or 'class="lab-no-kernel"' in page else ""


_SHORTENED = "<p><b>A trial build:</b> its trainings were cut short, so its scores are not those of a full run.</p>"
_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>LoRA Lab</title>
<meta name="description" content="{promise}">
{style}</head>
<body class="site-index"><main>
<h1>LoRA Lab</h1>
<p class="site-promise">{promise}</p>
<p>These are the pages of an interactive course on LoRA and QLoRA, executed from top to bottom on one machine. Each
starts with a question, asks you to predict, runs the code and says what came out.</p>
{shortened}
<table><caption>The pages in order; their times are for a reader who runs the cells</caption>
<thead><tr><th scope="col">Page and question</th><th scope="col">Time</th></tr></thead>
<tbody>
{rows}
</tbody></table>
<h2>What works here, without Python</h2>
<ul>
<li>All text, code, results and figures. No page asks the network for anything: save it, and it reads the same
offline.</li>
<li>Explorers that compute in the browser: move their sliders with the mouse or the arrow keys. The others are
pictures, as they were when the page was saved.</li>
<li>Hints and solutions of the exercises, folded under each check.</li>
</ul>
<p>To train, to solve exercises and to move the other explorers, run the same pages as notebooks: <code>make lab</code>
in a copy of the project.</p>
<h2>Find a section</h2>
<p class="site-filter" hidden><label>Words in its heading <input type="search" autocomplete="off"></label>
<output role="status">{count} sections</output></p>
<ul class="site-sections">
{items}
</ul>
</main>{script}</body></html>
"""


def clock(seconds: float) -> str:
    """Seconds as `42 s` or `3 min 05 s`."""
    return f"{seconds:.0f} s" if seconds < 59.5 else "{} min {:02} s".format(*divmod(round(seconds), 60))
