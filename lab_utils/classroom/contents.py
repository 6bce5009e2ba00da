"""The index of the site that `lab_utils.classroom.course` writes: an explorer, the pages by part, a search."""

import html
import re
from pathlib import Path

from ..files import read_text
from ..outputs import save
from .front import before_and_after, live_explorer, ways_to_run
from .pages import address, describe, script, sections, shown, style
from .parts import grouped

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
    Path of the index: an explorer that answers at once, one card per page in its part of the course, with title,
    question, time and, if it failed, the cell; then how to run the pages, and all sections.
    """
    texts = {page.path.stem: read_text(folder / f"{page.path.stem}.html") for page in pages}
    cards = {page.path.stem: _card(page, texts[page.path.stem]) for page in pages}
    parts = [
        _PART.format(
            name=part.name, line=part.line, cards="\n".join(cards[stem] for stem in stems), number=number,
        )
        for number, (part, stems) in enumerate(grouped(list(cards)).items(), 1)
    ]  # fmt: skip
    items = [
        f'<li><a href="{address(page.path.stem)}#{anchor}">{number} · {head}</a></li>'
        for page in pages
        for number in [html.escape(describe(page.notebook)[0]).split(" · ")[0]]
        for anchor, head in sections(texts[page.path.stem])
    ]
    live, head, scripts = live_explorer(pages)
    body = _INDEX.format(
        style=style() + head, script=script() + scripts, promise=PROMISE, live=live, story=before_and_after(pages),
        parts="\n".join(parts),
        run=ways_to_run(), items="\n".join(items), count=len(items), pages=len(pages),
        first=address(pages[0].path.stem) if pages else "#pages", shortened=_SHORTENED if shortened else "",
    )  # fmt: skip
    return save(folder / "index.html", body)


def _card(page, text: str) -> str:
    """A page on the index: title, question, time, what its explorers do here, and the cell if it failed."""
    title, question = (html.escape(part) for part in describe(page.notebook))
    number, _, name = title.rpartition(" · ")
    number = f'<span class="site-number">{number}</span> ' if number else ""
    state = f"executed in {clock(page.seconds)}"
    if page.failure:
        state = f'<b class="site-bad">failed in code cell {page.failure.cell}</b>'
    facts = filter(None, (html.escape(reading_time(page.notebook)), _explorer(text), state))
    return (
        f'<li class="site-card"><h3><a href="{address(page.path.stem)}">{number}{name}</a></h3> '
        f'<p class="site-question">{question}</p> '
        f'<p class="site-state">{"".join(f"<span>{fact}</span> " for fact in facts)}</p></li>'
    )


def _explorer(page: str) -> str:
    """What the explorers of a page do without a kernel, from its HTML; empty for a page without widgets."""
    places = re.findall('<div class="lab-place"([^>]*)>', page)
    if any("data-asks" not in place for place in places):
        return "explorer answers here"
    return "explorer is a picture here" if places or 'class="lab-no-kernel"' in page else ""


_SHORTENED = (
    '<p class="site-aside"><b>A trial build:</b> its trainings were cut short, so its scores are not those of a full '
    "run.</p>"
)
_PART = """<section class="site-part site-beside" aria-labelledby="part-{number}">
<div class="site-lead"><h2 id="part-{number}">{name}</h2>
<p>{line}</p></div>
<ul class="site-cards">
{cards}
</ul></section>"""
_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>LoRA Lab</title>
<meta name="description" content="{promise}">
{style}</head>
<body class="site-index"><main>
<header class="site-hero">
<p class="site-brand">LoRA Lab</p>
<h1>{promise}</h1>
<div class="site-opening">
<p class="site-promise">An interactive course on LoRA and QLoRA in {pages} pages, for a laptop without a GPU. Each asks
you to predict, runs the code and says what came out.</p>
<p class="site-ways"><a class="site-button" href="{first}">Read the pages</a> <a href="#run">Run it yourself</a></p>
</div>
{shortened}
</header>
{live}
{story}
<div id="pages">
{parts}
</div>
{run}
<section class="site-beside" aria-labelledby="here">
<div class="site-lead"><h2 id="here">What works here, without Python</h2></div>
<ul class="site-plain">
<li>All text, code, results and figures, as one machine computed them from top to bottom. No page asks the network for
anything: save it, and it reads the same offline.</li>
<li>Explorers that compute in the browser: move their sliders with the mouse or the arrow keys. The others are
pictures, as they were when the page was saved.</li>
<li>Hints and solutions of the exercises, folded under each check.</li>
</ul>
</section>
<section class="site-beside" aria-labelledby="find">
<div class="site-lead"><h2 id="find">Find a section</h2></div>
<div><p class="site-filter" hidden><label>Words in its heading <input type="search" autocomplete="off"></label>
<output role="status">{count} sections</output></p>
<ul class="site-sections">
{items}
</ul></div>
</section>
</main>{script}</body></html>
"""


def clock(seconds: float) -> str:
    """Seconds as `42 s` or `3 min 05 s`."""
    return f"{seconds:.0f} s" if seconds < 59.5 else "{} min {:02} s".format(*divmod(round(seconds), 60))
