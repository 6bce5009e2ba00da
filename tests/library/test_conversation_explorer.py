"""The conversation explorer: what it counts is what the labels say, and the browser counts the same."""

import itertools

import alone
import pytest
from choosing_explorers import conversation_explorer

from lab_utils.errors import LabError
from lab_utils.finetune import Encoded
from lab_utils.widgets.conversation_explorer import LONG, TURNS, ConversationExplorer, answers_of, kept

RECORDS = conversation_explorer().records


def test_answers_are_the_runs_of_labels():
    class Turns(Encoded):
        def labels(self, supervise_end=True):
            return [-100, 5, 6, -100, -100, 7, 8, 9]

    assert answers_of(Turns([1] * 8, 5)) == [(1, 3), (5, 8)]
    assert answers_of(Encoded([4, 5, 6], 1)) == [(1, 3)] and answers_of(Encoded([4], 1)) == []


def test_what_is_left_by_hand():
    records = [{"tokens": ["x"] * 10, "answers": [(2, 4), (7, 10)]}, {"tokens": ["x"] * 6, "answers": [(4, 6)]}]
    whole = kept(records, "all answers", LONG[0], 10)
    assert (whole.too_long, whole.read, whole.learned, whole.lost, whole.endless) == (0, 16, 7, 0, 0)
    out = kept(records, "all answers", LONG[0], 8)
    assert (out.too_long, out.read, out.learned, out.lost, out.endless) == (1, 6, 2, 5, 0)
    cut = kept(records, "all answers", LONG[1], 8)
    assert (cut.too_long, cut.read, cut.learned, cut.lost, cut.endless) == (1, 14, 5, 2, 1)
    assert kept(records, "the last answer", LONG[1], 7).learned == 2  # the long chat's last answer begins at 7
    assert kept(records, "the first answer", LONG[1], 7).learned == 4
    assert kept(records, "every token", LONG[0], 10).learned == 16


@pytest.mark.parametrize(("turns", "long"), itertools.product(TURNS, LONG))
def test_shorter_never_reads_or_learns_more_and_nothing_is_forgotten(turns, long):
    found = [kept(RECORDS, turns, long, limit) for limit in range(8, 60)]
    for name in ("read", "learned"):
        values = [getattr(one, name) for one in found]
        assert values == sorted(values)
    assert len({one.learned + one.lost for one in found}) == 1 and found[-1].lost == found[-1].too_long == 0


def test_no_chat_and_a_chat_without_an_answer_are_refused(tokenizer):
    with pytest.raises(LabError, match="no chats to show"):
        ConversationExplorer(tokenizer, [])
    with pytest.raises(LabError, match="Chat 2 has no answer"):
        ConversationExplorer(tokenizer, [Encoded([1, 2, 3], 1), Encoded([1, 2, 3], 3)])


@pytest.mark.browser
def test_the_browser_says_what_python_computes():
    explorer = conversation_explorer()
    lengths = itertools.cycle([8, 9, 17, 30, explorer.options["longest"]])
    states = [{"turns": turns, "long": long, "chat": chat, "max_length": next(lengths)}
              for turns, long, chat in itertools.product(TURNS, LONG, range(1, len(RECORDS) + 1))]  # fmt: skip
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states)
        assert page.errors == []
        spans = page.evaluate("() => [...document.querySelectorAll('.lab-chat-tokens span')].map(s => s.className)")
    for state, text in zip(states, texts, strict=True):
        for name, value in state.items():
            setattr(explorer, name, value)
        assert text == explorer.summary()
    assert spans.count("learned") == explorer.kept().learned - sum(
        kept([record], explorer.turns, explorer.long, explorer.max_length).learned for record in RECORDS[:-1]
    )
