"""A report as one HTML file: no script, no request, and every text in it escaped."""

from html import escape

from .blocks import Code, Items, Picture, Section, Table, Text

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1f2937; --pale: #6b7280; --line: #d1d5db; --ground: #ffffff; --band: #f3f4f6;
  --train: #0b5fa5; --validation: #b45309 }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --pale: #9ca3af; --line: #4b5563; --ground: #111827;
  --band: #1f2937; --train: #7ab8ec; --validation: #f2b36b } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 960px;
  margin: 0 auto; padding: 24px 16px 64px }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 20px; margin: 32px 0 8px; border-top: 1px solid var(--line);
  padding-top: 20px }
table { border-collapse: collapse; margin: 10px 0; display: block; overflow-x: auto }
th, td { text-align: left; vertical-align: top; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  white-space: pre-wrap; overflow-wrap: break-word; min-width: 5em }
pre { background: var(--band); padding: 10px 14px; overflow-x: auto; border-radius: 6px; font: 14px/1.45 ui-monospace,
  Menlo, Consolas, monospace }
figure { margin: 12px 0 } figcaption { color: var(--pale) }
svg { width: 100%; height: auto; max-height: 360px; font: 13px system-ui, sans-serif }
svg .axis { stroke: var(--line) } svg text { fill: var(--pale) }
svg .train { stroke: var(--train); fill: none } svg .validation { stroke: var(--validation); fill: none }
svg .dot { fill: var(--validation); stroke: none } svg text.train { fill: var(--train); stroke: none }
svg text.validation { fill: var(--validation); stroke: none }
"""


def html_page(title: str, sections: list[Section]) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
    sections : list of Section, whose texts may hold anything
    """
    body = "\n".join(f"<h2>{escape(one.title)}</h2>\n" + "\n".join(map(block, one.blocks)) for one in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        "</body>\n</html>\n"
    )


def block(one) -> str:
    """One block as HTML."""
    if isinstance(one, Text):
        return f"<p>{escape(one.said)}</p>"
    if isinstance(one, Items):
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in one.items) + "</ul>"
    if isinstance(one, Code):
        return f"<pre><code>{escape(one.text)}</code></pre>"
    if isinstance(one, Picture):
        return f"<figure>{one.svg}<figcaption>{escape(one.said)}</figcaption></figure>"
    if isinstance(one, Table):
        heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in one.heads)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in one.rows)
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    raise TypeError(f"a {type(one).__name__} is not a block")
