"""What the site's index opens with: an explorer that answers at once; and the ways to run the pages."""

import copy
import html
import re

from ..errors import LabError
from ..notebook.badges import readme_badges, repository
from .pages import address, describe
from .snapshots import STATE, VIEW, explorers, replace_widgets

FIRST = "RankExplorer"  # the class that a visitor meets first, where a page of the site shows it
RANK = 2  # it starts there: the picture cannot be recognized yet
RANK_WORDS = (  # class, heading, what is above the explorer, and what is below
    "site-live site-live-rank", "Move the rank",
    "The picture is a matrix, and beside it is its best copy made of <i>r</i> columns and <i>r</i> rows. Drag the rank "
    "until you recognize it.",
    "Then choose the noise, and the update that a fine-tune made to a language model. Is the update more like the "
    "picture, or more like the noise? That is the question behind LoRA. ",
)  # fmt: skip
WORDS = (
    "site-live", "Try it", "It computes in your browser: move its controls with the mouse or the arrow keys.", "",
)  # fmt: skip


def live_explorer(pages: list) -> tuple[str, str, str]:
    """The explorer on the index: that of the ranks, else the first that answers without Python.

    Parameters
    ----------
    pages : list of course.Page, executed

    Returns
    -------
    (str, str, str) : its section, HTML for the page's head, and HTML for the end of its body; empty without an explorer
    """
    found = [(page, *one) for page in pages for one in explorers(page.notebook)]
    of_ranks = [one for one in found if str(one[2].get("_anywidget_id", "")).endswith(f".{FIRST}")]
    if not found:
        return "", "", ""
    page, output, _ = (of_ranks or found)[0]
    kind, heading, lead, then = RANK_WORDS if of_ranks else WORDS
    body, head, scripts = _alone(page.notebook, output, {"rank": RANK} if of_ranks else {})
    section = _LIVE.format(
        kind=kind, heading=heading, lead=lead, then=then, body=body,
        page=address(page.path.stem), title=html.escape(describe(page.notebook)[0]),
    )  # fmt: skip
    return section, head, scripts


def _alone(notebook, output, changed: dict) -> tuple[str, str, str]:
    """(HTML, head, scripts) of one explorer, with some of its state changed."""
    view = output.data[VIEW]
    small = copy.deepcopy(type(notebook)({**notebook, "cells": [type(notebook)(outputs=[output])]}))
    state = small.metadata["widgets"][STATE]["state"][view["model_id"]]["state"]
    state.update(changed, start={**state.get("start", {}), **changed})
    shown, head, scripts = replace_widgets(small)
    return shown.cells[0]["outputs"][0].data["text/html"], head, scripts


def before_and_after(pages: list) -> str:
    """The first message that a page answers before and after a fine-tune (`widgets.before_after`), as a section."""
    for page in pages:
        outputs = [output for cell in page.notebook.cells for output in cell.get("outputs", [])]
        for body in (output.get("data", {}).get("text/html", "") for output in outputs):
            if 'class="lab-story"' in body:
                title = html.escape(describe(page.notebook)[0])
                return _STORY.format(body=body, page=address(page.path.stem), title=title)
    return ""


def ways_to_run() -> str:
    """Cards for Colab, Kaggle and Codespaces, if the repository is on GitHub, and for your own computer."""
    try:
        services = re.findall(r"\[!\[Open in (\w+)\]\([^)]*\)\]\(([^)]+)\)", readme_badges())
    except LabError:
        services = []
    cards = [
        f'<li class="site-card"><h3><a href="{html.escape(lead)}">{name}</a></h3><p>{_SERVICES[name]}</p></li>'
        for name, lead in services
    ]
    untried = _UNTRIED if services else ""
    address = repository()
    return _RUN.format(
        cards="\n".join(cards), untried=untried, repository=html.escape(address),
        folder=html.escape(address.rpartition("/")[2]),
    )  # fmt: skip


_SERVICES = {
    "Colab": "Page 00 in your browser, with a Google account. Its first cell fetches the lab.",
    "Kaggle": "The same with a Kaggle account. Switch <i>Internet</i> on in the notebook's settings first.",
    "Codespaces": "A container with the packages and the model, in VS Code's editor, with a GitHub account.",
}
_UNTRIED = (
    '<p class="site-aside">The three services have not been tried: their published lists of packages and their formats '
    "were checked.</p>"
)
_LIVE = """<section class="{kind}" aria-labelledby="live">
<div class="site-lead"><h2 id="live">{heading}</h2>
<p>{lead}</p></div>
<div class="site-stage">{body}</div>
<p class="site-aside">{then}From <a href="{page}">{title}</a>.</p>
</section>"""
_STORY = """<section class="site-story" aria-labelledby="story">
<div class="site-lead"><h2 id="story">Before and after a fine-tune</h2>
<p>The same small model reads the same message, first alone and then with an adapter: a file of a few megabytes that a
fine-tune has left. One message proves nothing, so the course tests hundreds.</p></div>
{body}
<p class="site-aside">From <a href="{page}">{title}</a>.</p>
</section>"""
_RUN = """<section class="site-beside" aria-labelledby="run">
<div class="site-lead"><h2 id="run">Run it here</h2>
<p>To train, to solve exercises and to move every explorer, run the same pages as notebooks.</p></div>
<div><ul class="site-cards">
<li class="site-card site-own"><h3>Your computer</h3>
<pre><code>git clone {repository}
cd {folder}
make lab</code></pre>
<p>Linux, or macOS 14 on Apple silicon, with Python 3.11 to 3.13; no GPU and no account. JupyterLab opens on page 00.
<a href="{repository}#other-ways-to-set-up">Windows and other ways</a>.</p></li>
{cards}
</ul>
{untried}</div></section>"""
