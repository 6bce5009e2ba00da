"""The label microscope: every token of an example, colored as trained or ignored."""

import html

import ipywidgets

from ..errors import LabError
from ..finetune import IGNORED, Encoded
from .tables import DARK

STYLE = """<style>
.lab-tokens {--lab-back: #fff; --lab-text: #111; --lab-read: #e5e7eb; --lab-dim: #374151; --lab-learned: #0b5fa5;
  --lab-hidden: #b91c1c; font: 16px/2.1 ui-monospace, Menlo, Consolas, monospace; background: var(--lab-back);
  color: var(--lab-text); padding: 12px; border-radius: 6px; max-width: 900px}
DARK {--lab-back: #1b1f24; --lab-text: #f3f4f6; --lab-read: #363d47; --lab-dim: #d1d5db; --lab-learned: #1f6fb5;
  --lab-hidden: #ff8f85}
.lab-tokens span {padding: 3px 2px; margin: 0 1px; border-radius: 3px; white-space: pre;
  display: inline-block; line-height: 1.4}
.lab-tokens .ignored {background: var(--lab-read); color: var(--lab-dim)}
.lab-tokens .trained {background: var(--lab-learned); color: #fff; font-weight: 600}
.lab-tokens .hidden-end {color: var(--lab-hidden); outline: 2px dashed var(--lab-hidden); text-decoration: line-through}
.lab-tokens p {font: 15px/1.5 system-ui, sans-serif; margin: 10px 0 0; color: inherit}
</style>""".replace("DARK", ", ".join(f"{theme} .lab-tokens" for theme in DARK))


def tokens_html(tokenizer, example: Encoded, supervise_end: bool = True) -> str:
    """One example as HTML: a span per token, class "trained", "ignored" or "hidden-end".

    Parameters
    ----------
    tokenizer : the model's
    example : Encoded
    supervise_end : bool, is the end of turn in the loss: the last token of each answer that is learned, whichever the
        chat template uses
    """
    labels = example.labels(supervise_end)
    ends = {stop - 1 for _, stop in example.learned}
    spans = []
    for position, (token, label) in enumerate(zip(example.input_ids, labels, strict=True)):
        kind = "ignored" if label == IGNORED else "trained"
        if position in ends and label == IGNORED:
            kind = "hidden-end"
        text = tokenizer.decode([token])
        shown = html.escape(text.replace("\n", "⏎"))
        spans.append(f'<span class="{kind}" title="token {token}, {kind}">{shown}</span>' + "<br>" * text.count("\n"))
    return "".join(spans)


def _panel(tokenizer, example: Encoded, supervise_end: bool, written: str | None) -> str:
    """The tokens of one example, how many of them are trained, and what a model wrote, as HTML."""
    trained = sum(label != IGNORED for label in example.labels(supervise_end))
    note = f"{trained} of {len(example.input_ids)} tokens are trained (blue); the others are read and not scored."
    if not supervise_end:
        note += " <b>The end of turn is hidden: nothing teaches the model to stop.</b>"
    below = "" if written is None else f"<p>A model trained like this wrote:</p><div>{html.escape(written)}</div>"
    tokens = tokens_html(tokenizer, example, supervise_end)
    return f'{STYLE}<div class="lab-tokens">{tokens}<p>{note}</p>{below}</div>'


def picture(tokenizer, example: Encoded, supervise_end: bool = True, written: str | None = None):
    """What the microscope shows of one example, as plain HTML that a page without a kernel keeps.

    Parameters
    ----------
    tokenizer : the model's
    example : Encoded, of a question and its answer or of a conversation
    supervise_end : bool, the position of the switch
    written : str, optional, what a model trained like this wrote for the example

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    return HTML(_panel(tokenizer, example, supervise_end, written))


def label_microscope(tokenizer, examples: list[Encoded], outputs: dict[bool, list[str]] | None = None):
    """A slider over examples and a switch for the end-of-turn token.

    Parameters
    ----------
    tokenizer : the model's
    examples : list of Encoded, of questions and answers or of conversations
    outputs : dict, optional
        For True and False, what a model trained with and without the end of turn wrote for each example.

    Returns
    -------
    ipywidgets.VBox with attributes `.index` (IntSlider), `.end` (Checkbox), `.view` (HTML)

    Raises
    ------
    LabError
        There is no example, or `outputs` has not one text per example for True and for False.
    """
    if not examples:
        raise LabError("There are no examples to show: give at least one that supervision.encode made.")
    if outputs and any(len(outputs.get(end, ())) != len(examples) for end in (True, False)):
        raise LabError(f"outputs needs {len(examples)} texts for True and as many for False: one per example.")
    index = ipywidgets.IntSlider(0, 0, len(examples) - 1, description="example")
    end = ipywidgets.Checkbox(True, description="train the end-of-turn token", indent=False)
    view = ipywidgets.HTML()

    def show(_=None):
        written = outputs[end.value][index.value] if outputs else None
        view.value = _panel(tokenizer, examples[index.value], end.value, written)

    index.observe(show, "value")
    end.observe(show, "value")
    show()
    box = ipywidgets.VBox([ipywidgets.HBox([index, end]), view])
    box.index, box.end, box.view = index, end, view
    return box
