"""The learning curve: it is read size by size, and the recorder's splits and masks hold what they promise."""

import json

import pytest
from data_scripts import load

from lab_utils.errors import LabError
from lab_utils.recorded.learning_curve import (
    FOLDER,
    LIVE,
    MESSAGES,
    SEEDS,
    SIZES,
    TASKS,
    curve_points,
    load_learning_curve,
    missing,
)
from lab_utils.sweep.evidence import packed, packed_bits

recorder = load("record_learning_curve")


def line(examples: int, seed: int, exact: float, rate: float = 4e-3) -> str:
    row = {"key": f"{examples} {seed} {rate}", "cpu": "a", "threads": 1, "date": "2026-01-01", "versions": {},
           "cpu_seconds": 1.0}  # fmt: skip
    row["choices"] = {"examples": examples, "seed": seed, "learning_rate": rate, "steps": 3, "batch_size": 8}
    for (split, messages), loss in zip(MESSAGES.items(), (0.25, 0.375, 0.5), strict=True):
        share = exact if split == "test" else 0.5
        row |= {f"{split}_exact": share, f"{split}_right": packed_bits(n < share * messages for n in range(messages)),
                f"{split}_loss": loss, f"{split}_losses": packed([0, 2 * loss] * (messages // 2))}  # fmt: skip
    return json.dumps(row) + "\n"


def test_sizes_in_order_with_the_seeds_that_are_there(tmp_path):
    lines = [line(32, 1, 0.5), line(8, 0, 0.25), line(32, 0, 0.75), line(32, 0, 0.1, rate=2e-3), line(LIVE, 0, 0.9)]
    (tmp_path / "chats.jsonl").write_text("".join(lines))
    runs = load_learning_curve("chats", tmp_path)
    points = curve_points(runs)
    shares = [(point.examples, point.wrong().mean(1).tolist()) for point in points]
    assert shares == [(8, [0.75]), (32, [0.25, 0.5])] and missing(runs) == 12
    (slow,) = curve_points(runs, 2e-3)
    assert slow.wrong().tolist() == [[False] * 20 + [True] * 180] and slow.wrong("validation").shape == (1, 100)
    assert load_learning_curve("tickets", tmp_path) == [] and missing([]) == len(SIZES) * len(SEEDS) == 15


def test_each_example_is_unpacked_and_agrees_with_the_share(tmp_path):
    (tmp_path / "tickets.jsonl").write_text(line(8, 0, 0.25))
    (run,) = load_learning_curve("tickets", tmp_path)
    rights = {"validation": (50, 50), "test": (50, 150), "next_month": (30, 30)}
    assert run.right == {split: (True,) * yes + (False,) * no for split, (yes, no) in rights.items()}
    assert run.losses == {"validation": (0, 0.5) * 50, "test": (0, 0.75) * 100, "next_month": (0, 1) * 30}
    (tmp_path / "tickets.jsonl").write_text(line(8, 0, 0.25).replace('"test_exact": 0.25', '"test_exact": 0.3'))
    with pytest.raises(LabError, match="test_right holds 50 right answers of 200, not 0"):
        load_learning_curve("tickets", tmp_path)


def test_a_damaged_line_and_an_unknown_task_are_refused(tmp_path):
    with pytest.raises(LabError, match="Unknown task 'prose'"):
        load_learning_curve("prose", tmp_path)
    wrong = [line(8, 0, 0.5).replace('"test_loss": 0.375', f'"test_loss": {loss}') for loss in ("NaN", "0.38")]
    for text in ("{", '{"key": 1}\n', *wrong):
        (tmp_path / "tickets.jsonl").write_text(text)
        with pytest.raises(LabError, match="cannot be read"):
            load_learning_curve("tickets", tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_recorded_is_of_the_data_that_are_there(task):
    table = FOLDER / f"{task}.jsonl"
    lines = table.read_text().splitlines() if table.exists() else []
    for row in map(json.loads, lines):
        assert row["data"] == recorder.digest(task) and row["choices"]["quantization"] == recorder.BASE
        run = (row["choices"][name] for name in ("examples", "learning_rate", "seed"))
        assert row["key"] == recorder.key_of(task, *run)
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
