"""data_lines: files in any usual encoding are read, and what is not JSON or of another type is named by its place."""

import json

import pytest

from lab_utils.errors import LabError
from lab_utils.tasks.data_lines import check_rows, placed_lines, same_json, strict_json
from lab_utils.tasks.registry import TASKS, load_task

BOOKING = {
    "message": "two tents for Ann, Friday 9am",
    "answer": {"name": "Ann", "qty": 2, "item": "tents", "day": "Friday", "time": "9am"},
}
ROWS = {
    "bookings": BOOKING,
    "style": {"plain": "a", "styled": "b"},
    "dolly": {"instruction": "a", "context": "", "response": "b", "category": "open_qa"},
}


def objects_in(path) -> list[dict]:
    return [row for _, row in placed_lines(path)]


# Encodings and ends of lines.


def test_the_objects_come_in_order(tmp_path):
    path = tmp_path / "some.jsonl"
    # U+2028 and U+0085 are line breaks to str.splitlines, but not in JSON Lines.
    text = '{"a": 1}\n{"a": "ü"}\n{"a": "x\u2028y\u0085z"}\r\n{"a": 2}\r{"a": 3}'
    path.write_bytes(text.encode())
    expected = [{"a": 1}, {"a": "ü"}, {"a": "x\u2028y\u0085z"}, {"a": 2}, {"a": 3}]
    assert objects_in(path) == expected and objects_in(str(path)) == expected


@pytest.mark.parametrize(
    "text",
    ['\ufeff{"a": "ü"}\n{"a": 2}', '{"a": "ü"}\n\ufeff{"a": 2}\n', '{"a": "ü"}\n{"a": 2}\n\n \r\n',
     '\n{"a": "ü"}\n\n \t\r\n{"a": 2}', '\ufeff\n{"a": "ü"}\n\ufeff\n{"a": 2}'],
)  # fmt: skip
def test_a_bom_and_blank_lines_do_no_harm(tmp_path, text):
    path = tmp_path / "some.jsonl"
    path.write_bytes(text.encode())
    assert objects_in(path) == [{"a": "ü"}, {"a": 2}]


def test_blank_lines_count_where_a_line_is_named(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": }\n')
    with pytest.raises(LabError, match=r"some\.jsonl, line 4: not JSON"):
        objects_in(path)
    for split in TASKS["style"].splits:
        (tmp_path / f"{split}.jsonl").write_text('\n{"plain": "p", "styled": "s"}\n\n{"plain": "p"}\n')
    with pytest.raises(LabError, match=r"train\.jsonl, line 4: the key 'styled' is missing"):
        load_task("style", tmp_path)


@pytest.mark.parametrize("text", ["", "\ufeff", "\n \n", "\ufeff\r\n"])
def test_a_file_without_an_object_holds_no_example(tmp_path, text):
    path = tmp_path / "some.jsonl"
    path.write_bytes(text.encode())
    with pytest.raises(LabError, match=r"some\.jsonl holds no example"):
        objects_in(path)


@pytest.mark.parametrize("form", ["[{}]", '{{"a": {}}}'])
def test_what_is_read_can_be_compared(form):
    """Deep nesting is refused where it is read, not where two values are compared."""
    def nested(levels: int) -> str:
        text = "1"
        for _ in range(levels):
            text = form.format(text)
        return text

    assert same_json(strict_json(nested(100)), strict_json(nested(100)))
    for levels in (101, 400, 990, 5000):
        with pytest.raises(ValueError, match="more than 100 levels of nesting"):
            strict_json(nested(levels))
        answer = '{"name": ' + nested(levels) + "}"
        assert not TASKS["bookings"].is_right(answer, answer) and not TASKS["bookings"].is_valid(answer)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_two_and_four_bytes_a_character_are_named(tmp_path, encoding):
    path = tmp_path / "some.jsonl"
    path.write_text('{"a": 1}\n', encoding=encoding)
    with pytest.raises(LabError, match=r"some\.jsonl is UTF-16.*Save it as UTF-8"):
        objects_in(path)


def test_the_machines_locale_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "cp1252")
    monkeypatch.setattr("locale.getencoding", lambda: "cp1252", raising=False)
    path = tmp_path / "some.jsonl"
    path.write_bytes('{"a": "Zoë"}\n'.encode())
    assert objects_in(path) == [{"a": "Zoë"}]


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_bytes('{"a": 1}\n{"a": "ü"}\n'.encode("latin-1"))
    with pytest.raises(LabError, match=r"some\.jsonl, line 2: not JSON \(column 8: byte 0xfc is not UTF-8\)"):
        objects_in(path)


# JSON.


@pytest.mark.parametrize(
    ("third", "words"),
    [
        ('{"message": "cut off', "not JSON (column 13:"),
        ("[1, 2]", "found list"),
        ('"text"', "found str"),
        ('{"a": NaN}', "a is nan"),
        ('{"a": {"b": [1, -Infinity]}}', "a.b.1 is -inf"),
        ('{"a": 1e999}', "a is inf"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ('{"b": {"a": 1, "a": 1}}', "the key 'a' occurs twice"),
        ('{"a": "x\\ud83d"}', "a holds half a character (\\ud83d) at place 2"),
        ('{"\\udc00": 1}', "holds half a character"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "more than 100 levels of nesting"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_corrupt_line_is_named_by_file_and_number(tmp_path, third, words):
    path = tmp_path / "train.jsonl"
    good = json.dumps({"message": "m", "answer": {}})
    path.write_text("\n".join([good, good, third, good]) + "\n")
    with pytest.raises(LabError) as caught:
        objects_in(path)
    assert f"{path}, line 3:" in str(caught.value) and words in str(caught.value)


def test_a_whole_pair_is_a_character(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}\n')
    assert objects_in(path) == [{"a": "😀"}]


VALUES = [1, 0, True, False, None, 1.0, "1", "", [], {}, [1], {"a": 1}, {"a": True}, {"a": [1, None]}]


@pytest.mark.parametrize("value", VALUES)
def test_values_are_the_same_if_json_writes_them_alike(value):
    for other in VALUES:
        assert same_json(value, other) == (json.dumps(value) == json.dumps(other)), other
    assert same_json({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert strict_json(json.dumps(value)) == value


# Types.


def write_task(folder, name: str, rows) -> None:
    for split in TASKS[name].splits:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)


@pytest.mark.parametrize("name", list(ROWS))
def test_a_good_line_loads(tmp_path, name):
    write_task(tmp_path, name, [ROWS[name], {**ROWS[name], "id": 7, "note": None}])  # more columns do no harm
    task = load_task(name, str(tmp_path))
    assert set(task) == set(TASKS[name].splits) and all(len(rows) == 2 for rows in task.values())
    assert task["test"][0] == task["test"][1] == TASKS[name].to_example(ROWS[name])


def bad_lines():
    """(task, row, what is said of it), one thing wrong in each."""
    answer = BOOKING["answer"]
    for column in ("name", "item", "day", "time"):
        for value in (None, 3, 1.5, True, ["Ann"], {"first": "Ann"}, "", "  "):
            said = "empty" if isinstance(value, str) else f"{json.dumps(value)}, not a text"
            yield "bookings", {**BOOKING, "answer": {**answer, column: value}}, f"answer.{column} is {said}"
        rest = {key: value for key, value in answer.items() if key != column}
        yield "bookings", {**BOOKING, "answer": rest}, f"'answer.{column}' is missing"
    for value in (None, "2", "two", 2.0, 2.5, True, [2], {}):
        said = f"answer.qty is {json.dumps(value)}, not a whole number"
        yield "bookings", {**BOOKING, "answer": {**answer, "qty": value}}, said
    for value in (None, "text", 3, [], [answer]):
        yield "bookings", {**BOOKING, "answer": value}, f"answer is {json.dumps(value)[:20]}"
    yield "bookings", {**BOOKING, "answer": {**answer, "room": "12"}}, "answer has a key 'room'"
    for task in ROWS:
        for column in [name for name in ROWS[task] if name not in ("answer", "context", "category")]:
            for value in (None, 3, True, ["a"], {"a": 1}):
                yield task, {**ROWS[task], column: value}, f"{column} is {json.dumps(value)}, not a text"
            yield task, {**ROWS[task], column: " \n"}, f"{column} is empty"
            yield task, {k: v for k, v in ROWS[task].items() if k != column}, f"the key '{column}' is missing"
    yield "dolly", {**ROWS["dolly"], "context": 3}, "context is 3, not a text"


@pytest.mark.parametrize(("name", "row", "said"), list(bad_lines()))
def test_a_value_of_another_type_is_named_before_anything_is_trained(tmp_path, name, row, said):
    write_task(tmp_path, name, [ROWS[name]])
    path = tmp_path / "validation.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (ROWS[name], row)))
    with pytest.raises(LabError) as caught:
        load_task(name, tmp_path)
    assert str(caught.value).startswith(f"{path}, line 2: ") and said in str(caught.value)


def test_context_may_be_missing_or_null():
    for row in ({"instruction": "a", "response": "b"}, {"instruction": "a", "context": None, "response": "b"}):
        assert TASKS["dolly"].to_example(row) == {"prompt": "a", "answer": "b"}


# Rows that somebody hands over.


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a", "answer": "b"}, {"instruction": "a", "output": "b"}], "example 2 has no column 'prompt'"),
        ([{"prompt": "a"}], "no column 'answer'; it has prompt"),
        ([{"prompt": "a", "answer": None}], "answer is null, not a text"),
        ([{"prompt": 3, "answer": "b"}], "prompt is 3, not a text"),
        ([{"prompt": "a", "answer": float("nan")}], "answer is NaN, not a text"),
        ([{"prompt": "a", "answer": ""}], "answer is empty"),
        ([{"prompt": "\n ", "answer": "b"}], "prompt is empty"),
        ([{"prompt": "\ud83d", "answer": "b"}], "prompt holds half a character"),
        (["text"], 'expected {\'prompt\': text, \'answer\': text}, found "text"'),
        ({"train": []}, 'found "train"'),
        ([("a", "b")], 'found ["a", "b"]'),
        (None, "found null"),
        (3, "found 3"),
    ],
)
def test_rows_of_another_form_are_named(rows, said):
    with pytest.raises(LabError) as caught:
        check_rows(rows)
    assert said in str(caught.value)


def test_good_rows_are_given_back():
    rows = [{"prompt": "a", "answer": "b", "id": 3}, {"prompt": "c", "answer": ""}]
    assert check_rows(iter(rows[:1])) == rows[:1] and check_rows(rows, blank=True) == rows
