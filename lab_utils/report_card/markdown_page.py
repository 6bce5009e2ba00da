"""A report as Markdown, which is a model card for the hub too: a head in YAML, and the headings of the hub's cards."""

import json
import re

from .blocks import Code, Items, Picture, Section, Table, Text

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$#!])")
BEGINNING = re.compile(r"^(\s*\d*)([-+=.)])", re.M)  # of a list, or of the line under a heading
MARK = "<!-- written by lab_utils.report_card -->"


def markdown_page(title: str, sections: list[Section], data: dict) -> str:
    """The whole file.

    Parameters
    ----------
    title : str
    sections : list of Section, whose texts may hold anything
    data : dict ready for JSON, the card's head for machines (JSON is YAML)
    """
    head = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items())
    parts = [f"---\n{head}\n---\n\n{MARK}\n\n# {plain(title)}"]
    for one in sections:
        parts += [f"## {plain(one.of_card or one.title)}", *map(block, one.blocks)]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """A text in which nothing is a command to Markdown or HTML."""
    text = SPECIAL.sub(r"\\\1", text.replace("&", "&amp;"))
    return BEGINNING.sub(r"\1\\\2", text)


def cell(text: str) -> str:
    """A text in one line of a table."""
    return plain(text).replace("\r", "").replace("\n", "<br>")


def block(one) -> str:
    """One block as Markdown."""
    if isinstance(one, Text):
        return plain(one.said)
    if isinstance(one, Items):
        return "\n".join(f"- {plain(item)}" for item in one.items)
    if isinstance(one, Code):
        ticks = max((len(run) for run in re.findall("`+", one.text)), default=0)
        fence = "`" * max(3, ticks + 1)
        return f"{fence}{one.language}\n{one.text}\n{fence}"
    if isinstance(one, Picture):
        return plain(one.said)
    if isinstance(one, Table):
        rows = [one.heads, ("---",) * len(one.heads), *one.rows]
        lines = ["| " + " | ".join(text if text == "---" else cell(text) for text in row) + " |" for row in rows]
        return "\n".join(lines)
    raise TypeError(f"a {type(one).__name__} is not a block")
