"""HTML of executed notebooks: one file per page with everything in it (`lab_utils.classroom.contents` has the index).

A page loads nothing from the network, so it looks the same offline. Explorers that compute in the browser work in it;
other widgets are shown in their last state (see `lab_utils.classroom.snapshots`). Formulas in TeX remain text. The
reader's browser chooses between light and dark.
"""

import html
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ..files import read_text
from ..outputs import save
from .snapshots import replace_widgets

HIDDEN_TAGS = {"notes", "colab"}  # cells for the speaker, and for another machine
NO_ALT = "No description has been provided for this image"  # nbconvert's
_ASSETS = Path(__file__).parent / "assets"


def shown(notebook):
    """A copy of a notebook without the cells that readers of the site do not need."""
    cells = [cell for cell in notebook.cells if not HIDDEN_TAGS.intersection(cell.metadata.get("tags", []))]
    return type(notebook)({**notebook, "cells": cells})


def describe(notebook) -> tuple[str, str]:
    """The first heading of a notebook, and its question: bold, else the first sentence that asks, else ""."""
    prose = [cell.source for cell in shown(notebook).cells if cell.cell_type == "markdown"]
    titles = re.findall(r"^#+ +(.+?)\s*$", "\n".join(prose), flags=re.MULTILINE)
    body = " ".join(line for line in "\n".join(prose[:3]).splitlines() if not line.startswith("#"))
    body = re.sub(r"\[!?\[?[^]]*\]\([^)]*\)\]?(\([^)]*\))?|<[^>]*>", " ", body)  # badges, links, tags
    bold = re.search(r"\*\*([^*]+\?)\*\*", body)
    asked = bold or re.search(r"([^.?!|:]*\?)", re.sub(r"[*_`>]", "", body))
    return titles[0] if titles else "Untitled", " ".join(asked.group(1).split()) if asked else ""


# nbconvert's page without what it would download: require.js, MathJax, Mermaid and the manager of widgets.
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}{{ resources.lab_head }}{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true">
{{ resources.lab_bar }}<main id="lesson" tabindex="-1">
{%- endblock -%}
{%- block body_footer -%}</main>{{ resources.lab_end }}{{ resources.lab_scripts }}</body>{%- endblock -%}
{%- block data_html scoped -%}
{%- if output.metadata.get('lab_widget') -%}
<div class="jp-OutputArea-output {{ extra_class }}">{{ output.data['text/html'] }}</div>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock -%}
"""


def page_html(notebook, *, folder: Path = Path("."), stem: str = "", titles: Mapping[str, str] | None = None) -> str:
    """An executed notebook as one HTML page that downloads nothing.

    Parameters
    ----------
    notebook : NotebookNode
    folder : Path of the folder that pictures named in the prose are read from; they are embedded
    stem : str, the name of the notebook's file without its ending
    titles : Mapping, the site's pages in order: stem -> title. Default: a single page without links to others
    """
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    title = describe(notebook)[0]
    notebook, head, scripts = replace_widgets(shown(notebook))
    notebook.metadata.pop("title", None)  # nbconvert would take it for the page's
    exporter = HTMLExporter(
        template_name="lab", raw_template=_TEMPLATE, embed_images=True, anchor_link_text="#", theme="light"
    )
    environment = exporter.environment
    night = environment.loader.get_source(environment, "static/theme-dark.css")[0]
    resources = {
        "metadata": {"name": f"{title} · LoRA Lab", "path": str(folder)},
        "lab_head": f'<style media="screen and (prefers-color-scheme: dark)">{night}</style>{style()}{head}',
        "lab_bar": f'{_SKIP}<header class="site-bar">{_way(stem, titles, "Pages")}</header>' if titles else "",
        "lab_end": f'<footer class="site-bar">{_way(stem, titles, "Pages, again")}</footer>' if titles else "",
        "lab_scripts": script() + scripts,
    }
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    soup = BeautifulSoup(body, features="html.parser")
    _repair(soup)
    if titles:
        _relink(soup, titles)
        soup.header.append(BeautifulSoup(_sections_of_page(body), features="html.parser"))
    return str(soup)


def write_page(page, folder: Path, titles: Mapping[str, str] | None = None) -> Path:
    """Write an executed notebook to `folder` as one HTML file with its pictures inside; returns the file."""
    target = folder / f"{page.path.stem}.html"
    body = page_html(page.notebook, folder=page.path.parent, stem=page.path.stem, titles=titles)
    return save(target, body)


def is_of_site(page: bytes) -> bool:
    """Is this HTML a page, or the index, of a site that this module wrote?"""
    return bool(re.search(rb"<title>[^<]*LoRA Lab</title>", page[:100_000]))


def address(stem: str) -> str:
    """The link from one page of a site to another."""
    return f"{quote(os.fsencode(stem))}.html"  # the bytes of the name, independent of the locale


def style() -> str:
    """The style element of every page of a site."""
    return f"<style>{read_text(_ASSETS / 'site.css')}</style>"


def script() -> str:
    """The script element of every page of a site."""
    return f"<script>{read_text(_ASSETS / 'site.js')}</script>"


_SKIP = '<a class="site-skip" href="#lesson">Skip to the content</a>'


def _way(stem: str, titles: Mapping[str, str], label: str) -> str:
    """Links to the page before, the index, and the page after; `label` distinguishes two such landmarks."""
    order = list(titles)
    place = order.index(stem)
    before = order[place - 1] if place else None
    after = order[place + 1] if place + 1 < len(order) else None
    links = ['<a class="site-home" href="index.html">LoRA Lab: all pages</a>']
    if before:
        links.insert(0, f'<a rel="prev" href="{address(before)}">← {html.escape(titles[before])}</a>')
    if after:
        links.append(f'<a rel="next" href="{address(after)}">{html.escape(titles[after])} →</a>')
    return f'<nav class="site-way" aria-label="{label}">{"".join(links)}</nav>'


def sections(page: str) -> list[tuple[str, str]]:
    """The (id, text as HTML) of every section heading in a page's HTML."""
    found = re.findall(r'<h[23] id="([^"]+)">(.*?)<a [^>]*class="anchor-link"', page, flags=re.DOTALL)
    return [(name, re.sub(r"<[^>]*>", "", text).strip()) for name, text in found]


def _sections_of_page(page: str) -> str:
    """A folded list of the page's own sections."""
    items = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in sections(page))
    if not items:
        return ""
    return (
        '<nav aria-label="On this page"><details><summary>On this page</summary>'
        f'<ul class="site-sections">{items}</ul></details></nav>'
    )


def _repair(soup) -> None:
    """Fix, in place, what makes nbconvert's page hard to use with a keyboard or a screen reader."""
    for part in soup.select(".jp-Cell-inputWrapper[tabindex]"):
        del part["tabindex"]  # a stop at every cell leads nowhere; site.js keeps those that scroll
    for picture in soup.select("img[src^='http']"):
        picture.replace_with(picture.get("alt", ""))  # a picture on the network, usually a badge
    for picture in soup.find_all("img", alt=NO_ALT):
        cell = picture.find_parent(class_="jp-Cell")
        after = cell and cell.find_next_sibling(class_="jp-Cell")
        prose = after and after.select_one(".jp-RenderedMarkdown")
        described = prose and prose.get_text().strip().startswith("In words:")
        picture["alt"] = "Figure: described in the text below" if described else "Figure drawn by the code above"
    for anchor in soup.select("a.anchor-link"):
        anchor["aria-label"] = "Link to this section"
    for head in soup.select("thead"):
        if not head.get_text().strip():
            head.decompose()
    for cell in soup.find_all("th"):
        if not cell.get_text().strip():
            cell.name = "td"


def _relink(soup, titles: Mapping[str, str]) -> None:
    """Point links between notebooks to the site's pages; links to other files become plain text."""
    for link in soup.select("main a[href]"):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc or not parts.path:
            continue
        path = os.fsdecode(unquote_to_bytes(parts.path))
        stem = path.removesuffix(".ipynb").removeprefix("./")
        if path.endswith(".ipynb") and stem in titles:
            link["href"] = address(stem) + (f"#{parts.fragment}" if parts.fragment else "")
        else:
            del link["href"]
