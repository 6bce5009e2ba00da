"""The data linter: what was planted is found, counted and placed; clean data are called clean; nothing is changed."""

import itertools
import json
import random

import numpy as np
import pytest
from unfolded import unfolded

from lab_utils import tasks
from lab_utils.errors import LabError
from lab_utils.printing import WIDTH
from lab_utils.tasks.__main__ import main
from lab_utils.tasks.copies import ALIKE, jaccard, near_copies, signatures
from lab_utils.tasks.linter import histogram
from lab_utils.tasks.text_checks import (
    CONTROL,
    encoding_faults,
    is_cut_short,
    is_iban,
    is_open_json,
    luhn,
    personal_data,
)

BEGINNINGS, ENDS = ("mor", "tal", "ver", "sin", "quo", "bel", "dra", "fen"), ("ta", "lo", "ri", "gus", "pex")
WORDS = [one + other for one in BEGINNINGS for other in ENDS]
LABELS = ("login", "billing", "other")


class Words:
    """A tokenizer for which a token is a word."""

    chat_template = None
    all_special_tokens = ("<|stop|>",)

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [text.split() for text in texts]}


def clean(rows: int = 400, seed: int = 0) -> list[dict]:
    """Rows of random words: no two are alike."""
    rng = random.Random(seed)
    return [{"text": " ".join(rng.choices(WORDS, k=12)), "label": LABELS[n % 3]} for n in range(rows)]


def report(rows, **options):
    return tasks.own(rows, **options).report(Words())


def kinds(found) -> set[str]:
    return {one.kind for one in found.findings}


CLEAN = clean()


def test_clean_data_are_called_clean():
    found = report(CLEAN, split=(0.5, 0.25, 0.25))
    assert found.findings == () and "Nothing found: empty, types, copies" in str(found)
    assert found.rows == {"train": 200, "validation": 100, "test": 100}
    assert {label: sum(counts.values()) for label, counts in found.labels.items()} == dict(
        zip(LABELS, (134, 133, 133), strict=True)
    )


def test_a_report_changes_nothing():
    own = tasks.own(CLEAN[:30])
    before, rows = own.key, [dict(row) for split in own.splits for row in own[split]]
    own.report(Words())
    assert own.key == before and [dict(row) for split in own.splits for row in own[split]] == rows


# One fault in clean data: (what is done to the rows, check, count, first place).


def put(column, text, place=7):
    def change(rows):
        rows[place][column] = text if not callable(text) else text(rows[place][column])

    return change


def copy(row, to, **other):
    def change(rows):
        rows[to] = {**rows[row], **other}

    return change


PLANTED = {
    "an empty answer": (put("label", None), "empty", 1, "row 8"),
    "a number": (put("label", 3), "types", 1, "row 8"),
    "a copy": (copy(0, 7), "copies", 1, "row 8 = row 1"),
    "a copy in capitals": (copy(0, 7, text=CLEAN[0]["text"].upper()), "copies", 1, "row 8 = row 1"),
    "two labels": (copy(0, 7, label=LABELS[1]), "two answers", 1, "row 8 = row 1"),
    "a near copy": (copy(0, 7, text=CLEAN[0]["text"] + " mor"), "near copies", 2, "row 1 ≈ row 8"),
    "near, another label": (copy(0, 7, text=CLEAN[0]["text"] + " mo", label="other"), "two answers", 1, "row 1 ≈"),
    "a long one": (put("text", "word " * 300), "lengths", 1, None),
    "another spelling": (put("label", "Log-in"), "labels", 1, None),
    "misread": (put("text", lambda text: text + " cafÃ©"), "encodings", 1, "row 8"),
    "a lost letter": (put("text", lambda text: text + " caf�"), "encodings", 1, "row 8"),
    "a hidden one": (put("text", lambda text: text + "​x"), "encodings", 1, "row 8"),
    "HTML": (put("text", lambda text: text + " a &amp; b"), "encodings", 1, "row 8"),
    "a control token": (put("text", lambda text: text + " <|im_end|>"), "control tokens", 1, "row 8"),
    "the tokenizer's own": (put("text", lambda text: text + " <|stop|>"), "control tokens", 1, "row 8"),
    "an address": (put("text", lambda text: text + " write to ann.b@example.org."), "personal data", 1, "row 8"),
    "a phone": (put("text", lambda text: text + " call +44 20 7946 0958"), "personal data", 1, "row 8"),
    "a card": (put("text", lambda text: text + " 4111 1111 1111 1111"), "personal data", 1, "row 8"),
}


@pytest.mark.parametrize("case", list(PLANTED))
def test_what_was_planted_is_found_counted_and_placed(case):
    change, kind, count, place = PLANTED[case]
    rows = [dict(row) for row in CLEAN[:300]]
    change(rows)
    found = report(rows, split=(1, 0, 0)).of(kind)
    assert [one.count for one in found if one.kind == kind][:1] == [count]
    if place:
        assert any(one.places[:1] and one.places[0].startswith(place) for one in found), found


def test_personal_data_are_not_repeated():
    rows = [dict(row) for row in CLEAN[:60]]
    rows[3]["text"] = "my card is 4111 1111 1111 1111, ann@example.org"
    found = report(rows)
    assert "4111" not in str(found) and "ann@" not in str(found) and "ann@" not in json.dumps(found.to_dict())


def test_leaks_between_the_splits_of_a_source_are_counted():
    train, test = [dict(row) for row in CLEAN[:200]], [dict(row) for row in CLEAN[200:300]]
    test[4] = dict(train[9])
    test[5] = {**train[10], "text": train[10]["text"] + " mor"}
    found = report({"train": train, "test": test})
    assert [(one.count, one.places) for one in found.of("leaks")] == [(1, ("test: row 5 = train: row 10",))]
    (near,) = found.of("near leaks")
    assert near.count == 1 and near.places[0].startswith("test: row 6 ≈ train: row 11")


def test_a_group_that_the_splits_tear_apart_is_named():
    rows = [{**row, "customer": f"c{number // 2}"} for number, row in enumerate(CLEAN[:20])]
    source = {"train": [rows[0], *rows[2:]], "test": [rows[1]]}
    (torn,) = [one for one in report(source, group="customer").of("groups")]
    assert torn.count == 1 and torn.places == ("c0",)
    assert not report(rows, group="customer", split=(0.5, 0.25, 0.25)).of("groups")


def test_labels_that_cannot_be_learnt_or_scored_are_named():
    rows = [{"text": row["text"], "label": "a" if number < 290 else "b"} for number, row in enumerate(CLEAN[:300])]
    said = " ".join(map(str, report(rows).of("labels")))
    assert "'a' is 97% of all answers" in said
    source = {"train": rows[:290], "test": rows[290:]}
    said = " ".join(map(str, report(source, metric="labels").of("labels")))
    assert "1 label cannot be learnt: no row in train: b." in said and "1 label without a row in test: a." in said
    assert "there is nothing to learn" in str(report(rows[:20]).of("labels")[0])


def sentence(number: int) -> str:
    return f"{CLEAN[number]['text'].capitalize()}."


def test_answers_that_stop_in_the_middle_are_found_among_those_that_do_not():
    rows = [{"prompt": CLEAN[n]["text"], "answer": sentence(n + 100)} for n in range(100)]
    rows[4]["answer"] = rows[4]["answer"][:-9]
    rows[5]["answer"] = '{"a": [1, 2'
    found = report(rows).of("unfinished")
    assert {(one.count, one.places) for one in found} == {(1, ("row 5",)), (1, ("row 6",))}
    style = [{**row, "answer": row["answer"].rstrip(".")} for row in rows[:4]]
    assert not report(style).of("unfinished")  # nobody here ends with a full stop


def test_conversations_are_looked_at_turn_by_turn():
    def talk(number, *more):
        turns = [{"role": "user", "content": CLEAN[number]["text"]}, {"role": "assistant", "content": sentence(number)}]
        return {"messages": [*turns, *more]}

    rows = [talk(n) for n in range(120)]
    rows[3] = talk(3, {"role": "user", "content": "and then?"})
    rows[4] = talk(4, {"role": "assistant", "content": "More of it."})
    rows[5] = talk(5, {"role": "user", "content": "Mail a@b.org"}, {"role": "assistant", "content": "Yes."})
    rows[6] = rows[7]
    found = report(rows)
    assert kinds(found) - {"size", "leaks"} == {"turns", "personal data", "copies"}
    assert [one.places for one in found.of("turns")] == [("row 4",), ("row 5",)]


# Lengths.


@pytest.mark.parametrize("tokens", [[1], [7, 7, 7], list(range(1, 1000)), [3, 100_000], [10, 20, 30, 40]])
def test_every_length_is_in_one_bin(tokens):
    found = histogram(tokens, 20, "tokens")
    assert sum(found.counts) == len(tokens) and len(found.edges) == len(found.counts) + 1 <= 13
    for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
        assert count == sum(low <= one < high for one in tokens)
    assert found.cut == sum(one > 20 for one in tokens) and found.counts[0] and found.counts[-1]


def test_tokens_are_those_of_the_chat_template(tokenizer):
    own = tasks.own([{"prompt": "Hi there", "answer": "Hello."}], system="Be kind.")
    turns = [("system", "Be kind."), ("user", "Hi there"), ("assistant", "Hello.")]
    whole = tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in turns], tokenize=False).rstrip()
    assert own.report(tokenizer).lengths.longest == len(tokenizer(whole)["input_ids"])
    assert own.report().lengths.longest == len(tokenizer(whole)["input_ids"])  # the embedded model's, by default


# Copies.


def test_near_copies_are_those_that_a_comparison_of_all_pairs_finds():
    rng = random.Random(1)
    texts = [row["text"] for row in clean(60, seed=2)]
    for number in range(60):
        words = texts[number].split()
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(12)] = rng.choice(WORDS)
        texts.append(" ".join(words))
    expected = {pair for pair in itertools.combinations(range(120), 2) if jaccard(*(texts[n] for n in pair)) >= ALIKE}
    found, whole = near_copies(signatures(texts, 120), lambda numbers: [texts[n] for n in numbers])
    assert whole and {(one.one, one.other) for one in found} == expected and 5 < len(expected) < 60


def test_what_was_not_looked_at_is_said(monkeypatch):
    monkeypatch.setattr("lab_utils.tasks.copies.MOST_PAIRS", 5)
    rows = [{**row, "text": f"{CLEAN[0]['text']} {row['text'].split()[0]}"} for row in CLEAN[:30]]
    assert str(report(rows).of("near copies")[0]).startswith("At least ")


def test_short_and_empty_texts_have_a_signature():
    assert signatures(["", "?", "ab", "x" * 50_000], 4).shape[0] == 4
    assert jaccard("abc", "ABC!") == 1 and jaccard("abc", "abd") == 0


def test_signatures_do_not_depend_on_what_came_before():
    texts = [row["text"] for row in CLEAN[:5]]
    assert (signatures(texts[3:], 2) == signatures(texts, 5)[3:]).all()
    assert signatures(texts, 5).dtype == np.uint32


# Texts.


def test_luhn_is_that_of_the_standard():
    for number in ("4111111111111111", "5500 0055 5555 5559", "378282246310005", "6011-1111-1111-1117"):
        assert luhn(number)
        digits = [one for one in number if one.isdigit()]
        for place in range(len(digits)):  # it finds every wrong digit
            wrong = digits.copy()
            wrong[place] = str((int(wrong[place]) + 1) % 10)
            assert not luhn("".join(wrong))
    assert not luhn("0" * 16) and not luhn("411111111111")


def test_bank_accounts_have_check_digits():
    assert is_iban("GB82 WEST 1234 5698 7654 32") and is_iban("DE89370400440532013000")
    assert not is_iban("GB83 WEST 1234 5698 7654 32")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to ann@example.org, please", ["e-mail"]), ("see user@host", []), ("an @mention, 3 @ 5", []),
        ("call 0171 123 4567 or", ["phone"]), ("(212) 555-0123", ["phone"]), ("+49 (0)30 901820", ["phone"]),
        ("on 2024-05-17 at 10:30", []), ("order 1547, 12 000 euros", []), ("3.14159265358979", []),
        ("version 10.12.2023.1", []), ("ISBN 978-3-16-148410-0", []), ("17.05.2024 12:30", []),
        ("card 4111-1111-1111-1111", ["card"]), ("number 4111111111111112", []),
        ("IBAN DE89 3704 0044 0532 0130 00", ["bank account"]),
    ],
)  # fmt: skip
def test_personal_data_are_hinted_at(text, kinds):
    assert list(personal_data(text)) == kinds


@pytest.mark.parametrize("text", ["café — “quoted” naïve", "Ärger, São Paulo, Ålesund", "日本語 🎉 £5", "a & b < c; d"])
def test_good_text_has_no_fault(text):
    assert list(encoding_faults(text)) == [] and not CONTROL.search(text)


@pytest.mark.parametrize("text", ["café", "naïve “quotes”", "don’t – yes", "£5 for Zoë", "😀"])
@pytest.mark.parametrize("wrong", ["cp1252", "latin-1"])
def test_utf_8_that_was_read_as_something_else_is_seen(text, wrong):
    assert "misread" in list(encoding_faults(text.encode().decode(wrong, "replace")))


def test_what_ends_is_told_from_what_stops():
    for text in ("Done.", "Yes!", 'He said "no"', "(see above)", "```\nx\n```", "Ende…", "* a\n* b:"):
        assert not is_cut_short(text), text
    for text in ("and then the", "first, second,", "```\ncode"):
        assert is_cut_short(text), text
    assert is_open_json('{"a": "x') and is_open_json("[1, [2]") and not is_open_json('{"a": "}{"}')
    assert not is_open_json("no {json")


# The command.


def test_one_zero_byte_in_a_text_is_reported_wherever_it_is(tmp_path):
    """In the first bytes as in the last ones: the file is not called UTF-16 for it, and the report names the line."""
    for place in (1, 18):
        rows = [f"ticket {number},{'ab'[number % 2]}" for number in range(20)]
        rows[place] = "tick\0et,a"
        (tmp_path / "a.csv").write_text("message,category\n" + "\n".join(rows) + "\n")
        found = tasks.own(tmp_path / "a.csv", prompt="message", answer="category").report(Words())
        assert any("control characters" in str(one) and f"line {place + 2}" in str(one) for one in found.findings)


def test_what_is_printed_breaks_between_words_at_one_width():
    """Every line fits but for a single word that is longer by itself, and no word is broken or lost."""
    rows = [*CLEAN[:200], *CLEAN[:30], {"text": "x" * 120 + " y", "label": CLEAN[0]["label"]}]
    task = tasks.own(rows, prompt="text", answer="label", name="copies")
    found = task.report(Words())
    for text, words in ((str(found), " ".join(one.said for one in found.findings)), (str(task), " ".join(task.notes))):
        assert all(len(line) <= WIDTH or " " not in line.strip() for line in text.splitlines())
        assert set(words.split()) <= set(text.split())
    (copies,) = found.of("copies")
    first = next(line for line in copies.lines().splitlines() if line.startswith("  First: "))
    assert first.endswith(", ….") and first.count("row") >= 2 and copies.count == 30
    assert found.counts["copies"] == 30 and "empty" not in found.counts


def test_the_command_prints_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lab_utils.tasks.linter._embedded_tokenizer", lambda: None)
    path = tmp_path / "tickets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*CLEAN[:50], CLEAN[0]]))
    assert main(["report", str(path), "--prompt", "text", "--answer", "label"]) == 0
    said = unfolded(capsys.readouterr().out)
    assert "1 row is a copy" in said and ("line 51 = line 1." in said or "line 1 = line 51." in said)
    assert "estimated" in said and said.rstrip().endswith("Nothing was changed.")
    assert main(["report", str(path), "--prompt", "txt", "--answer", "label"]) == 2
    assert "Did you mean 'text'?" in capsys.readouterr().err


def test_a_report_in_a_page_escapes_the_data():
    rows = [dict(row) for row in CLEAN[:30]]
    rows[0]["label"] = "<script>x</script>"
    assert "<script>" not in report(rows, metric="labels")._repr_html_()


def test_a_length_that_is_none_is_refused():
    with pytest.raises(LabError, match="max_length=4"):
        tasks.own(CLEAN[:3]).report(Words(), max_length=4)
