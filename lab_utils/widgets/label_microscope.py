"""The label microscope: every token of an example, coloured as trained or ignored."""

import html

import ipywidgets

from ..errors import LabError
from ..finetune import IGNORED, Encoded

STYLE = """<style>
.lab-tokens {font: 16px/2.1 ui-monospace, Menlo, Consolas, monospace; background: #fff; color: #111;
  padding: 12px; border-radius: 6px; max-width: 900px}
.lab-tokens span {padding: 3px 2px; margin: 0 1px; border-radius: 3px; white-space: pre;
  display: inline-block; line-height: 1.4}
.lab-tokens .ignored {background: #e5e7eb; color: #374151}
.lab-tokens .trained {background: #0b5fa5; color: #fff; font-weight: 600}
.lab-tokens .hidden-end {background: #fff; color: #b91c1c; outline: 2px dashed #b91c1c; text-decoration: line-through}
.lab-tokens p {font: 15px/1.5 system-ui, sans-serif; margin: 10px 0 0}
</style>"""


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
        example = examples[index.value]
        trained = sum(label != IGNORED for label in example.labels(end.value))
        note = f"{trained} of {len(example.input_ids)} tokens are trained (blue); the others are read, never scored."
        if not end.value:
            note += " <b>The end of turn is hidden: nothing teaches the model to stop.</b>"
        written = ""
        if outputs:
            written = (f"<p>A model trained like this wrote:</p>"
                       f"<div>{html.escape(outputs[end.value][index.value])}</div>")
        view.value = (
            f'{STYLE}<div class="lab-tokens">{tokens_html(tokenizer, example, end.value)}<p>{note}</p>{written}</div>'
        )

    index.observe(show, "value")
    end.observe(show, "value")
    show()
    box = ipywidgets.VBox([ipywidgets.HBox([index, end]), view])
    box.index, box.end, box.view = index, end, view
    return box
