"""The files of page 14: made again they are the same bytes, and the planted faults are as the data card counts them."""

import csv
import json
from collections import Counter

import pytest
from data_scripts import load

from lab_utils.folders import DATA


def tickets() -> list[dict]:
    with open(DATA / "tickets" / "tickets.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chats() -> list[dict]:
    return [json.loads(line) for line in (DATA / "chats" / "chats.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("script", "file"), [("make_tickets", "tickets.csv"), ("make_chats", "chats.jsonl")])
def test_made_again_they_are_the_same_bytes(script, file, tmp_path, monkeypatch):
    maker = load(script)
    committed = (maker.FOLDER / file).read_bytes()
    monkeypatch.setattr(maker, "FOLDER", tmp_path)
    maker.main()
    assert (tmp_path / file).read_bytes() == committed


def test_forty_copies_ten_with_two_answers_and_sixty_of_one_program():
    for rows, asked, answered, program, twice in (
        (tickets(), lambda row: row["message"], lambda row: row["category"], "C-2071", 10),
        (chats(), lambda row: row["messages"][:-1], lambda row: row["messages"][-1], "K-9004", 8),
    ):
        whole = Counter(str((asked(row), answered(row))).lower() for row in rows)
        assert len(rows) == 2640 and sum(count - 1 for count in whole.values()) == 40
        answers: dict[str, set] = {}
        for row in rows:
            answers.setdefault(str(asked(row)).lower(), set()).add(str(answered(row)))
        assert sum(len(found) > 1 for found in answers.values()) == twice
        assert Counter(row["customer"] for row in rows).most_common(1) == [(program, 60)]


def test_two_people_and_one_label():
    maker = load("make_tickets")
    broken = [row for row in tickets() if maker.is_broken_return(row["message"])]
    used = {person: {row["category"] for row in broken if row["sorted_by"] == person} for person in ("Ana", "Ben")}
    assert used == {"Ana": {"damage"}, "Ben": {"return"}} and 100 < len(broken) < 170
    booked = Counter((row["answered_by"], word) for row in chats() for word in ("puncture", "tyre")
                     if f"Booked: {word}" in row["messages"][-1]["content"])  # fmt: skip
    assert set(booked) == {("Ana", "puncture"), ("Ben", "tyre")}


def test_a_chat_asks_for_what_is_missing_and_ends_with_what_was_booked():
    for row in chats():
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system"] + ["user", "assistant"] * (len(roles) // 2)
        assert row["messages"][-1]["content"].startswith("Booked: ")
    assert max(len(row["messages"]) for row in chats()) >= 9


def test_next_months_messages_are_new():
    with open(DATA / "tickets" / "next_month.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and {row["category"] for row in rows} == {row["category"] for row in tickets()}
    known = {row["message"].lower() for row in tickets()}
    assert not known & {row["message"].lower() for row in rows}
