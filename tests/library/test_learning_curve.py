"""The learning curve: it is read size by size, and the recorder's splits and masks hold what they promise."""

import json

import pytest
from data_scripts import load

from lab_utils.errors import LabError
from lab_utils.recorded.learning_curve import (
    FOLDER,
    LIVE,
    SEEDS,
    SIZES,
    TASKS,
    curve_points,
    load_learning_curve,
    missing,
)
from lab_utils.sweep.evidence import packed_bits

recorder = load("record_learning_curve")


def packed(share: float, messages: int) -> str:
    return packed_bits(place < share * messages for place in range(messages))


def line(examples: int, seed: int, exact: float, rate: float = 4e-3) -> str:
    rights = {"test_right": packed(exact, 200), "next_month_right": packed(0.5, 60)}
    row = rights | {"key": f"{examples} {seed} {rate}", "validation_loss": 0.2, "test_loss": 0.3, "test_exact": exact}
    row["choices"] = {"examples": examples, "seed": seed, "learning_rate": rate, "steps": 3, "batch_size": 8}
    row |= {"next_month_exact": 0.5, "cpu": "a", "threads": 1, "date": "2026-01-01", "versions": {}, "cpu_seconds": 1.0}
    return json.dumps(row) + "\n"


def test_sizes_in_order_with_the_seeds_that_are_there(tmp_path):
    lines = [line(32, 1, 0.5), line(8, 0, 0.25), line(32, 0, 0.75), line(32, 0, 0.1, rate=2e-3)]
    (tmp_path / "chats.jsonl").write_text("".join(lines))
    runs = load_learning_curve("chats", tmp_path)
    points = curve_points(runs)
    assert [(point.examples, point.exact) for point in points] == [(8, (0.25,)), (32, (0.75, 0.5))]
    assert points[1].error == pytest.approx(0.375) and missing(runs) == 12
    assert curve_points(runs, 2e-3)[0].exact == (0.1,)
    assert load_learning_curve("tickets", tmp_path) == [] and missing([]) == len(SIZES) * len(SEEDS) == 15


def test_each_example_is_unpacked_and_agrees_with_the_share(tmp_path):
    (tmp_path / "tickets.jsonl").write_text(line(8, 0, 0.25))
    right = load_learning_curve("tickets", tmp_path)[0].right
    assert right == {"test": (True,) * 50 + (False,) * 150, "next_month": (True,) * 30 + (False,) * 30}
    (tmp_path / "tickets.jsonl").write_text(line(8, 0, 0.25).replace('"test_exact": 0.25', '"test_exact": 0.3'))
    with pytest.raises(LabError, match="test_right holds 50 right answers of 200, not 0"):
        load_learning_curve("tickets", tmp_path)


def test_a_damaged_line_and_an_unknown_task_are_refused(tmp_path):
    with pytest.raises(LabError, match="Unknown task 'prose'"):
        load_learning_curve("prose", tmp_path)
    for text in ("{", line(8, 0, 0.5).replace("0.3", "NaN"), '{"key": 1}\n'):
        (tmp_path / "tickets.jsonl").write_text(text)
        with pytest.raises(LabError, match="cannot be read"):
            load_learning_curve("tickets", tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_recorded_is_of_the_data_that_are_there(task):
    table = FOLDER / f"{task}.jsonl"
    lines = table.read_text().splitlines() if table.exists() else []
    assert all(json.loads(one)["data"] == recorder.digest(task) for one in lines)
    assert set(recorder.STEPS) == {*SIZES, LIVE}


@pytest.mark.parametrize("task", TASKS)
def test_no_customer_is_in_two_splits_and_no_fault_is_left(task):
    owner = {json.dumps(row["messages"]): row["customer"] for row in recorder.conversations(task)}
    splits = dict(recorder.splits(task))
    assert ("next_month" in splits) == (task == "tickets") and len(splits.pop("next_month", range(60))) == 60
    sets = [{owner[json.dumps(one)] for one in rows} for rows in splits.values()]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert len(splits["test"]) == 200 and len(splits["validation"]) == 100 and len(splits["train"]) >= 2000
    rows = [json.dumps(one) for some in splits.values() for one in some]
    assert len(set(rows)) == len(rows) and "Velo Courier" not in "".join(rows) and "Booked: tyre" not in "".join(rows)
    asked = [json.dumps(one[:-1]) for some in splits.values() for one in some]
    assert task == "chats" or len(set(asked)) == len(asked)  # no message has two categories


def test_every_answer_is_learned_with_its_end_and_nothing_else(tokenizer):
    messages = recorder.splits("chats")["test"][0]
    encoded = recorder.encode_turns(tokenizer, messages)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(encoded.input_ids) == text.rstrip("\n")
    learned = [tokenizer.decode(encoded.input_ids[start:stop]) for start, stop in encoded.learned]
    assert learned == [one["content"] + "<|im_end|>" for one in messages if one["role"] == "assistant"]
    kept = sum(label != -100 for label in encoded.labels())
    assert kept == sum(stop - start for start, stop in encoded.learned)
