"""HTML of executed notebooks: one file a page with everything inside, and an index.

A page asks the network for nothing, so it reads the same offline and from a disk. Explorers that compute in the
browser work in it; other widgets are shown as they stood (see `lab_utils.snapshots`). Formulas in TeX stay text.
"""

import html
import re
from pathlib import Path

from .snapshots import replace_widgets


def describe(notebook) -> tuple[str, str]:
    """The first heading of a notebook, and the question under it (the first sentence with a question mark, or "")."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    titles = re.findall(r"^#+ +(.+?)\s*$", "\n".join(prose), flags=re.MULTILINE)
    body = " ".join(line for line in "\n".join(prose[:3]).splitlines() if not line.startswith("#"))
    body = re.sub(r"\[!?\[?[^]]*\]\([^)]*\)\]?(\([^)]*\))?|<[^>]*>", " ", body)  # badges, links, tags
    question = re.search(r"[^.?!|:]*\?", re.sub(r"[*_`>]", "", body))
    return titles[0] if titles else "Untitled", " ".join(question.group().split()) if question else ""


# nbconvert's page less what it would fetch: require.js, MathJax and Mermaid (and, as no widget is left, their manager).
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}{{ resources.lab_head }}{%- endblock -%}
{%- block data_html scoped -%}
{%- if output.metadata.get('lab_widget') -%}
<div class="jp-OutputArea-output {{ extra_class }}">{{ output.data['text/html'] }}</div>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock -%}
{%- block footer_js -%}{{ resources.lab_scripts }}{%- endblock -%}
"""


def page_html(notebook, *, folder: Path = Path("."), theme: str = "light") -> str:
    """An executed notebook as one HTML page that fetches nothing.

    Parameters
    ----------
    notebook : NotebookNode
    folder : Path, where the notebook lies: pictures that its prose names are looked for here and put in
    theme : str, "light" or "dark"
    """
    from nbconvert import HTMLExporter

    notebook, head, scripts = replace_widgets(notebook)
    resources = {
        "metadata": {"name": describe(notebook)[0], "path": str(folder)},
        "lab_head": head,
        "lab_scripts": scripts,
    }
    exporter = HTMLExporter(template_name="lab", raw_template=_TEMPLATE, embed_images=True, theme=theme)
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    return re.sub(r'<img\b[^>]*\bsrc="https?:[^>]*>', _alternative, body)


def _alternative(match: re.Match) -> str:
    """The text in the place of a picture that lies on the network, a badge most often."""
    text = re.search(r'\balt="([^"]*)"', match.group())
    return text.group(1) if text else ""


def write_page(page, folder: Path) -> Path:
    """Write an executed notebook to `folder` as one HTML file with its pictures inside; returns the file."""
    body = page_html(page.notebook, folder=page.path.parent)
    body = re.sub(r'href="([\w-]+)\.ipynb', r'href="\1.html', body)  # from page to page within the site
    target = folder / f"{page.path.stem}.html"
    target.write_text(body, encoding="utf-8")
    return target


def write_index(pages: list, folder: Path) -> Path:
    """Write `index.html`: one row a notebook with its title, question, time and, if it failed, the cell."""
    rows = []
    for page in pages:
        title, question = (html.escape(text) for text in describe(page.notebook))
        state = f"<b>failed in code cell {page.failure.cell}</b>" if page.failure else clock(page.seconds)
        link = f'<a href="{html.escape(page.path.stem)}.html">{title}</a>'
        rows.append(f"<tr><td>{link}</td><td>{question}</td><td>{state}</td></tr>")
    target = folder / "index.html"
    target.write_text(_INDEX.replace("ROWS", "\n".join(rows)), encoding="utf-8")
    return target


_INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>LoRA Lab</title>
<style>
body { font: 17px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .5rem .8rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td:last-child { white-space: nowrap; } b { color: #b00; }
</style>
<h1>LoRA Lab</h1>
<p>Every notebook of the course, executed from top to bottom on one machine.</p>
<table><tr><th>Notebook</th><th>Question</th><th>Time</th></tr>
ROWS
</table></html>
"""


def clock(seconds: float) -> str:
    """Seconds as `42 s` or `3 min 05 s`."""
    return f"{seconds:.0f} s" if seconds < 59.5 else "{} min {:02} s".format(*divmod(round(seconds), 60))
