"""The chat widget as a plain object: what it asks, what it shows, and what is told when an answer fails."""

import json
import time

import pytest
from toys import notebook_of

from lab_utils.classroom.snapshots import replace_widgets
from lab_utils.errors import LabError
from lab_utils.serving.answers import reply
from lab_utils.widgets.chat import chat


class Answers:
    """Answers that say who was asked what; `calls` holds the batches, `seen` the widget's state in each."""

    def __init__(self):
        self.calls, self.seen, self.widget = [], [], None

    def __call__(self, messages, adapters):
        self.calls.append((messages, adapters))
        if self.widget:
            self.seen.append((self.widget.thinking, len(self.widget.turns)))
        return [f"{name} says {message}" for message, name in zip(messages, adapters, strict=True)]


@pytest.fixture
def answers():
    return Answers()


def test_a_message_is_one_batch_with_the_base_first(answers):
    widget = chat(answers, ["bookings", "style"])
    turn = widget.ask("  Two drums \n")
    assert answers.calls == [(["Two drums"] * 3, [None, "bookings", "style"])]
    assert widget.columns == ["base", "bookings", "style"]
    assert turn["replies"] == ["None says Two drums", "bookings says Two drums", "style says Two drums"]
    assert turn["error"] == "" and turn["seconds"] >= 0
    assert widget.turns == [turn]


def test_the_order_of_columns_is_the_callers(answers):
    assert chat(answers, iter(["style", "bookings"])).columns == ["base", "style", "bookings"]


def test_a_first_message_is_asked_at_once_and_none_otherwise(answers):
    assert chat(answers, ["a"]).turns == [] and answers.calls == []
    assert [turn["message"] for turn in chat(answers, ["a"], "Hello").turns] == ["Hello"]


def test_history_is_kept_oldest_first_until_it_is_cleared(answers):
    widget = chat(answers, ["a"], "one")
    widget.ask("two")
    assert [turn["message"] for turn in widget.turns] == ["one", "two"]
    widget.clear()
    assert widget.turns == [] and widget.transcript == "Nothing was asked yet."
    widget.ask("three")
    assert [turn["message"] for turn in widget.turns] == ["three"]


def test_it_says_that_it_thinks_while_it_does(answers):
    answers.widget = widget = chat(answers, ["a"])
    widget.ask("one")
    assert answers.seen == [("one", 0)] and widget.thinking == ""


@pytest.mark.parametrize("message", ["", "  ", "\n\t"])
def test_an_empty_message_is_refused_and_never_asked(answers, message):
    widget = chat(answers, ["a"])
    with pytest.raises(LabError, match="type one"):
        widget.ask(message)
    assert answers.calls == [] and widget.turns == [] and widget.thinking == ""


def test_a_failure_is_a_turn_with_what_to_do_and_the_next_message_is_answered():
    def answers(messages, adapters):
        if messages[0] == "lab":
            raise LabError("Unknown adapter 'x'. Choose one of: a.")
        if messages[0] == "bug":
            raise RuntimeError("out of memory")
        return messages[: 1 if messages[0] == "few" else None]

    widget = chat(answers, ["a"])
    assert widget.ask("lab")["error"] == "Unknown adapter 'x'. Choose one of: a."
    assert "RuntimeError: out of memory" in widget.ask("bug")["error"] and "restart" in widget.turns[-1]["error"]
    few = widget.ask("few")
    assert few["error"].startswith("1 answers came back for 2 adapters") and few["replies"] == []
    assert widget.ask("fine")["replies"] == ["fine", "fine"] and widget.thinking == ""


def test_an_interrupt_ends_the_thinking():
    def answers(messages, adapters):
        raise KeyboardInterrupt

    widget = chat(answers, ["a"])
    with pytest.raises(KeyboardInterrupt):
        widget.ask("one")
    assert widget.thinking == "" and widget.turns == []


def test_what_the_browser_sends_is_heard(answers):
    widget = chat(answers, ["a"])
    for content in ({"ask": "one"}, {"ask": " "}, {"ask": "two"}):
        widget._handle_custom_msg(content, [])
    assert [turn["message"] for turn in widget.turns] == ["one", "two"]
    widget._handle_custom_msg({"clear": True}, [])
    assert widget.turns == []


def test_the_transcript_reads_as_text(answers):
    widget = chat(answers, ["a"], "one")
    first = dict(widget.turns[0], seconds=1.26)
    widget.turns = [first, {"message": "two", "replies": [], "seconds": 0.1, "error": "Fix it."}]
    assert widget.transcript == (
        "you: one\nbase: None says one\na: a says one\n(1.3 s, one batch)\n\nyou: two\nerror: Fix it."
    )


@pytest.mark.parametrize("adapters", [["a", "a"], ["base"], ["a", "b", "a"]])
def test_two_columns_of_one_name_are_refused(answers, adapters):
    with pytest.raises(LabError, match="give each adapter its own name"):
        chat(answers, adapters)


def test_reply_gives_the_time_of_the_whole_batch():
    turn = reply(lambda messages, adapters: time.sleep(0.05) or messages, "m", ["a", "b", None])
    assert turn["replies"] == ["m"] * 3 and turn["seconds"] >= 0.05


def test_the_state_is_plain_json(answers):
    state = chat(answers, ["a"], "one", ["an example"]).get_state()
    json.dumps({name: value for name, value in state.items() if name != "layout"}, allow_nan=False)
    assert state["examples"] == ["an example"]


def test_a_page_without_a_kernel_carries_table_text_and_state():
    widget = chat(lambda messages, adapters: ["<b>1</b>", "2 & 3"], ["a"], "<i>one</i>")
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == widget.transcript
    assert "<td>&lt;i&gt;one&lt;/i&gt;</td><td>&lt;b&gt;1&lt;/b&gt;</td><td>2 &amp; 3</td>" in data["text/html"]
    widget.turns = [*widget.turns, {"message": "two", "replies": [], "seconds": 0.1, "error": "Fix <it>."}]
    assert '<td>two</td><td colspan="2">Fix &lt;it&gt;.</td>' in widget._repr_mimebundle_()[0]["text/html"]
    page, _, scripts = replace_widgets(notebook_of(widget))
    text = page.cells[0].outputs[0].data["text/html"]
    assert 'class="lab-place"' in text and "<th>base</th><th>a</th>" in text
    assert '"message": "two"' in scripts and "<b>1</b>" not in scripts
