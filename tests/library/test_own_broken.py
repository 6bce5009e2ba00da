"""own, of broken data: file, line and column are named, and no exception is raw."""

import json
import os
import random

import pandas as pd
import pytest
from unfolded import unfolded

from lab_utils import tasks
from lab_utils.errors import LabError

PAIRS = [{"message": f"ticket {number}", "category": ("login", "billing")[number % 2]} for number in range(20)]
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]

HEAD = "message,category\n"
BROKEN = {  # file, content, options, what is said
    "too few fields": ("a.csv", HEAD + "x,y\nz\n", "a.csv, line 3, column 2: 1 field where the header has 2"),
    "too many fields": ("a.csv", HEAD + "x,y\nz, and more,y\n", "a.csv, line 3, column 3: 3 fields"),
    "an open quote": ("a.csv", HEAD + 'x,y\n"z,y\nq,y\n', "a.csv, line 3, in the row that begins there: a quote"),
    "a quote inside": ("a.csv", HEAD + '"x "no" z",y\n', "a.csv, line 2, in the row that begins there: a quote inside"),
    "a quote after lines": ("a.csv", HEAD + '"x\nz" q,y\n', "a quote inside a text (seen in line 3)"),
    "a name twice": ("a.csv", "message,message\nx,y\n", "a.csv, line 1, column 2: the name 'message' occurs twice"),
    "cp1252 csv": ("a.csv", HEAD.encode() + "x,y\ncafé,y\n".encode("cp1252"), "a.csv, line 3, column 4: byte 0xe9"),
    "wide, no mark": ("a.csv", (HEAD + "x,y\n").encode("utf-16-le"), "a.csv, line 1, column 1: the file is UTF-16"),
    "a zip": ("a.csv", b"PK\3\4\0\0\0\0", "a.csv, line 1, column 1: the file is a ZIP archive; .xlsx"),
    "gzip": ("a.csv", b"\x1f\x8b\x08\0\0\0\0\0", "a.csv, line 1, column 1: the file is packed with gzip. Unpack"),
    "other bytes": ("a.csv", b"\1\0\0\0\7", "a.csv, line 1, column 1: the file is UTF-16, or not text at all"),
    "a web page": ("a.csv", "\n<!DOCTYPE html>\n<p>404, no</p>\n", "the file is a web page. The download went wrong"),
    "a pointer": ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", "Fetch the data: `git lfs pull`."),
    "JSON as a table": ("a.csv", '{"message": "x"}\n', "a.csv, line 1, column 1: the file holds JSON, not a table"),
    "a long number": ("a.jsonl", '{"message": ' + "9" * 5000 + "}", "line 1: not JSON (a number of 5,000 digits, and"),
    "only a header": ("a.csv", HEAD, "a.csv holds no row: no line follows the one with the columns' names"),
    "an empty file": ("a.csv", "", "a.csv holds no row: the file is empty, 0 bytes"),
    "blank lines": ("a.csv", "\n \n", "a.csv holds no row"),
    "an empty array": ("a.json", "[]", "a.json holds no row. Give"),
    "no answers": ("a.csv", HEAD + "x,\ny,\n", "a.csv holds no example that can be learnt from: 2 with no category ("),
    "another column": ("a.csv", "mesage,category\nx,y\n", "'mesage', 'category'. Did you mean 'mesage'?"),
    "a cut line": ("a.jsonl", '{"message": "x"}\n{"message": "x', "a.jsonl, line 2: not JSON (column 13"),
    "a list in a line": ("a.jsonl", '{"message": "x", "category": "y"}\n[1]\n', "a.jsonl, line 2: expected an object"),
    "a chat in a line": ("a.jsonl", f"{json.dumps(TURNS)}\n" * 2,
                         'a.jsonl, line 1: expected an object {...}, found list. Give the list a name: {"messages"'),
    "a comma after each row": ("a.jsonl", '{"message": "x", "category": "y"},\n' * 2,
                               "a.jsonl, line 1: not JSON (column 34: Extra data). A line ends with its row: delete"),
    "Python in a line": ("a.jsonl", "{'message': 'x', 'category': 'y'}\n", "write each row by json.dumps(row)"),
    "turns as a prompt": ("a.jsonl", json.dumps({"message": TURNS[:1], "category": TURNS[1:]}),
                          "a.jsonl, line 1, column 'message': expected a text, found [{"),
    "turns, and the way out": ("a.jsonl", json.dumps({"message": TURNS[:1], "category": TURNS[1:]}),
                               "put all turns of a row into one column, and pass messages="),
    "Excel's line, then too many": ("a.csv", "sep=;\n" + HEAD.replace(",", ";") + "x;y;z\n", "a.csv, line 3, column 3"),
    "a key twice": ("a.jsonl", '{"message": "x", "message": "y"}\n', "a.jsonl, line 1: not JSON (the key 'message'"),
    "NaN": ("a.jsonl", '{"message": NaN, "category": "y"}\n', "a.jsonl, line 1: not JSON (message is nan"),
    "half a character": ("a.jsonl", '{"message": "\\ud83d"}\n', "a.jsonl, line 1: not JSON (message holds half"),
    "a prompt in a list": ("a.jsonl", '{"message": "x", "category": "y"}\n{"message": ["x"], "category": "y"}\n',
                           "a.jsonl, line 2, column 'message': expected a text, found ['x']"),
    "latin-1 jsonl": ("a.jsonl", '{"message": "é"}\n'.encode("latin-1"), "a.jsonl, line 1, column 14: byte 0xe9"),
    "a cut array": ("a.json", '[{"message": "x"}\n', "a.json, line 2, column 1: not JSON (the array is not closed"),
    "no comma": ("a.json", '[{"message": "x"}\n {"message": "y"}]', "a.json, line 2, column 2: not JSON (a comma"),
    "a bad value": ("a.json", '[{"message": "x"},\n {"message": x}]', "a.json, line 2, column 14: not JSON (Expecting"),
    "a number in an array": ("a.json", '[{"message": "x"},\n 3]', "a.json, line 2, column 2: expected an object"),
    "text after an array": ("a.json", '[{"message": "x", "category": "y"}]\n]', "a.json, line 2, column 1: not JSON ("),
    "a text": ("a.json", '"x"', "a.json, line 1, column 1: expected rows, found str"),
    "no parquet": ("a.parquet", b"PAR1 and no more", "a.parquet cannot be read as Parquet"),
    "no header": ("a.csv", "x,y\nz,y\n", "'x', 'y'. The first line of the file is read as the names of the columns"),
    "a text without columns": ("a.txt", "Once, there was\na tent.\n", "a.txt, line 1: a .txt file is read as a table"),
    "utf-16 cut off": ("a.csv", (HEAD + "x,y\n").encode("utf-16")[:-1], "a.csv, line 2, column 4: byte 0x0a is not"),
    "a spreadsheet": ("a.xlsx", b"", "a.xlsx is not a kind of file that can be read as data. Save it as CSV"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_file_is_named_by_file_line_and_column(tmp_path, case):
    name, content, said = BROKEN[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LabError) as caught:
        tasks.own(path, prompt="message", answer="category")
    assert said in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("hello", "line 2, column 'messages': expected a list of turns, found the text 'hello'"),
        ({"role": "user"}, "expected a list of turns, found {'role': 'user'}"),
        (["hello"], "turn 1: expected {'role': …, 'content': …}, found 'hello'"),
        ([{"role": "narrator", "content": "x"}], "turn 1: the role is 'narrator'; known are system"),
        ([*TURNS, {"content": "x"}], "turn 3: the role is None"),
        ([{"role": "user", "content": {"a": 1}}], "turn 1: the content is {'a': 1}, not a text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "turn 1: a part of the content is not text"),
    ],
)
def test_a_broken_conversation_is_named_by_its_turn(tmp_path, turns, said):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in (TURNS, turns)))
    with pytest.raises(LabError) as caught:
        tasks.own(path, messages="messages")
    assert said in str(caught.value) and f"{path}, line 2, column 'messages'" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (7, {}, "The data are 7, of type int. Pass the path of a file"),
        (b"text", {}, "of type bytes"),
        ([1, 2], {}, "row 1: expected a dict {column: value}, found 1"),
        ([], {}, "the data holds no row"),
        ({"a": 1}, {}, "a dict with the keys a: these are neither splits"),
        ({"train": {"train": PAIRS}}, {}, "The split 'train' has splits itself"),
        ({"val": PAIRS, "dev": PAIRS}, {}, "are both 'validation'"),
        ("no such.csv", {}, "There is no file no such.csv in "),
        ("owner/name", {}, "set of the Hugging Face hub, in Python, pass datasets.load_dataset('owner/name')"),
        ({"train": PAIRS, "extra": PAIRS}, {}, "The split 'extra' is none of train, validation and test"),
        ([{"text": "only"}], {}, "which column is asked and which is answered? It has: 'text'"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], {}, "prompt='prompt', answer='chosen'"),
        (PAIRS, {"prompt": "message"}, "answer= is missing. Name both columns, of: 'message', 'category'"),
        (PAIRS, {"prompt": 3, "answer": "category"}, "prompt=3 is out of range"),
        (PAIRS, {"prompt": "message, category", "answer": "category"}, "a tuple: prompt=('message', 'category')"),
        (PAIRS, {"messages": "message", "prompt": "message"}, "either messages=, or prompt= and answer="),
        (PAIRS, {"prompt": "message", "answer": "category", "split": (0.5, 0.5)}, "three shares that add up to 1"),
        (PAIRS, {"prompt": "message", "answer": "category", "split": (0, 0.5, 0.5)}, "the first is above 0"),
        (PAIRS, {"prompt": "message", "answer": "category", "group": "client"}, "Unknown column of the data for group"),
        (PAIRS, {"prompt": "message", "answer": "category", "encoding": None}, "encoding=None is out of range"),
        (PAIRS, {"prompt": "message", "answer": "category", "encoding": "utf\0"}, "encoding='utf\\x00' is out of"),
        (pd.DataFrame([["a", "b", "c"]], columns=["x", "y", "y"]), {}, "The pandas table has two columns called 'y'"),
        ([{"prompt": "a", "chosen": TURNS, "rejected": TURNS}], {}, "pass messages='chosen'. To learn from both, see"),
        ([{"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": TURNS[1:]}], {}, "row['prompt'] + row['chosen']"),
        ([{"prompt": "a", "chosen": TURNS}], {"prompt": "prompt", "answer": "chosen"}, "Those are turns"),
        ([{str(n): "a" for n in range(3000)}], {"prompt": "a", "answer": "1"}, "'39', … (3,000 in all)."),
        (PAIRS, {"prompt": "message", "answer": "category", "metric": "bleu"}, "Unknown metric 'bleu'"),
        (PAIRS, {"prompt": "message", "answer": "category", "metric": "fields"}, "compares JSON objects"),
        (PAIRS, {"prompt": "message", "answer": "category", "seed": -1}, "seed=-1"),
        (PAIRS, {"prompt": "message", "answer": "category", "name": 3}, "name=3 is out of range"),
    ],
)
def test_what_is_no_data_is_refused_with_the_way_out(source, options, said):
    with pytest.raises(LabError) as caught:
        tasks.own(source, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("tool_calls", [b"x"]), ("name", "\ud83d"), ("tool_calls", [float("nan")])])
def test_what_a_template_gets_as_it_is_has_to_be_json(key, value):
    with pytest.raises(LabError, match=rf"row 1, column 'messages', turn 2, {key}: .* cannot be written as JSON"):
        tasks.own([{"messages": [TURNS[0], {**TURNS[1], key: value}]}])


# Whatever is in a file: a task, or a message.

ROWS = [{"message": f"tïcket {number}, a", "category": "ab"[number % 2]} for number in range(6)]
TALKS = [{"messages": TURNS}] * 3
GOOD = {
    "a.csv": "message,category\n" + "".join(f'"{row["message"]}",{row["category"]}\n' for row in ROWS),
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS), "a.json": json.dumps(ROWS, indent=1),
    "talks.jsonl": "".join(json.dumps(row) + "\n" for row in TALKS), "talks.json": json.dumps({"train": TALKS}),
}  # fmt: skip
PIECES = (b'"', b",", b"\n", b"\r", b"\0", b"{", b"}", b"[", b"]", b"\\", b":", b"null", b"\xff", b"NaN", b"\\ud83d")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with a few bytes changed, lost, added or repeated."""
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(data) + 1), rng.randint(1, 30)
        how = rng.randrange(4)
        put = (bytes([rng.randrange(256)]), b"", rng.choice(PIECES), data[place : place + length])[how]
        data = data[:place] + put + data[place + (0, length, 0, 0)[how] :]
    return data


@pytest.mark.parametrize("name", list(GOOD))
def test_any_damage_is_a_task_or_a_message(tmp_path, name):
    rng, refused = random.Random(name), 0
    options = {"prompt": "message", "answer": "category"} if name.startswith("a.") else {}
    for _ in range(40):
        (tmp_path / name).write_bytes(damaged(GOOD[name].encode(), rng))
        try:
            tasks.own(tmp_path / name, **options)
        except LabError as error:
            refused += 1
            assert name in str(error)
    assert 0 < refused < 40


def test_where_the_rows_without_an_answer_are_is_said(tmp_path):
    (tmp_path / "a.csv").write_text(HEAD + "x,\ny,\n")
    with pytest.raises(LabError, match=r"a\.csv holds no example .*2 with no category \(.*a\.csv, line 2, 3\)"):
        tasks.own(tmp_path / "a.csv", prompt="message", answer="category")


def test_a_link_to_nothing_and_a_pipe_are_no_files(tmp_path):
    loop, pipe = tmp_path / "loop.csv", tmp_path / "pipe.csv"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path, said in ((loop, "is a link that leads to no file"), (pipe, "is a pipe or a device")):
        with pytest.raises(LabError, match=said):
            tasks.own(path)


def test_a_file_that_was_misspelt_is_named(tmp_path):
    (tmp_path / "tickets.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LabError, match=r"There is no file .*tickts\.csv\. Did you mean tickets\.csv\?"):
        tasks.own(tmp_path / "tickts.csv")


def test_two_files_of_one_split_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text(HEAD + "x,y\n")
    (tmp_path / "train.jsonl").write_text(json.dumps({"message": "z", "category": "y"}))
    with pytest.raises(LabError, match=r"holds train\.csv and train\.jsonl, two files of one split"):
        tasks.own(tmp_path, prompt="message", answer="category")


def test_files_of_a_folder_that_are_not_read_are_said(tmp_path, capsys):
    for name in ("train", "test", "more"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    assert tasks.own(tmp_path).splits == ("train", "test")
    assert "not read: more.jsonl" in unfolded(capsys.readouterr().out)


@pytest.mark.parametrize("mark", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_line_that_tells_excel_the_separator_is_no_header(tmp_path, mark):
    path = tmp_path / "excel.csv"
    path.write_text(f"{mark}\r\nmessage; category\r\na, b and c;login\r\n", encoding="utf-8-sig", newline="")
    row = tasks.own(path, prompt="message", answer="category")["train"][0]
    assert (row["prompt"], row["answer"], row["line"]) == ("a, b and c", "login", 3)
