"""tasks: the data are what the card says, nothing of the tests is in training, and bad files are named."""

import json
import re
from collections import Counter
from pathlib import Path

import data_scripts
import pytest

from lab_utils.errors import LabError
from lab_utils.folders import DATA
from lab_utils.tasks.registry import TASKS, is_pirate, load_task

HELD_OUT = ("validation", "test", "handwritten")


maker = data_scripts.load("make_bookings")


def lines(task: str, split: str) -> list[dict]:
    """A data file's lines, read without the library."""
    path = DATA / task / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


BOOKINGS = {split: lines("bookings", split) for split in ("train", *HELD_OUT)}
STYLE = {split: lines("style", split) for split in ("train", "validation", "test")}


def answers(split: str, field: str) -> set:
    return {row["answer"][field] for row in BOOKINGS[split]}


def name_words(split: str) -> set[str]:
    """First names and surnames, each on its own, in lower case."""
    return {word.lower() for name in answers(split, "name") for word in name.split()}


def items(split: str) -> set[str]:
    """Kinds of equipment, however they were written: "Glue guns" -> "glue gun"."""
    return {item.lower().removesuffix("s") for item in answers(split, "item")}


def minutes(split: str) -> set[str]:
    """The minutes of the clock times that have any: "9.30 am" -> "30"."""
    found = (re.match(r"\d+[:.](\d\d)", time) for time in answers(split, "time"))
    return {match.group(1) for match in found if match}


# Reading files.


def write_task(folder: Path, name: str, row: dict) -> None:
    for split in TASKS[name].splits:
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")


def test_a_missing_key_is_named_with_file_and_line(tmp_path):
    write_task(tmp_path, "style", {"plain": "a", "styled": "b"})
    with open(tmp_path / "validation.jsonl", "a") as file:
        file.write('{"plain": "no partner"}\n')
    with pytest.raises(LabError, match=r"validation\.jsonl, line 2: the key 'styled' is missing"):
        load_task("style", tmp_path)


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_split_is_named(tmp_path, content):
    write_task(tmp_path, "style", {"plain": "a", "styled": "b"})
    (tmp_path / "test.jsonl").write_text(content)
    with pytest.raises(LabError, match=r"test\.jsonl"):
        load_task("style", tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write_task(tmp_path, "style", {"plain": "a", "styled": "b"})
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(LabError, match=f"no data file {re.escape(str(tmp_path / 'test.jsonl'))}"):
        load_task("style", tmp_path)


def test_an_unknown_task_lists_the_tasks():
    with pytest.raises(LabError, match=r"Unknown task 'poems'\. Choose one of: bookings, style, dolly"):
        load_task("poems")


def test_the_hub_task_without_a_network_says_what_to_use_instead():
    with pytest.raises(LabError, match=r"databricks-dolly-15k.*use 'bookings' or 'style'"):
        load_task("dolly")


@pytest.mark.parametrize(("name", "data"), [("bookings", BOOKINGS), ("style", STYLE)])
def test_every_split_loads_whole(name, data):
    task = load_task(name)
    assert {split: len(rows) for split, rows in task.items()} == {split: len(rows) for split, rows in data.items()}
    for rows in task.values():
        assert rows.column_names == ["prompt", "answer"]
        assert all(isinstance(text, str) and text.strip() for row in rows for text in row.values())


def test_a_booking_is_asked_by_its_message_and_answered_in_compact_json():
    first, row = load_task("bookings")["handwritten"][0], BOOKINGS["handwritten"][0]
    assert first["prompt"] == row["message"]
    assert first["answer"] == '{"name":" Zanele","qty":1,"item":" gimbal","day":"Thursday","time":"3pm"}'
    assert TASKS["bookings"].parse(first["answer"]) == row["answer"]
    assert list(row["answer"]) == list(TASKS["bookings"].fields)


def test_the_blank_makes_a_copied_word_the_same_token(tokenizer):
    """Why the answer has it: the first token of a word after a blank, in the message and in the answer."""
    message = tokenizer("could i grab a gimbal on thurs")["input_ids"]
    with_blank, without = tokenizer('{"item":" gimbal"}')["input_ids"], tokenizer('{"item":"gimbal"}')["input_ids"]
    word = tokenizer(" gimbal")["input_ids"]

    def holds(tokens):
        return any(tokens[i : i + len(word)] == word for i in range(len(tokens)))

    assert holds(message) and holds(with_blank) and not holds(without)


# What counts as right.


def test_right_is_the_parsed_object_not_its_spelling():
    task, answer = TASKS["bookings"], '{"name":"Zoë","qty":2}'
    assert task.is_right('{ "qty": 2, "name": "Zo\\u00eb" }', answer)
    for wrong in ('{"name":"Zoë","qty":"2"}', '{"name":"Zoë"}', '{"name":"Zoë","qty":2,"x":0}', "Zoë", "", "[2]"):
        assert not task.is_right(wrong, answer)


def test_valid_is_one_json_object_and_nothing_after_it():
    task = TASKS["bookings"]
    assert task.is_valid('{"name": "A"}') and task.is_valid("{}")
    for text in ("", "[]", "3", "null", '{"name": "A"', '{"name": "A"} and so on'):
        assert not task.is_valid(text)


def test_plain_text_is_right_up_to_blanks_and_valid_in_its_form():
    style = TASKS["style"]
    assert style.is_right(" Arr, so be it, matey! ", "Arr, so be it, matey!")
    assert not style.is_right("arr, so be it, matey!", "Arr, so be it, matey!")
    assert style.is_valid("Arr, anything at all, matey!") and not style.is_valid("Anything at all.")
    assert TASKS["dolly"].is_valid("an answer") and not TASKS["dolly"].is_valid("")


# The bookings: made as told, and no test in training.


@pytest.mark.parametrize("split", list(maker.COUNTS))
def test_the_committed_file_is_what_the_generator_makes_byte_for_byte(split):
    made = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in maker.make(split))
    assert (DATA / "bookings" / f"{split}.jsonl").read_bytes() == made.encode()


def test_the_handwritten_split_has_a_hundred_messages():
    assert len(BOOKINGS["handwritten"]) == 100


def test_the_data_card_has_the_counts_right():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    for split, rows in BOOKINGS.items():
        assert re.search(rf"^\| {split} \| {len(rows):,} \|", card, re.MULTILINE), split
    for split, templates in maker.TEMPLATES.items():
        row = re.search(rf"^\| {split} \|.*generator, (\d+) ", card, re.MULTILINE)
        assert int(row.group(1)) == len(templates), split
    counts = [len(rows) for rows in STYLE.values()]
    assert f"{sum(counts)} pairs" in card
    assert "{} for training, {} for validation, {} for test".format(*counts) in " ".join(card.split())


def test_no_message_occurs_twice_anywhere():
    seen = Counter(" ".join(row["message"].lower().split()) for rows in BOOKINGS.values() for row in rows)
    assert [message for message, count in seen.items() if count > 1] == []


def bare(template: str) -> str:
    """A template without slots, case and spacing: what two phrasings would have to share to be one."""
    return " ".join(re.sub(r"\{\w+\}", " ", template).lower().split())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_template_is_shared_not_even_in_other_case_or_order_of_slots(split):
    assert not set(maker.TEMPLATES[split]) & set(maker.TEMPLATES["train"])
    known = {bare(template): template for template in maker.TEMPLATES["train"]}
    assert {template: known[bare(template)] for template in maker.TEMPLATES[split] if bare(template) in known} == {}
    assert len({bare(template) for template in maker.TEMPLATES[split]}) == len(maker.TEMPLATES[split])


def test_every_template_says_everything_once():
    for template in (one for templates in maker.TEMPLATES.values() for one in templates):
        slots = Counter(re.findall(r"\{(\w+)\}", template))
        assert all(slots[slot] == 1 for slot in ("name", "what", "day", "time")), template
        assert set(slots) <= {"name", "what", "day", "time", "n", "where", "other"}, template


@pytest.mark.parametrize("pools", ["NAMES", "SURNAMES", "ITEMS", "MINUTES"])
def test_the_held_out_pool_shares_nothing_with_training(pools):
    pool = getattr(maker, pools)
    trained, held_out = ({value.lower() for value in pool[kind]} for kind in ("train", "held out"))
    assert held_out and trained and not held_out & trained


def test_joined_training_items_hit_no_held_out_item():
    joined = {f"{kind} {part}" for kind in maker.KINDS for part in maker.PARTS}
    assert not joined & set(maker.ITEMS["held out"])
    assert not {f"{item}s" for item in joined | set(maker.ITEMS["train"])} & set(maker.ITEMS["held out"])


@pytest.mark.parametrize("split", HELD_OUT)
def test_no_name_and_no_item_of_a_held_out_split_occurs_in_a_training_answer(split):
    assert name_words(split) & name_words("train") == set()
    assert items(split) & items("train") == set()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_clock_minutes_of_the_made_held_out_splits_are_new(split):
    assert minutes(split) and minutes("train") and not minutes(split) & minutes("train")


# Every answer can be read off its message: name, item and time as they are there, day and number looked up.


@pytest.mark.parametrize("split", list(BOOKINGS))
def test_answers_have_the_tasks_fields_in_order_and_their_types(split):
    for row in BOOKINGS[split]:
        answer = row["answer"]
        assert tuple(answer) == TASKS["bookings"].fields
        assert isinstance(answer["qty"], int) and 1 <= answer["qty"] <= 30
        assert answer["day"] in maker.DAYS
        assert all(isinstance(answer[field], str) and answer[field] for field in ("name", "item", "day", "time"))
        assert re.fullmatch(r"\d{1,2}([:.]\d\d)?( ?[ap]m)?|noon|\d{1,2} o'clock", answer["time"], re.IGNORECASE), answer


@pytest.mark.parametrize("split", list(BOOKINGS))
def test_name_item_and_time_are_in_the_message_letter_by_letter(split):
    for row in BOOKINGS[split]:
        for field in ("name", "item", "time"):
            assert re.search(rf"(?<!\w){re.escape(row['answer'][field])}(?!\w)", row["message"]), (field, row)


@pytest.mark.parametrize("split", list(maker.COUNTS))
def test_day_and_number_are_in_a_made_message(split):
    words = {word: number for number, word in dict(maker.NUMBER_WORDS).items()}
    words |= {"couple": 2, "pair": 2, "half a dozen": 6, "dozen": 12}
    for row in BOOKINGS[split]:
        said, answer = row["message"].lower(), row["answer"]
        assert any(re.search(rf"\b{day.lower()}\b", said) for day in maker.DAYS[answer["day"]]), row
        ways = [str(answer["qty"]), *(word for word, number in words.items() if number == answer["qty"])]
        # One of an item may go without any number: "projector for Monday".
        assert answer["qty"] == 1 or any(re.search(rf"\b{way}(x|\b)", said) or f"x{way}" in said for way in ways), row


def test_handwritten_messages_are_no_bare_templates():
    """People are chatty: the median hand-written message is longer than the median made one, and all differ."""
    lengths = {split: sorted(len(row["message"]) for row in BOOKINGS[split]) for split in ("test", "handwritten")}
    assert lengths["handwritten"][50] > lengths["test"][len(lengths["test"]) // 2]


# The style task.


def test_style_has_three_hundred_pairs_or_more_and_no_sentence_twice():
    rows = [row for split in STYLE.values() for row in split]
    assert len(STYLE["train"]) >= 300
    for side in ("plain", "styled"):
        seen = Counter(" ".join(row[side].lower().split()) for row in rows)
        assert [text for text, count in seen.items() if count > 1] == []


@pytest.mark.parametrize("split", list(STYLE))
def test_every_styled_line_is_in_style_and_no_plain_one(split):
    assert [row for row in STYLE[split] if not is_pirate(row["styled"]) or is_pirate(row["plain"])] == []


@pytest.mark.parametrize(
    "text",
    ["", "Arr, the bus be late.", "The bus be late, matey!", "arr, the bus be late, matey!", "Arr the bus, matey!"],
)
def test_half_a_pirate_is_none(text):
    assert not is_pirate(text)
