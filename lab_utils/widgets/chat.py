"""A chat with the base and all adapters at once: the same message, one batch, one column each."""

import html
from collections.abc import Iterable

import anywidget
import traitlets

from ..errors import LabError
from ..serving.answers import BASE, Answers, reply
from .explorer import FOLDER, STYLE, script


class Chat(anywidget.AnyWidget):
    """What `chat` returns.

    Attributes
    ----------
    columns : list of str, the names over the columns: "base", then the adapters
    turns : list of dict, as `reply` gives them, oldest first
    thinking : str, the message that is being answered; "" while there is none
    examples : list of str, messages that a click sends
    """

    _esm = script("chat")
    _css = STYLE + (FOLDER / "chat.css").read_text(encoding="utf-8")
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    turns = traitlets.List(traitlets.Dict()).tag(sync=True)
    thinking = traitlets.Unicode().tag(sync=True)
    examples = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, answers: Answers, adapters: Iterable[str], examples: Iterable[str] = ()):
        self._answers, self._adapters = answers, [None, *adapters]
        super().__init__(columns=[BASE, *self._adapters[1:]], examples=list(examples))
        self.on_msg(self._hear)

    def ask(self, message: str) -> dict:
        """Send a message, as the button does; returns the turn that it became. A failure is a turn too.

        Raises
        ------
        LabError
            The message is empty.
        """
        text = message.strip()
        if not text:
            raise LabError("The message is empty: type one first.")
        self.thinking = text
        try:
            turn = reply(self._answers, text, self._adapters)
            self.turns = [*self.turns, turn]
        finally:
            self.thinking = ""
        return turn

    def clear(self) -> None:
        """Forget all messages."""
        self.turns = []

    def _hear(self, _widget, content: dict, _buffers) -> None:
        """What the browser sends: {"ask": message} or {"clear": True}."""
        if content.get("clear"):
            self.clear()
        elif isinstance(content.get("ask"), str) and content["ask"].strip():
            self.ask(content["ask"])

    @property
    def transcript(self) -> str:
        """All that was said, as text: a line for each message and each column, and the time."""
        return "\n\n".join(self._lines(turn) for turn in self.turns) or "Nothing was asked yet."

    def _lines(self, turn: dict) -> str:
        """One turn as text."""
        said = [f"{name}: {text}" for name, text in zip(self.columns, turn["replies"], strict=False)]
        told = [f"error: {turn['error']}"] if turn["error"] else [*said, f"({turn['seconds']:.1f} s, one batch)"]
        return "\n".join([f"you: {turn['message']}", *told])

    def _table(self) -> str:
        """All that was said as an HTML table, for whatever shows neither the widget nor its style."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("message", *self.columns))
        rows = []
        for turn in self.turns:
            cells = "".join(f"<td>{html.escape(text)}</td>" for text in turn["replies"])
            told = f'<td colspan="{len(self.columns)}">{html.escape(turn["error"])}</td>' if turn["error"] else cells
            rows.append(f"<tr><td>{html.escape(turn['message'])}</td>{told}</tr>")
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"

    def _repr_mimebundle_(self, **options):
        """The widget, and a table and a text for whatever cannot show a widget."""
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/html": self._table(), "text/plain": self.transcript}, metadata


def chat(answers: Answers, adapters: Iterable[str], message: str = "", examples: Iterable[str] = ()) -> Chat:
    """A text box, and for each message a column of answers for the base and for each adapter, in one batch.

    Parameters
    ----------
    answers : function, (messages, adapters) -> texts; None is the base (`lab_utils.serving.chat_page.answers_of` makes
    one)
    adapters : names of adapters, in the order of their columns; the base comes first by itself
    message : str, optional
        Asked at once, so that a page without a kernel shows an answer too.
    examples : messages to offer as buttons

    Returns
    -------
    Chat, with `.ask(message)`, `.turns`, `.transcript` and `.clear()`

    Raises
    ------
    LabError
        An adapter is named twice, or bears the base's name.
    """
    names = list(adapters)
    for name in names:
        if names.count(name) > 1 or name == BASE:
            raise LabError(f"The name {name!r} would be over two columns: give each adapter its own name.")
    widget = Chat(answers, names, examples)
    if message:
        widget.ask(message)
    return widget
