"""The model's own answers: which are right, which make a pair, and what is refused."""

import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.models.registry import load_tokenizer
from lab_utils.preferences import own_answers, own_pairs, own_right, verified

RIGHT = '{"name":" Anna","qty":1,"item":" tents","day":"Friday","time":"10:00"}'
DAY, BOTH = RIGHT.replace("Friday", "Monday"), RIGHT.replace("Friday", "Monday").replace("1,", "2,")
SPACED = RIGHT.replace(",", ", ")


def row(*outputs):
    return {"prompt": "A tent for Anna, Friday at ten", "answer": RIGHT, "outputs": list(outputs)}


def test_a_pair_has_the_first_right_answer_and_another_wrong_one_each_time():
    pairs = own_pairs([row(DAY, SPACED, DAY, RIGHT, "Sure!", "", BOTH)])
    assert [pair["rejected"] for pair in pairs] == [DAY, "Sure!", BOTH]
    assert [pair["mistake"] for pair in pairs] == ["day", "form", "qty, day"]
    assert {pair["chosen"] for pair in pairs} == {SPACED}  # right by what it says, not by its spaces
    assert len(own_pairs([row(DAY, SPACED, "Sure!", BOTH)], most=2)) == 2
    extra = RIGHT.replace("}", ',"note":"x"}')  # every field is right, and yet it is not the asked form
    assert own_pairs([row(RIGHT, extra)])[0]["mistake"] == "form"


def test_a_message_whose_answers_are_all_right_or_all_wrong_gives_no_pair():
    assert own_pairs([row(RIGHT, RIGHT), row(DAY, BOTH)]) == []


def test_what_is_imitated_is_right_and_each_text_once():
    found = own_right([row(DAY, RIGHT, SPACED, RIGHT), row(BOTH)])
    assert [one["answer"] for one in found] == [RIGHT, SPACED] and found[0]["prompt"].startswith("A tent")


@pytest.mark.parametrize("wrong", [{"prompt": "a", "answer": "b"}, {**row(), "outputs": RIGHT}, "text", row(3)])
def test_what_is_not_sampled_is_refused_by_its_number(wrong):
    with pytest.raises(LabError, match=r"row 2: .*is not a row of own_answers"):
        own_pairs([row(RIGHT), wrong])
    with pytest.raises(LabError, match="most=0"):
        own_pairs([row(RIGHT)], most=0)


def test_answers_are_drawn_message_by_message_whatever_goes_through_together(tiny_llama, monkeypatch):
    tokenizer = load_tokenizer()
    sample = verified.sample_groups
    monkeypatch.setattr(verified, "sample_groups", lambda *arguments: sample(*arguments[:-1], 3))
    rows = [{"prompt": f"{n} tents", "answer": "x"} for n in range(3)]
    torch.manual_seed(0)
    found = own_answers(tiny_llama(len(tokenizer)), tokenizer, rows, group_size=2, prompts_at_once=2)
    assert [one["prompt"] for one in found] == [one["prompt"] for one in rows]
    assert all(len(one["outputs"]) == 2 and one["answer"] == "x" for one in found)
    with pytest.raises(LabError, match="example 2"):
        own_answers(None, tokenizer, [rows[0], {"prompt": "no answer"}])
