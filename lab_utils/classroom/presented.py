"""The explorers that `present` shows, each as a notebook of its code alone, and the pages that Voilà makes of them.

Of a committed notebook only what the explorer needs is taken, then the cell that shows it. The pages load nothing from
other machines.
"""

import ast
import copy
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..errors import LabError, choose
from ..files import read_text
from ..notebook import cells
from ..notebook.notebook_files import notebook_bytes, read_notebook
from ..outputs import save
from .course import NOTEBOOKS

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Shown:
    """An explorer to present.

    Attributes
    ----------
    name : str, of its page
    notebook : str, the file that it is in
    title, line : str, what the index says
    whole_cells : bool, take all of the cells that it needs, where single statements would miss what functions change
    variable : str, its name in the notebook; default is the first explorer there
    """

    name: str
    notebook: str
    title: str
    line: str
    whole_cells: bool = False
    variable: str = ""


EXPLORERS = (
    Shown("rank", "01_rank_one.ipynb", "Rank", "A picture, noise and a real update from their first r directions."),
    Shown("parameters", "02_counting_parameters.ipynb", "Parameters", "How many numbers LoRA trains, in real models."),
    Shown("lora", "03_lora_from_scratch.ipynb", "What LoRA adds", "W, B · A and their sum while it trains.", True),
    Shown("trainer", "04_rank_and_alpha.ipynb", "Rank and alpha", "Every move of a slider trains a small model again."),
    Shown("quantizer", "05_quantization.ipynb", "Quantizer", "Weights in 2 to 8 bits, and what an outlier does."),
    Shown("sentences", "05_quantization.ipynb", "Whole model", "What it writes in 2 to 8 bits.", variable="reader"),
    Shown("codes", "06_nf4.ipynb", "Codes", "Sixteen levels to drag, beside NF4, AF4 and FP4."),
    Shown("budget", "07_memory_budget.ipynb", "Memory budget", "Does this fine-tune fit on that GPU?"),
    Shown("sweep", "09_choosing_hyperparameters.ipynb", "Sweep", "Recorded fine-tunes: any two settings compared."),
    Shown("merge", "10_merge_and_serve.ipynb", "Merge", "What rounding leaves of an update."),
    Shown("variants", "11_lora_variants.ipynb", "Variants", "LoRA's relatives: what each trains and what it finds."),
    Shown("pictures", "12_beyond_text.ipynb", "Pictures", "A style adapter of a diffusion model: rank and strength."),
    Shown("cluster", "13_many_machines.ipynb", "Many machines", "What each of N GPUs holds, and what a step sends."),
    Shown("conversations", "14_your_own_data.ipynb", "Conversations", "What a chat teaches, and what is cut."),
    Shown("strength", "15_what_it_forgot.ipynb", "Strength", "An adapter turned down: what is kept, what is lost."),
    Shown("skill", "15_what_it_forgot.ipynb", "Equal skill", "Who has forgotten less?", variable="at_equal_skill"),
    Shown("pairs", "16_preferences_and_rewards.ipynb", "Pairs", "DPO moves two answers.", variable="both_answers"),
    Shown("rewards", "16_preferences_and_rewards.ipynb", "Rewards", "What a step of GRPO does.", variable="explorer"),
)


def page_notebook(shown: Shown, folder: Path = NOTEBOOKS):
    """The notebook behind a page: what the explorer needs, without output, and then the explorer.

    Parameters
    ----------
    shown : Shown
    folder : Path of the folder of the committed notebooks

    Returns
    -------
    NotebookNode of two code cells

    Raises
    ------
    LabError
        No cell of the notebook shows an explorer.
    """
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = read_notebook(folder / shown.notebook)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    at = next((index for index, source in enumerate(sources) if _shows(source, shown.variable)), None)
    if at is None:
        raise LabError(f"No cell of {shown.notebook} shows an explorer: `name = …Explorer(…)`, and `name` at its end.")
    before, last = sources[:at], sources[at]
    if not shown.whole_cells:
        before = [part for source in before for part in _statements(source)]
    kept = [before[index] for index in cells.needed([*before, last], len(before))]
    made = new_notebook(metadata=notebook.metadata)
    made.cells = [new_code_cell(source) for source in ("\n".join(["%%capture", *kept]), last)]
    return made


def _shows(source: str, variable: str = "") -> bool:
    """Whether a cell creates an explorer, under this name if one is given, and shows it in its last line."""
    names = re.findall(r"^(\w+) = \w+\.\w+(?:Explorer|Trainer)\(", source, flags=re.MULTILINE)
    wanted = [one for one in names if not variable or one == variable]
    return bool(wanted) and source.rstrip().splitlines()[-1] in wanted


def _statements(source: str) -> list[str]:
    """A cell's statements one by one, and of its imports one name each; its magics are left out."""
    source = re.sub(r"^[%!].*", "", source, flags=re.MULTILINE)
    parts = []
    for node in ast.parse(source).body:
        for alias in getattr(node, "names", [None]) if isinstance(node, ast.Import | ast.ImportFrom) else [None]:
            one = copy.copy(node)
            if alias:
                one.names = [alias]
            parts.append(f"{ast.unparse(one)}\npass")  # so that no statement counts as a cell's last, which only shows
    return parts
_INDEX = """<!doctype html>
<html lang="en" class="lab-index"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Explorers · LoRA Lab</title><link rel="icon" href="data:;base64,="><style>CSS</style></head>
{# The cookie without which Voilà refuses to end the kernel of a page that is left: #}{% set _ = xsrf_form_html() %}
<body data-jp-theme-light="true"><main><h1>LoRA Lab</h1><ol>LIST</ol></main>BAR<script>JS</script></body></html>
"""
# Voilà's page without what it would download; with our own style, bar and script.
_PAGE = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{%- block notebook_css -%}
{{ resources.include_js("static/voila-style.js") }}
{{ spinner.css() }}
<style>{% include 'present.css' %}</style>
{%- endblock notebook_css -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block body_footer -%}
{% include 'bar-' ~ resources.metadata.name ~ '.html' %}
<script>{% include 'present.js' %}</script>
{{ super() }}
{%- endblock body_footer -%}
"""


def _bar(shown: Shown | None, pages: Sequence[Shown]) -> str:
    """The bar of an explorer's page, or of the index (None): links, title and the presenter's switches."""
    at = pages.index(shown) if shown else -1
    links = [("Explorers", "i", "/", "")] if shown else []
    links += [("←", "p", _address(pages[at - 1]), pages[at - 1].title)] if at > 0 else []
    links += [("→", "n", _address(pages[at + 1]), pages[at + 1].title)] if at + 1 < len(pages) else []
    switches = [("Predict first", "q", ""), ("Ask again", "a", ""), ("Reset all", "r", "")] if shown else []
    switches += [("A", "+", "Larger"), ("a", "-", "Smaller")] if shown else []
    switches += [("Dark", "d", ""), ("Full screen", "f", "")]
    title = f"{at + 1} of {len(pages)} · {html.escape(shown.title)}" if shown else ""

    def control(tag: str, text: str, key: str, name: str, **attributes: str) -> str:
        attributes |= {"data-key": key, "aria-keyshortcuts": key}
        attributes |= {"aria-label": name, "title": name} if name else {}
        written = "".join(f' {which}="{html.escape(value)}"' for which, value in attributes.items())
        return f"<{tag}{written}>{text} <kbd>{key}</kbd></{tag}>"

    parts = [control("a", text, key, name, href=address) for text, key, address, name in links]
    parts.append(f'<span class="present-title">{title}</span>')
    parts += [control("button", text, key, name, type="button") for text, key, name in switches]
    return f'<nav class="present-bar" aria-label="Presentation">{"".join(parts)}</nav>'


def _address(shown: Shown) -> str:
    return f"/voila/render/{quote(shown.name)}.ipynb"


def write_pages(folder: Path, pages: Sequence[Shown] = EXPLORERS, notebooks: Path = NOTEBOOKS) -> tuple[Path, Path]:
    """Write what Voilà serves.

    Parameters
    ----------
    folder : Path, empty
    pages : sequence of Shown, in the order of the pages
    notebooks : Path of the folder of the committed notebooks

    Returns
    -------
    (Path, Path) : the folder of the notebooks, and the one for JUPYTER_PATH that holds the template "lora-lab"
    """
    root, share = folder / "pages", folder / "share"
    template = share / "voila" / "templates" / "lora-lab"
    css, script = (read_text(ASSETS / f"present.{kind}") for kind in ("css", "js"))
    entries = "".join(
        f'<li><a href="{_address(one)}">{html.escape(one.title)}</a> {html.escape(one.line)}</li>' for one in pages
    )
    index = _INDEX.replace("LIST", entries).replace("BAR", _bar(None, pages)).replace("CSS", css).replace("JS", script)
    files = {"conf.json": json.dumps({"base_template": "lab"}), "index.html.j2": _PAGE, "tree.html": index}
    files |= {"present.css": css, "present.js": script}
    files |= {f"bar-{one.name}.html": _bar(one, pages) for one in pages}
    for name, text in files.items():
        save(template / name, text)
    for one in pages:
        notebook = page_notebook(one, notebooks)
        notebook.metadata["title"] = f"{one.title} · LoRA Lab"
        save(root / f"{one.name}.ipynb", notebook_bytes(notebook))
    return root, share


def select(names: Sequence[str]) -> list[Shown]:
    """The explorers with these names in the order of the course; without names, all. A LabError for an unknown name."""
    for name in names:
        choose("explorer", name, {one.name: one for one in EXPLORERS})
    return [one for one in EXPLORERS if one.name in names or not names]
