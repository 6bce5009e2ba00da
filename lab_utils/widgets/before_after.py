"""One message and what a model answers before and after its fine-tune, as HTML that a page without a kernel shows."""

import html

from .tables import DARK

STYLE = """<style>
.lab-story {--lab-back: #fff; --lab-soft: #f3f4f6; --lab-text: #16191d; --lab-faint: #565e68; --lab-edge: #d5d9df;
  --lab-accent: #0b5fa5}
DARK {--lab-back: #1b1f24; --lab-soft: #272d35; --lab-text: #f3f4f6; --lab-faint: #aeb6c0; --lab-edge: #454d58;
  --lab-accent: #6bb5f0}
.lab-story {display: flex; flex-wrap: wrap; gap: 12px; max-width: 1000px; margin: 4px 0;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; color: var(--lab-text)}
.lab-story > div {flex: 1 1 18rem; min-width: 0; box-sizing: border-box; padding: 14px 18px 16px;
  background: var(--lab-back); border: 1px solid var(--lab-edge); border-radius: 12px}
.lab-story > .lab-asked {flex-basis: 100%; border-color: transparent; background: var(--lab-soft); font-size: 18px}
.lab-story > .lab-now {border: 2px solid var(--lab-accent); padding: 13px 17px 15px}
.lab-story .lab-who {margin: 0 0 6px; font-size: 14px; font-weight: 650; color: var(--lab-faint)}
.lab-story > .lab-now .lab-who {color: var(--lab-accent)}
.lab-story .lab-said {margin: 0; white-space: pre-wrap; overflow-wrap: break-word; color: inherit}
.lab-story > .lab-now .lab-said {font: 16px/1.5 ui-monospace, Menlo, Consolas, monospace}
</style>""".replace("DARK", ", ".join(f"{theme} .lab-story" for theme in DARK))


def before_after(message: str, before: str, after: str, *, names: tuple[str, str] = ("before", "after")):
    """A message, and below it two answers side by side; one below the other where the window is narrow.

    Parameters
    ----------
    message, before, after : str
    names : two str, over the answers

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    parts = zip(("lab-asked", "lab-then", "lab-now"), ("message", *names), (message, before, after), strict=True)
    cards = "".join(
        f'<div class="{kind}"><p class="lab-who">{html.escape(who)}</p><p class="lab-said">{_breakable(said)}</p></div>'
        for kind, who, said in parts
    )
    return HTML(f'{STYLE}<div class="lab-story">{cards}</div>')


def _breakable(text: str) -> str:
    """Text as HTML that may go on in the next line after a comma, as JSON without blanks does not."""
    return html.escape(text.strip()).replace(",", ",<wbr>")
