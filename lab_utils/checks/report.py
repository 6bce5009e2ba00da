"""What a check has to say, as text and as HTML that needs no kernel."""

import base64
import html
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import plots
from ..printing import folded

EXAMPLE_WIDTH = 80  # characters of a worked example beside each other, in a card on a screen of 1024 pixels
THEMES = ('[data-jp-theme-light="false"]', "html[theme=dark]", ".vscode-dark")  # dark: JupyterLab, Colab, VS Code
MARKS = {"right": "✓", "wrong": "✗", "open": "○"}
# JupyterLab's own colours where it defines them, so that a card follows any theme; else ours, for light and for dark.
STYLE = """<style>
.lab-check {--lab-back: var(--jp-layout-color1, #fff); --lab-soft: var(--jp-layout-color2, #f3f4f6);
  --lab-text: var(--jp-content-font-color1, #1f2937); --lab-edge: var(--jp-border-color1, #c3c9d1);
  --lab-link: var(--jp-content-link-color, #0b4f8a); --lab-right: #14602f; --lab-wrong: #a03c06; --lab-open: #4b5563;
  --lab-named: #fef3c7; --lab-on-named: #451a03}
DARK {--lab-back: var(--jp-layout-color1, #1b1f24); --lab-soft: var(--jp-layout-color2, #2a3038);
  --lab-text: var(--jp-content-font-color1, #f3f4f6); --lab-edge: var(--jp-border-color1, #5b6470);
  --lab-link: var(--jp-content-link-color, #8cc4f8); --lab-right: #7ddb9c; --lab-wrong: #ffb080; --lab-open: #b6bfca;
  --lab-named: #43320d; --lab-on-named: #fdeec4}
.lab-check.lab-check {--lab-kind: var(--lab-open); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif;
  background: var(--lab-back); color: var(--lab-text); max-width: 900px; box-sizing: border-box; padding: 16px 20px;
  border: 1px solid var(--lab-edge); border-left: 6px solid var(--lab-kind); border-radius: 10px}
.lab-check.lab-check-right {--lab-kind: var(--lab-right)}
.lab-check.lab-check-wrong {--lab-kind: var(--lab-wrong)}
.lab-check p, .lab-check ul, .lab-check div {color: inherit; font-size: 16px; margin: 8px 0}
.lab-check p.lab-verdict {font-size: 18px; font-weight: 700; margin: 0 0 10px}
.lab-check .lab-verdict .lab-mark {color: var(--lab-kind)}
.lab-check ul.lab-lines {list-style: none; padding: 0}
.lab-check ul.lab-lines li {padding-left: 1.6em; text-indent: -1.6em; margin: 2px 0}
.lab-check b.lab-mark {display: inline-block; width: 1.6em; text-indent: 0}
.lab-check .lab-right {color: var(--lab-right)} .lab-check .lab-wrong {color: var(--lab-wrong)}
.lab-check p.lab-mistake {background: var(--lab-named); color: var(--lab-on-named); padding: 10px 14px;
  border-radius: 8px}
.lab-check.lab-check pre, .lab-check.lab-check code {font: 15px/1.5 ui-monospace, Menlo, Consolas, monospace;
  background: var(--lab-soft); color: var(--lab-text); padding: 1px 4px; border-radius: 4px}
.lab-check.lab-check pre {padding: 10px 14px; margin: 6px 0; border-radius: 8px; overflow-x: auto; white-space: pre}
.lab-check details {margin: 8px 0}
.lab-check summary {cursor: pointer; color: var(--lab-link); font-size: 16px; width: fit-content}
.lab-check img {max-width: 100%; height: auto}
DARK .lab-figure {mix-blend-mode: lighten}
</style>""".replace("DARK", f":is({', '.join(THEMES)}) .lab-check")


@dataclass
class Report:
    """The outcome of a check. As a cell's last expression it shows itself.

    Attributes
    ----------
    verdict : str, one line
    status : "right", "wrong" or "open" (nothing solved yet)
    lines : list of (status, sentence), what is right and what is not
    mistake : str or None, the name of the mistake if it was recognised
    fix : str, what to do about it
    example : list of (label, text), the smallest failing example
    note : str, the reward, or what to do next
    printed : str, what the function printed
    code : str, source to show openly
    picture : bytes, PNG; alt : str, the same in words
    folded : list of (summary, "text" or "code", body), what is shown on demand
    example_title : str, what the example is one of
    """

    verdict: str
    status: str = "open"
    lines: list[tuple[str, str]] = field(default_factory=list)
    mistake: str | None = None
    fix: str = ""
    example: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    printed: str = ""
    code: str = ""
    picture: bytes = b""
    alt: str = ""
    folded: list[tuple[str, str, str]] = field(default_factory=list)
    example_title: str = "The smallest example that fails"

    @property
    def passed(self) -> bool:
        """Is the exercise solved?"""
        return self.status == "right"

    @property
    def text(self) -> str:
        """The report as plain text, all but what a card folds away; a sentence is one line."""
        return self._plain(str)

    def _plain(self, shaped: Callable[[str], str]) -> str:
        """The report as plain text, each sentence as `shaped` makes it."""
        parts = [shaped(f"{MARKS[self.status]} {self.verdict}")]
        parts += [shaped(f"  {MARKS[status]} {sentence}") for status, sentence in self.lines]
        if self.mistake:
            parts.append(shaped(f"This looks like a common mistake: {self.mistake}. {self.fix}"))
        if self.example:
            parts.append(f"{self.example_title}:\n" + textwrap.indent(self._example(), "    "))
        if self.printed:
            parts.append(f"Your function printed:\n{textwrap.indent(self.printed, '    ')}")
        return "\n".join([*parts, *filter(None, (self.code, shaped(self.alt), shaped(self.note)))])

    @property
    def html(self) -> str:
        """The report as HTML; hints and solution are folded."""
        e = html.escape
        mark = f'<b class="lab-mark">{MARKS[self.status]}</b>'
        parts = [f'<p class="lab-verdict">{mark}{e(self.verdict)}</p>']
        if self.lines:
            items = "".join(
                f'<li><b class="lab-mark lab-{status}">{MARKS[status]}</b>{prose(sentence)}</li>'
                for status, sentence in self.lines
            )
            parts.append(f'<ul class="lab-lines">{items}</ul>')
        if self.mistake:
            named = f"<b>{prose(self.mistake)}</b>. {prose(self.fix)}"
            parts.append(f'<p class="lab-mistake">This looks like a common mistake: {named}</p>')
        if self.example:
            parts.append(f"<div><b>{e(self.example_title)}</b><pre>{e(self._example())}</pre></div>")
        if self.printed:
            parts.append(f"<div>Your function printed<pre>{e(self.printed)}</pre></div>")
        if self.code:
            parts.append(f"<pre>{e(self.code)}</pre>")
        if self.picture:
            source = base64.b64encode(self.picture).decode()
            image = f'<img class="lab-figure" src="data:image/png;base64,{source}" alt="{e(self.alt, quote=True)}">'
            parts.append(plots.style.DARK + image)
        if self.note:
            parts.append(f"<p>{prose(self.note)}</p>")
        for summary, kind, body in self.folded:
            body = f"<pre>{e(body)}</pre>" if kind == "code" else f"<p>{prose(body)}</p>"
            parts.append(f"<details><summary>{e(summary)}</summary>{body}</details>")
        return f'{STYLE}<div class="lab-check lab-check-{self.status}">{"".join(parts)}</div>'

    def _example(self) -> str:
        """The example, values in one column; a long one goes on below, so that no card scrolls sideways."""
        width = max(len(label) for label, _ in self.example)
        fold = textwrap.TextWrapper(
            max(48, EXAMPLE_WIDTH - width), subsequent_indent=" ", replace_whitespace=False, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        rows = []
        for label, value in self.example:
            first, *rest = [part for line in value.splitlines() for part in fold.wrap(line) or [""]] or [""]
            rows += [f"{label:<{width}} = {first}", *(" " * (width + 3) + line for line in rest)]
        return "\n".join(rows)

    def __repr__(self) -> str:
        return self._plain(folded)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """What Jupyter shows."""
        return {"text/plain": repr(self), "text/html": self.html}


def prose(text: str) -> str:
    """A sentence as HTML: what is between backticks is set as code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text))


def source(function) -> str:
    """The source of a function."""
    return textwrap.dedent(inspect.getsource(function)).strip()
