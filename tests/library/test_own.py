"""own: any usual file becomes a task, what was recognised is said, splits keep groups whole, and nothing is raw."""

import copy
import csv
import json
import pickle

import datasets
import numpy as np
import pandas as pd
import pytest
from unfolded import unfolded

from lab_utils import tasks
from lab_utils.errors import LabError
from lab_utils.tasks.conversations import learnable
from lab_utils.tasks.registry import find_task
from lab_utils.tasks.splitting import counts_of, cut

PAIRS = [{"message": f"ticket {number}", "category": ("login", "billing")[number % 2]} for number in range(20)]
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def rows_of(own) -> list[dict]:
    """All rows in the order of the file."""
    rows = (row for split in own.splits for row in own[split])
    return sorted(rows, key=lambda row: row["line"])


# One table of data, however it is kept.


def as_csv(folder, mark=","):
    path = folder / "some.csv"
    path.write_text("\n".join([f"message{mark}category", *(f"{r['message']}{mark}{r['category']}" for r in PAIRS)]))
    return path


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def as_parquet(folder):
    pd.DataFrame(PAIRS).to_parquet(folder / "some.parquet")
    return folder / "some.parquet"


LINES = "".join(json.dumps(row) + "\n" for row in PAIRS)
COLUMNS = {name: [row[name] for row in PAIRS] for name in ("message", "category")}
SOURCES = {
    "csv": (as_csv, "CSV, separated by commas"),
    "semicolons": (lambda folder: as_csv(folder, ";"), "separated by semicolons"),
    "tsv": (lambda folder: as_csv(folder, "\t").rename(folder / "some.tsv"), "TSV, separated by tabs"),
    "jsonl": (lambda folder: written(folder, "some.jsonl", LINES), "JSON Lines"),
    "lines in .json": (lambda folder: written(folder, "some.json", LINES), "JSON Lines"),
    "array": (lambda folder: written(folder, "some.json", json.dumps(PAIRS, indent=1)), "JSON array"),
    "array in .jsonl": (lambda folder: written(folder, "some.jsonl", json.dumps(PAIRS)), "JSON array"),
    "rows under a key": (lambda folder: written(folder, "some.json", json.dumps({"data": PAIRS})), "under 'data'"),
    "columns": (lambda folder: written(folder, "some.json", json.dumps(COLUMNS)), "list for each column"),
    "parquet": (as_parquet, "Parquet"),
    "list": (lambda folder: PAIRS, "list of dicts"),
    "generator": (lambda folder: iter(PAIRS), "list of dicts"),
    "dict of columns": (lambda folder: COLUMNS, "dict of columns"),
    "pandas": (lambda folder: pd.DataFrame(PAIRS), "pandas table"),
    "Dataset": (lambda folder: datasets.Dataset.from_list(PAIRS), "datasets.Dataset"),
}


@pytest.mark.parametrize("kind", list(SOURCES))
def test_every_source_gives_the_same_examples_and_says_what_it_was(tmp_path, capsys, kind):
    make, said = SOURCES[kind]
    own = tasks.own(make(tmp_path), prompt="message", answer="category", system="Sort it.")
    found = [(row["prompt"], row["answer"]) for row in rows_of(own)]
    assert found == [(row["message"], row["category"]) for row in PAIRS]
    assert said in unfolded(capsys.readouterr().out) and said in " ".join(own.notes)
    assert own.metric == "labels" and own.labels == ("billing", "login") and own.system == "Sort it."
    assert own.is_valid(" login ") and not own.is_valid("Login")


@pytest.mark.parametrize("orient", ["columns", "index", "records"])
def test_what_pandas_writes_as_json_is_read(tmp_path, orient):
    """`to_json` writes {column: {"0": value}} unless it is told otherwise."""
    pd.DataFrame(PAIRS).to_json(tmp_path / "some.json", orient=orient)
    found = [(row["prompt"], row["answer"]) for row in rows_of(tasks.own(tmp_path / "some.json", prompt="message",
                                                                         answer="category"))]  # fmt: skip
    assert found == [(row["message"], row["category"]) for row in PAIRS]


def test_blanks_around_a_label_do_not_count():
    own = tasks.own([{"text": f"t{n}", "label": ("login ", " billing")[n % 2]} for n in range(20)])
    assert own.labels == (" billing", "login ") and own.is_valid("login") and own.is_valid(" billing\n")
    assert own.is_right("login", "login ") and not own.is_valid("log in")


def test_splits_of_the_source_are_kept(tmp_path):
    for name, rows in (("train", PAIRS[:15]), ("valid", PAIRS[15:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = {"train": PAIRS[:15], "dev": tmp_path / "valid.jsonl"}
    for source in (tmp_path, both, datasets.DatasetDict({n: datasets.Dataset.from_list(r) for n, r in
                                                         (("train", PAIRS[:15]), ("validation", PAIRS[15:]))})):
        own = tasks.own(source, prompt="message", answer="category")
        assert own.splits == ("train", "validation") and own["train"]["prompt"][:] == COLUMNS["message"][:15]
        assert own["validation"]["line"][:] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("rows", "said", "example"),
    [
        ([{"messages": TURNS}], "chat format", TURNS),
        ([{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}], "ShareGPT", TURNS),
        ([{"messages": json.dumps(TURNS)}], "chat format", TURNS),
        ([{"instruction": "add", "input": "1 2", "output": "3"}], "Alpaca", ("add\n\n1 2", "3")),
        ([{"instruction": "add", "input": "", "output": "3"}], "Alpaca", ("add", "3")),
        ([{"question": "a", "answer": 7}], "prompt from 'question'", ("a", "7")),
        ([{"Prompt": "a", "Completion": "b"}], "prompt from 'Prompt'", ("a", "b")),
    ],
)
def test_common_forms_are_recognised(capsys, rows, said, example):
    own = tasks.own(rows)
    row = own["train"][0]
    assert said in unfolded(capsys.readouterr().out)
    assert (row["messages"] if own.kind == "conversations" else (row["prompt"], row["answer"])) == example


def test_turns_keep_what_a_template_needs():
    call = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
    turns = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "no", "name": "weather"},
        {"role": "assistant", "content": "No.", "reasoning": "the tool says so"},
    ]
    tools = [{"type": "function", "function": {"name": "weather"}}]
    own = tasks.own([{"messages": turns, "tools": tools}])
    row = own["train"][0]
    assert [one["role"] for one in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert row["messages"][1]["content"] == "Rain?" and row["messages"][2]["content"] == ""
    assert row["messages"][2]["tool_calls"] == call and row["tools"] == tools
    assert row["messages"][4]["reasoning_content"] == "the tool says so"
    context, answer = tasks.last_turn(row["messages"])
    assert len(context) == 4 and answer == "No."
    assert tasks.rows_text(row) == ("Rain?", "No.")


def test_parquet_read_by_pandas_is_the_same_data(tmp_path):
    """pandas gives lists as arrays of numpy, within each other too."""
    call = [{"type": "function", "function": {"name": name, "arguments": '{"of": 1}'}} for name in ("heat", "rain")]
    turns = [turn("user", "Rain?"), {"role": "assistant", "content": None, "tool_calls": call}]
    tools = [{"type": "function", "function": {"name": name, "required": ["a", "b"]}} for name in ("heat", "rain")]
    pd.DataFrame([{"messages": turns, "tools": tools, "tags": ["x", "y"]}] * 4).to_parquet(tmp_path / "some.parquet")
    table = pd.read_parquet(tmp_path / "some.parquet")
    own, same = tasks.own(tmp_path / "some.parquet"), tasks.own(table)
    assert own.data_digest == same.data_digest
    row = same["train"][0]
    assert row["messages"][1]["tool_calls"] == call and row["tools"] == tools
    assert tasks.own(table.assign(q="?"), prompt="q", answer="tags")["train"][0]["answer"] == '["x","y"]'


def test_turns_of_weight_0_are_read_and_not_learned():
    """OpenAI's files mark so the answers that a model is not to learn."""
    bad, good = {**turn("assistant", "Go away."), "weight": 0}, {**turn("assistant", "Hello."), "weight": 1}
    own = tasks.own([{"messages": one} for one in ([*TURNS, TURNS[0], bad], [TURNS[0], bad], [TURNS[0], good])])
    assert sum(len(own[split]) for split in own.splits) == 2
    assert "Left out: 1 row with turns of weight 0 alone (row 2)." in own.notes
    said = "In 1 conversation a turn of the assistant has weight 0: it is read, and not learned (row 1)."
    assert said in own.notes
    first = next(row for row in rows_of(own) if row["line"] == 1)["messages"]
    assert learnable(first) == [1] and tasks.last_turn(first) == (first[:1], "hello")
    assert not own.report().of("empty")[1:]  # the row that was left out, and no silent turn


def test_calls_and_texts_as_openai_has_written_them():
    call = {"name": "heat", "arguments": "{}"}
    turns = [
        {"role": "user", "content": [{"type": "input_text", "text": "How warm?"}]},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "heat", "content": "21"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "21 degrees."}]},
    ]
    own = tasks.own([{"messages": turns}])
    found = own["train"][0]["messages"]
    assert found[1]["tool_calls"] == [{"type": "function", "function": call}] and learnable(found) == [1, 3]
    assert (found[0]["content"], found[3]["content"]) == ("How warm?", "21 degrees.")
    assert not any("says nothing" in note for note in own.notes)


def test_a_task_has_a_system_message_where_the_conversation_has_none():
    own = tasks.own([{"messages": TURNS}], system="Be kind.")
    assert tasks.with_system(own, TURNS) == [{"role": "system", "content": "Be kind."}, *TURNS]
    theirs = [{"role": "system", "content": "Be brief."}, *TURNS]
    assert tasks.with_system(own, theirs) == theirs
    assert tasks.with_system(tasks.own([{"messages": TURNS}]), TURNS) == TURNS


def test_several_answers_are_one_json_object_with_fields():
    rows = [{"text": f"{n} tents", "qty": n, "item": "tents"} for n in range(1, 4)]
    own = tasks.own(rows, prompt="text", answer=("qty", "item"))
    assert own.fields == ("qty", "item") and own.metric == "fields"
    assert rows_of(own)[0]["answer"] == '{"qty":1,"item":"tents"}'
    assert own.is_right('{"item": "tents", "qty": 1}', rows_of(own)[0]["answer"])


def test_classes_are_called_by_their_names():
    rows = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "label": [1, 0]},
        features=datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])),
    )
    assert [row["answer"] for row in rows_of(tasks.own(rows))] == ["yes", "no"]


def test_a_class_of_minus_one_is_no_label(capsys):
    """datasets writes -1 where a test split was published without its labels."""
    rows = datasets.Dataset.from_dict(
        {"text": ["a", "b", "c"], "label": [1, -1, 0]},
        features=datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])),
    )
    assert [row["answer"] for row in rows_of(tasks.own(rows))] == ["yes", "no"]
    assert "1 row with no label (row 2)" in unfolded(capsys.readouterr().out)
    with pytest.raises(LabError, match=r"split 'test' holds no example .*1 with no label .*Or leave that split out\."):
        tasks.own({"train": rows, "test": rows.select([1])})


def test_an_answer_to_nobody_is_left_out_and_that_is_said(capsys):
    """A conversation that the assistant begins, and nobody goes on with, has no turn to learn."""
    ahoy = [turn("system", "Be kind."), turn("assistant", "Ahoy!")]
    own = tasks.own([{"messages": one} for one in (TURNS, ahoy, [*ahoy, *TURNS])])
    assert sum(len(own[split]) for split in own.splits) == 2
    assert "1 row with no turn of the assistant after somebody else's (row 2)" in unfolded(capsys.readouterr().out)


def test_answers_of_which_most_are_json_are_said():
    rows = [{"text": f"t{n}", "answer": '{"n": NaN}' if n in (3, 6) else json.dumps({"n": n})} for n in range(8)]
    own = tasks.own(rows, prompt="text", answer="answer")
    assert own.metric == "text" and own.fields == ()
    said = "6 of 8 answers are JSON objects and the rest are not (row 4, 7), so they are not compared field by field."
    assert said in own.notes
    assert not any("JSON" in note for note in tasks.own(PAIRS, prompt="message", answer="category").notes)


def test_an_answer_is_right_to_itself_field_by_field_whichever_fields_it_has():
    answers = ('{"item": "tent"}', '{"item": "tent", "note": "blue"}', "{}", '{"note": null}')
    own = tasks.own([{"text": f"t{n}", "answer": answers[n % 4]} for n in range(8)], prompt="text", answer="answer")
    assert own.metric == "fields" and own.fields == ("item", "note")
    for one in answers:
        for other in answers:
            right = own.right_fields(other, one)
            assert all(right.values()) == (one == other) == own.is_right(other, one)
    assert not any(own.right_fields("no JSON", "{}").values())


WRITTEN = {
    "uuid": "550e8400-e29b-41d4-a716-446655440000", "hex": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0",
    "digits": "4111 1111 1111 1111, 2026-11-30 17:20:01", "json": '{"a":12345,"b":67890,"c":[1,2,3,4,5,6]}',
    "hebrew": "שלום, תודה על פנייתך.", "thai": "สวัสดีค่ะ คำสั่งซื้อของคุณ", "korean": "안녕하세요, 주문은 내일",
    "emoji": "👋🏽😀🎉🚲❤️‍🔥🏳️‍🌈", "english": "Your order will be sent tomorrow morning, as you asked.",
}  # fmt: skip


@pytest.mark.parametrize("text", list(WRITTEN))
@pytest.mark.parametrize("times", [1, 4])
def test_the_longest_answer_can_be_written_in_the_room_there_is(tokenizer, text, times):
    answer = WRITTEN[text] * times
    own = tasks.own([{"text": "a", "answer": answer}], prompt="text", answer="answer")
    assert len(tokenizer(answer)["input_ids"]) < own.max_new_tokens <= 512


@pytest.mark.parametrize("nothing", [None, "", "  \n", float("nan"), pd.NA, pd.NaT])
def test_an_empty_answer_is_left_out_and_that_is_said(capsys, nothing):
    own = tasks.own([{"text": "a", "label": "x"}, {"text": "b", "label": nothing}, {"text": nothing, "label": "y"}])
    assert [row["prompt"] for row in rows_of(own)] == ["a"]
    said = unfolded(capsys.readouterr().out)
    assert "1 row with no label (row 2)" in said and "1 row with no text (row 3)" in said


def turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


@pytest.mark.parametrize("nothing", ["", "\ufeff \u200b"])
def test_a_turn_of_the_assistant_that_says_nothing_is_said(capsys, nothing):
    full = [turn("user", "Hi"), turn("assistant", "Hello."), turn("user", "A tent?"), turn("assistant", "Yes.")]
    gap = [full[0], turn("assistant", nothing), *full[2:]]
    own = tasks.own([{"messages": one} for one in (full, gap, full, gap)])
    assert "In 2 conversations a turn of the assistant says nothing, and is not learned (row 2, 4)." in own.notes
    found = own.report().of("empty")
    assert [one.count for one in found] == [2] and found[0].places == ("row 2", "row 4")
    own = tasks.own([{"messages": full}, {"messages": [turn("user", "Hi"), turn("assistant", nothing)]}])
    assert "1 row with no turn of the assistant (row 2)" in unfolded(capsys.readouterr().out)


def test_roles_of_other_names_are_said_with_what_they_are_read_as():
    rows = [{"messages": [turn("customer", "Hi"), turn("bot", "Hello."), turn("user", "Bye")]}] * 3
    assert "Roles with other names are read so: 'customer' as user, 'bot' as assistant." in tasks.own(rows).notes
    rows = [{"messages": [turn("user", "Hi"), turn("assistant", "Hello.")]}] * 3
    assert "Roles" not in str(tasks.own(rows))


def test_what_is_missing_in_a_table_is_counted_once():
    """pandas writes NaN, a float, where a text is missing."""
    own = tasks.own(pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", float("nan"), "y"]}))
    found = [one.said for one in own.report().findings if one.kind in ("empty", "types")]
    assert found == ["1 row has no label: left out."]


def test_one_is_not_many():
    own = tasks.own([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}])
    assert "1 label." in own.notes
    data = datasets.Dataset.from_list([{"text": "a", "label": 0}] * 2)
    data = data.cast_column("label", datasets.ClassLabel(names=["spam"]))
    said = " ".join(str(tasks.own(data)).split())
    assert "Read as a datasets.Dataset;" in said and "the names of its 1 class)" in said


# A task like any other.


def test_an_own_task_goes_where_a_task_goes():
    own = tasks.own(PAIRS, prompt="message", answer="category")
    assert isinstance(own, tasks.Task) and find_task(own) is own and tasks.load_task(own) is own.data
    assert repr(own) == "<OwnTask data: 16 in train, 2 in validation, 2 in test>"
    assert copy.deepcopy(own) is own and pickle.loads(pickle.dumps(own)) == own
    with pytest.raises(LabError, match=r"Unknown split 'dev'. Choose one of: train, validation, test"):
        own["dev"]


def test_a_key_tells_data_and_settings_apart_and_nothing_else():
    def key(rows=PAIRS, **other):
        return tasks.own(rows, prompt="message", answer="category", **other).key

    assert key() == key(pd.DataFrame(PAIRS)) and key().startswith("data-")
    others = [key(system="s"), key(seed=1), key(split=(0.5, 0.25, 0.25)), key(PAIRS[:-1]), key(PAIRS[::-1])]
    assert len({key(), *others}) == 6


def test_a_description_makes_the_task_again(tmp_path):
    own = tasks.own(as_csv(tmp_path), prompt="message", answer="category", system="s", seed=3)
    kept = json.loads(json.dumps(own.description()))
    assert tasks.from_description(kept) == own
    as_csv(tmp_path, ";")
    assert tasks.from_description(kept) == own  # the same examples in another form
    (tmp_path / "some.csv").write_text("message,category\na,b\n")
    with pytest.raises(LabError, match=r"some\.csv has changed: 20 rows \(16 train, 2 validation, 2 test\) then, 1 "):
        tasks.from_description(kept)
    with pytest.raises(LabError, match="were in memory"):
        tasks.from_description(tasks.own(PAIRS, prompt="message", answer="category").description())


def test_what_has_changed_since_a_description_is_said():
    def own(rows=PAIRS, **other):
        return tasks.own(rows, prompt="message", answer="category", **other)

    kept = json.loads(json.dumps(own(system="s").description()))
    assert tasks.changes(kept, own(system="s")) == ""
    assert tasks.changes(kept, own(system="t", seed=2)) == "system was 's' then, 't' now; seed was 0 then, 2 now"
    assert tasks.changes(kept, own(system="s", name="mine")) == "name was 'data' then, 'mine' now"
    assert "20 rows (16 train, 2 validation, 2 test) then, 19 rows (" in tasks.changes(kept, own(PAIRS[1:], system="s"))


def test_a_description_that_names_a_function_says_that_it_is_gone(tmp_path, capsys):
    def first_letter(output, answer):
        return output[:1] == answer[:1]

    named = tasks.own(as_csv(tmp_path), prompt="message", answer="category", metric=first_letter).description()
    assert tasks.from_description(named).metric == "labels"
    said = " ".join(unfolded(capsys.readouterr().out).split())
    assert "your function 'first_letter', which is not in the record" in said
    assert tasks.from_description(named, first_letter).metric is first_letter


def test_the_persons_own_function_decides_what_is_right():
    own = tasks.own(PAIRS, prompt="message", answer="category", metric=lambda output, answer: output[0] == answer[0])
    assert own.is_right("l", "login") and not own.is_right("b", "login")


# Splits.


@pytest.mark.parametrize("rows", range(1, 41))
def test_counts_add_up_and_training_always_has_rows(rows):
    for shares in ((0.8, 0.1, 0.1), (0.5, 0.5, 0), (1, 0, 0), (0.1, 0, 0.9)):
        counts = counts_of(rows, shares)
        assert sum(counts) == rows and counts[0] >= 1 and min(counts) >= 0
        assert all(count == 0 for count, share in zip(counts[1:], shares[1:], strict=True) if not share)


def test_a_split_is_a_partition_that_the_seed_decides():
    one = cut(100, (0.8, 0.1, 0.1), 0)
    assert sorted(np.concatenate(list(one.values()))) == list(range(100))
    again, other = cut(100, (0.8, 0.1, 0.1), 0), cut(100, (0.8, 0.1, 0.1), 1)
    assert all((one[name] == again[name]).all() for name in one) and (one["test"] != other["test"]).any()
    assert {name: len(part) for name, part in one.items()} == {"train": 80, "validation": 10, "test": 10}


def test_a_group_is_in_one_split_and_shares_are_near():
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "customer": f"c{n // 5}"} for n in range(200)]
    own = tasks.own(rows, group="customer", seed=1)
    where = {}
    for split in own.splits:
        for row in own[split]:
            where.setdefault(row["group"], set()).add(split)
    assert len(where) == 40 and all(len(splits) == 1 for splits in where.values())
    assert {split: len(own[split]) for split in own.splits} == {"train": 160, "validation": 20, "test": 20}


def test_rows_without_a_group_are_no_group():
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "customer": None} for n in range(20)]
    assert len(tasks.own(rows, group="customer").splits) == 3


# Files.


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["some.txt", "some.tsv", "some.jsonl"])
def test_a_mark_at_the_beginning_tells_the_encoding(tmp_path, capsys, name, encoding):
    """Excel's "Unicode text" is UTF-16, its columns separated by tabs, in a .txt file."""
    rows = [{"prompt": 'caf\u00e9 "2"', "answer": "yes"}, {"prompt": "a\u2009b", "answer": "no"}]
    lines = ('"' + row["prompt"].replace('"', '""') + f'"\t{row["answer"]}\n' for row in rows)
    table = "prompt\tanswer\n" + "".join(lines)
    text = "\n".join(map(json.dumps, rows)) if name.endswith("jsonl") else table
    (tmp_path / name).write_bytes(text.encode(encoding))
    found = [(row["prompt"], row["answer"]) for row in rows_of(tasks.own(tmp_path / name))]
    assert found == [(row["prompt"], row["answer"]) for row in rows]
    wide = encoding != "utf-8-sig"
    assert (f", in {encoding.upper()};" in unfolded(capsys.readouterr().out)) == wide


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_characters_that_look_like_the_end_of_a_line_end_none(tmp_path, encoding):
    texts = ["one\u2028two", "one\x0btwo", "one\x85two"]
    lines = "".join(f"{text},x\r\n" for text in texts)
    (tmp_path / "a.csv").write_bytes(f"message,category\r\n{lines}".encode(encoding))
    own = tasks.own(tmp_path / "a.csv", prompt="message", answer="category")
    assert [(row["prompt"], row["line"]) for row in rows_of(own)] == [(text, n) for n, text in enumerate(texts, 2)]


def test_a_text_beside_the_splits_is_no_data(tmp_path):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text("prompt\tanswer\na\tb\n")
    (tmp_path / "README.txt").write_text("About these data.")
    own = tasks.own(tmp_path)
    assert list(own.splits) == ["train", "test"] and "not read" not in " ".join(own.notes)


def test_another_encoding_is_read_when_it_is_named(tmp_path):
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        (tmp_path / "a.csv").write_text("message,category\ncafé,bar\n", encoding=encoding)
        own = tasks.own(tmp_path / "a.csv", prompt="message", answer="category", encoding=encoding)
        assert own["train"][0]["prompt"] == "café"
    with pytest.raises(LabError, match="Unknown encoding 'utf-9'"):
        tasks.own(tmp_path / "a.csv", prompt="message", answer="category", encoding="utf-9")


def test_lines_are_those_of_the_file_though_texts_have_breaks(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'message,category\r\n"one\r\ntwo",x\r\n\r\nthree,y\r\n')
    own = tasks.own(tmp_path / "a.csv", prompt="message", answer="category")
    assert [(row["prompt"], row["line"]) for row in rows_of(own)] == [("one\r\ntwo", 2), ("three", 5)]


def test_a_long_text_is_read_and_the_limit_of_others_is_as_it_was(tmp_path):
    before = csv.field_size_limit()
    long = "a" * (before + 1)
    (tmp_path / "some.csv").write_text(f"prompt,{long}\n{long},b\n")
    [row] = rows_of(tasks.own(tmp_path / "some.csv", prompt="prompt", answer=long))
    assert (row["prompt"], row["answer"]) == (long, "b") and csv.field_size_limit() == before


def test_what_save_to_disk_left_is_read(tmp_path):
    """A Dataset is split, a DatasetDict keeps its splits."""
    from datasets import Dataset, DatasetDict

    rows = [{"prompt": f"p{n}", "answer": f"a{n}"} for n in range(20)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    DatasetDict(train=Dataset.from_list(rows[:15]), test=Dataset.from_list(rows[15:])).save_to_disk(tmp_path / "two")
    assert sum(map(len, tasks.own(tmp_path / "one").data.values())) == 20
    assert [len(tasks.own(tmp_path / "two")[split]) for split in ("train", "test")] == [15, 5]
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(LabError, match="is a saved dataset that cannot be read"):
        tasks.own(tmp_path / "one")


def test_one_column_is_not_prompt_and_answer():
    with pytest.raises(LabError, match="the column 'a' is prompt and answer"):
        tasks.own([{"a": "x", "b": "y"}], prompt=("a", "b"), answer="a")


def test_fields_are_those_of_json_answers():
    with pytest.raises(LabError, match=r"fields=\('qty',\): not every answer is a JSON object"):
        tasks.own([{"prompt": "x", "answer": "y"}], fields=("qty",))


def test_columns_on_a_command_line_need_a_file():
    values = {"prompt": "message", "answer": "category", "steps": "3"}
    with pytest.raises(LabError, match="--prompt, --answer: columns of which file"):
        tasks.from_arguments(values)
    assert tasks.from_arguments({"steps": "3"}) is None


def test_several_columns_are_named_with_or_without_blanks(tmp_path):
    (tmp_path / "a.csv").write_text("title,body,label\nHi,there,x\n")
    for prompt in ("title,body", "title, body", " title ,body,"):
        own = tasks.from_arguments({"data": str(tmp_path / "a.csv"), "prompt": prompt, "answer": "label"})
        assert rows_of(own)[0]["prompt"] == "Hi\n\nthere"
