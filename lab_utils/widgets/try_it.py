"""Type a message, see what the model answers before and after fine-tuning."""

import html

import ipywidgets

from .tables import DARK

STYLE = """<style>.lab-try {--lab-back: #fff; --lab-text: #111; font: 16px/1.5 ui-monospace, Menlo, Consolas, monospace;
  background: var(--lab-back); color: var(--lab-text); padding: 10px 14px; border-radius: 6px; max-width: 900px;
  white-space: pre-wrap}
DARK {--lab-back: #1b1f24; --lab-text: #f3f4f6}
.lab-try b {font-family: system-ui, sans-serif}</style>""".replace("DARK", ", ".join(f"{one} .lab-try" for one in DARK))


def try_it(answer_before, answer_after, message: str):
    """A text box, a button, and two answers.

    Parameters
    ----------
    answer_before, answer_after : functions, str -> str
    message : str, what is in the box at first

    Returns
    -------
    ipywidgets.VBox with attributes `.message` (Textarea), `.button` (Button), `.view` (HTML)
    """
    box = ipywidgets.Textarea(message, layout=ipywidgets.Layout(width="800px", height="70px"))
    button = ipywidgets.Button(description="Ask both", button_style="primary")
    view = ipywidgets.HTML()

    def ask(_=None):
        text = box.value.strip()
        if not text:
            view.value = "Type a message first."
            return
        button.disabled = True
        view.value = "Reading …"
        try:
            before, after = answer_before(text), answer_after(text)
            view.value = (
                f'{STYLE}<div class="lab-try"><b>before</b>  {html.escape(before)}\n'
                f"<b>after </b>  {html.escape(after)}</div>"
            )
        finally:
            button.disabled = False

    button.on_click(ask)
    ask()
    widget = ipywidgets.VBox([box, button, view])
    widget.message, widget.button, widget.view = box, button, view
    return widget
