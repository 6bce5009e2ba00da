"""Your own data through `finetune`: rows, conversations, the record, scores, service and the command line."""

import io
import json
import shutil
from functools import partial
from unittest import mock

import pytest
import tiny_runs
from datasets import Dataset
from unfolded import unfolded

from lab_utils import evaluate, report_card, tasks
from lab_utils.decoding import as_pairs, prompt_of
from lab_utils.errors import LabError
from lab_utils.evaluate.__main__ import main as evaluate_command
from lab_utils.finetune import Recipe, advise, finetune, run_folder, trainer
from lab_utils.finetune.command import main
from lab_utils.finetune.examples import Examples
from lab_utils.finetune.supervision import Encoded, encode_row, prompt_ids
from lab_utils.finetune.training_rows import training_rows
from lab_utils.models import load_tokenizer
from lab_utils.printing import WIDTH
from lab_utils.serving import AdapterBank
from lab_utils.serving.adapter_records import task_of
from lab_utils.tasks.conversations import has_text

LABELS = ("billing", "login", "delivery")
TICKETS = [{"message": f"Ticket {n} about {LABELS[n % 3]}", "category": LABELS[n % 3]} for n in range(30)]
CHATS = [
    {"messages": [
        {"role": "user", "content": f"Hello {n}"}, {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": f"What is {n} plus one?"}, {"role": "assistant", "content": str(n + 1)},
    ]}
    for n in range(20)
]  # fmt: skip
BARE = tasks.Task("", dict)
SHORT = {"quantization": "none", "steps": 2, "batch_size": 2, "rank": 2, "alpha": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A folder with the tiny model and its tokenizer, as a person has one."""
    folder = tmp_path_factory.mktemp("mine") / "tiny"
    tiny_runs.save_tiny(folder)
    load_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tickets():
    return tasks.own(TICKETS, prompt="message", answer="category", system="Sort the ticket.", name="tickets")


@pytest.fixture(scope="module")
def chats():
    return tasks.own(CHATS, messages="messages", name="chats")


def test_a_run_is_known_by_its_data(tickets, model):
    recipe = Recipe(task=tickets, model=model)
    other = tasks.own(TICKETS[1:], prompt="message", answer="category", system="Sort the ticket.", name="tickets")
    assert recipe.fingerprint() != Recipe(task=other, model=model).fingerprint()
    assert run_folder(recipe).name == f"tickets-{recipe.fingerprint()}"
    assert recipe.as_record()["task"] == tickets.key


def test_tickets_train_are_scored_resumed_and_served(tickets, model, tmp_path):
    recipe = Recipe(task=tickets, model=model, validate_every=1, **SHORT)
    run = finetune(recipe, tmp_path, progress=False)
    assert all("validation_loss" in row for row in run.history)
    record = json.loads((tmp_path / "checkpoint-000002" / "record.json").read_text())
    assert record["recipe"]["task"] == tickets.key and record["recipe"]["model"] == model
    assert record["task"]["system"] == "Sort the ticket." and record["task"]["rows"]["train"] == 24

    scores = evaluate.score(run, tickets)
    assert len(scores.rows) == len(tickets["test"]) == 3
    assert scores.measured.main.name == "label accuracy" and "label accuracy" in str(scores)
    assert evaluate.score(run).rows == scores.rows  # the task comes from the run
    assert [row["prompt"] for row in evaluate.score(run, TICKETS_ROWS).rows] == ["Ticket 1"]

    assert finetune(recipe, tmp_path, progress=False).resumed_from == 2
    found = task_of(tmp_path / "adapter")
    assert (found.system, found.max_new_tokens) == ("Sort the ticket.", tickets.max_new_tokens)
    bank = AdapterBank(run.model, run.tokenizer)
    bank.load("mine", tmp_path / "adapter")
    assert len(bank.answer(["Ticket 1"], "mine", max_new_tokens=2)) == 1


TICKETS_ROWS = [{"prompt": "Ticket 1", "answer": "login"}]


def test_other_data_of_the_same_name_are_another_recipe(tickets, model, tmp_path):
    finetune(Recipe(task=tickets, model=model, **SHORT), tmp_path, progress=False)
    other = tasks.own(TICKETS[3:], prompt="message", answer="category", system="Sort the ticket.", name="tickets")
    said = (r"another recipe \(rows in memory have changed: 30 rows \(24 train, 3 validation, 3 test\) then, "
            r"27 rows \(21 train, 3 validation, 3 test\) now\)")  # fmt: skip
    with pytest.raises(LabError, match=said):
        finetune(Recipe(task=other, model=model, **SHORT), tmp_path, progress=False)


def test_conversations_train_and_are_asked_for_their_last_turn(chats, model, tmp_path):
    run = finetune(Recipe(task=chats, model=model, **SHORT), tmp_path, progress=False)
    every = [row["supervised_tokens"] for row in run.history]
    last = finetune(Recipe(task=chats, model=model, turns="last", **SHORT), tmp_path / "last", progress=False)
    assert all(one["supervised_tokens"] < all_turns for one, all_turns in zip(last.history, every, strict=True))
    row = chats["test"][0]["messages"]
    scored = evaluate.score(run, chats).rows[0]
    assert (scored["prompt"], scored["answer"]) == (row[-2]["content"], row[-1]["content"])
    losses = evaluate.answer_losses(run.model, run.tokenizer, chats["test"], chats)
    assert len(losses.losses) == len(chats["test"])


def test_a_turn_that_says_nothing_is_said_before_training(capsys):
    """It is not a span that is learned, and rows that no task has read say so too."""
    gap = [CHATS[0]["messages"][0], {"role": "assistant", "content": "\u200b"}, *CHATS[0]["messages"][2:]]
    rows = [*CHATS[:2], {"messages": gap}]
    said = "In 1 conversation a turn of the assistant says nothing, and is not learned (the first: training example 3)."
    for dataset in (rows, Dataset.from_list(rows)):
        found = training_rows(dataset)
        assert said in unfolded(capsys.readouterr().out)
        assert len(encode_row(load_tokenizer(), BARE, found[2]).spans) == 1
    training_rows(CHATS[:2])
    training_rows(tasks.own(rows, messages="messages"))
    assert said not in unfolded(capsys.readouterr().out)


CALLS = """{% if tools %}<|im_start|>system
{% for one in tools %}{{ one.function.name }}
{% endfor %}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for one in m.tool_calls or [] %}<call>{{ one.function.name }}</call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture
def called(tmp_path):
    """A file of conversations with tools: every other one ends with the call of one."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "heat"}}]}
    asked = [{"role": "user", "content": "How warm?"}, call]
    whole = [*asked, {"role": "tool", "content": "21"}, {"role": "assistant", "content": "21 degrees."}]
    tools = [{"type": "function", "function": {"name": "heat"}}]
    rows = [{"messages": (asked, whole)[n % 2], "tools": tools} for n in range(20)]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks.own(tmp_path / "calls.jsonl", split=(0.5, 0, 0.5))


def test_tools_are_read_when_an_answer_is_asked_for_as_in_training(called):
    tokenizer = load_tokenizer()
    tokenizer.chat_template = CALLS
    for row in called["train"]:
        example = encode_row(tokenizer, called, row)
        assert called.report(tokenizer).lengths.longest >= len(example.input_ids)
        if has_text(row):
            [pair] = as_pairs([row])
            asked = prompt_ids(tokenizer, called, prompt_of(pair))
            assert asked == example.input_ids[: example.spans[-1][0]] and "heat" in tokenizer.decode(asked[:8])


def test_calls_of_tools_that_a_template_leaves_out_are_refused_by_line(called, model, tmp_path, capsys):
    line = called["train"][0]["line"]
    with pytest.raises(LabError, match=rf"training example 1 \(.*calls\.jsonl, line {line}\): .*not write calls of"):
        finetune(Recipe(task=called, model=model, **SHORT), tmp_path / "run", progress=False)
    rows = [{"messages": CHATS[0]["messages"], "tools": called["train"][0]["tools"]}] * 10
    finetune(Recipe(task=tasks.own(rows), model=model, **SHORT), tmp_path / "other", progress=False)
    assert unfolded(capsys.readouterr().out).count("does not write the tools of a conversation") == 2


def test_conversations_that_end_with_a_call_are_learned_and_not_scored(called, model, tmp_path, capsys):
    tokenizer = load_tokenizer()
    tokenizer.chat_template = CALLS
    tokenizer.save_pretrained(shutil.copytree(model, tmp_path / "tiny"))
    run = finetune(Recipe(task=called, model=str(tmp_path / "tiny"), **SHORT), tmp_path / "run", progress=False)
    texts = sum(map(has_text, called["test"]))
    assert 0 < texts < 10 and len(evaluate.score(run).rows) == texts
    said = f"In {10 - texts} of the 10 test conversations of calls the assistant says no text, it only calls tools"
    assert said in unfolded(capsys.readouterr().out)
    card = report_card.report_card(run, shots=0)
    assert len(card.scored[0].answers) == texts and said in unfolded(capsys.readouterr().out)
    calls = [row for row in called["test"] if not has_text(row)]
    with pytest.raises(LabError, match="example 1: the assistant calls tools, and says no text"):
        evaluate.score(run, calls)
    only = tasks.own(calls, metric=lambda output, answer: output == answer, split=(0.5, 0, 0.5))
    with pytest.raises(LabError, match=r"In all of the .* there is no text to compare with"):
        evaluate.score(run, only)


@pytest.mark.parametrize("turns", [None, "messages"])
def test_the_linters_lengths_are_those_that_are_trained_on(turns, tokenizer, capsys):
    """So what it says would be left out is what is left out, and the first is named."""
    rows = [{"prompt": f"Hi {'there ' * n}", "answer": f"Well, {'hello ' * n}"} for n in range(1, 30)]
    if turns:
        rows = [{"messages": [*CHATS[n]["messages"], {"role": "user", "content": "Thanks. " * n}]} for n in range(20)]
    own = tasks.own(rows, system="Be kind.")
    lengths = [len(encode_row(tokenizer, own, row).input_ids) for row in training_rows(own)]
    for limit in sorted(set(lengths))[:-1]:
        told = [len(encode_row(tokenizer, own, row).input_ids) > limit for split in own.splits for row in own[split]]
        assert own.report(tokenizer, limit).lengths.cut == sum(told)
        capsys.readouterr()
        place = partial(own.place, "train")
        Examples(lambda row: encode_row(tokenizer, own, row), training_rows(own), limit, place=place)
        said = unfolded(capsys.readouterr().out)
        first = next(n for n, length in enumerate(lengths, 1) if length > limit)
        assert f"{sum(told[: len(lengths)])} of {len(lengths)} examples are longer" in said
        assert f"The first: {own.place('train', first)}." in said


def test_answers_that_cannot_be_written_whole_are_said(model, tmp_path, capsys):
    rows = [{"prompt": f"a {n}", "answer": "one two three four" if n % 2 else "five"} for n in range(20)]
    run = finetune(Recipe(task=tasks.own(rows), model=model, **SHORT), tmp_path, progress=False)
    capsys.readouterr()
    evaluate.score(run)
    assert "max_new_tokens" not in capsys.readouterr().out
    short = tasks.own(rows, max_new_tokens=2, split=(0.4, 0, 0.6))
    long = sum(len(row["answer"]) > 4 for row in short["test"])
    evaluate.score(run, task=short)
    said = unfolded(capsys.readouterr().out)
    assert f"Note: {long} of 12 right answers have more tokens than max_new_tokens=2 lets a model write" in said
    assert "The longest takes 4: pass task=tasks.own(…, max_new_tokens=4), own= to a report card, or to the" in said
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = tasks.own(tmp_path / "some.jsonl", max_new_tokens=2, split=(0.4, 0, 0.6))
    finetune(Recipe(task=short, model=model, **SHORT), tmp_path / "short", progress=False)
    command = [str(tmp_path / "short"), "--limit", "12"]
    for more, count in (([], 1), (["--max-new-tokens", "4"], 0)):
        capsys.readouterr()
        assert evaluate_command([*command, *more]) == 0
        assert unfolded(capsys.readouterr().out).count("right answers have more tokens than max_new_tokens=2") == count


def test_what_another_task_asks_and_compares_by_is_not_ignored_in_silence(tickets, model, tmp_path, capsys):
    run = finetune(Recipe(task=tickets, model=model, **SHORT), tmp_path, progress=False)
    names = {"prompt": "message", "answer": "category"}
    other = tasks.own(TICKETS, **names, system="Sort it.", metric=lambda output, answer: True)
    capsys.readouterr()
    assert evaluate.score(run, other).measured.main.name == "label accuracy"
    assert "Theirs has another system and another metric: to go by that, pass task= too." in unfolded(
        capsys.readouterr().out
    )
    assert evaluate.score(run, task=other).measured.main.value == 1
    evaluate.score(run, tasks.own(TICKETS[:12], **names, system="Sort the ticket."))
    assert "Theirs" not in capsys.readouterr().out


def test_the_memory_of_a_step_is_estimated_once(tickets, model, tmp_path):
    with mock.patch.object(trainer, "step_memory", wraps=trainer.step_memory) as estimate:
        finetune(Recipe(task=tickets, model=model, **SHORT), tmp_path, progress=False)
    assert estimate.call_count == 1


def test_only_what_a_step_trains_on_is_turned_into_tokens_again(tickets, tokenizer):
    """Lengths are kept, tokens are not: memory does not grow with the data."""
    rows, asked = training_rows(tickets), []
    examples = Examples(lambda row: asked.append(row) or encode_row(tokenizer, tickets, row), rows, 256)
    assert len(asked) == len(rows) == len(examples)
    kept = [value for value in vars(examples).values() if isinstance(value, list)]
    assert not any(isinstance(one, Encoded) for value in kept for one in value)
    assert examples[3] == encode_row(tokenizer, tickets, rows[3]) and len(asked) == len(rows) + 1
    assert list(examples.lengths)[3] == len(examples[3].input_ids)


def test_the_command_line_takes_a_file(model, tmp_path, capsys):
    lines = ["message,category", *(f"{row['message']},{row['category']}" for row in TICKETS)]
    (tmp_path / "tickets.csv").write_text("\n".join(lines), encoding="utf-8")
    command = ["--data", str(tmp_path / "tickets.csv"), "--prompt", "message", "--answer", "category", "--model", model]
    command += [text for name, value in SHORT.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    assert "2 steps on 1 process(es)" in unfolded(capsys.readouterr().out)
    (tmp_path / "tickets.csv").write_text("\n".join(lines[:-10]), encoding="utf-8")
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "tickets.csv has changed: 30 rows (24 train, 3 validation, 3 test) then, 20 rows (16 train, " in said
    assert "Take another --output, or pass --restart to start again" in said
    assert main(["--data", "nowhere.csv", "--output", str(tmp_path / "other")]) == 2
    assert "nowhere.csv" in capsys.readouterr().err
    assert main(["--data", "a.csv", "--task", "style", "--output", "x"]) == 2
    assert "--data and --task are two tasks" in capsys.readouterr().err


def test_the_command_prints_what_its_terminal_cannot_show_as_an_escape(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("Straße,Müll\nx,y\n", encoding="utf-8")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    command = ["--data", str(tmp_path / "a.csv"), "--prompt", "Straße", "--answer", "Müll", "--rank", "0"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    assert rb"prompt from 'Stra\xdfe'" in written.getvalue()
    print("\u2713")


def test_advice_is_given_and_not_taken(tickets, tokenizer):
    recipe = Recipe(task=tickets, max_length=8, steps=500, batch_size=64, learning_rate=0.5)
    found = {one.argument: one for one in advise(recipe, tokenizer=tokenizer)}
    longest = max(len(encode_row(tokenizer, tickets, row).input_ids) for row in training_rows(tickets))
    assert found["max_length"].advised >= longest and "would be left out" in str(found["max_length"])
    assert found["batch_size"].advised == 24  # there are no more
    assert found["steps"].advised == "1 to 2" and found["learning_rate"].source
    assert all(len(line) <= WIDTH for one in found.values() for line in str(one).splitlines())
    assert recipe.max_length == 8
    good = Recipe(task=tickets, batch_size=4, steps=12, learning_rate=2e-3)
    assert all(one.advised is None for one in advise(good, tokenizer=tokenizer))


def test_a_task_of_your_own_is_not_trained_as_a_task_of_the_pages(tickets, model, tmp_path):
    """Else "Booking to JSON." would come before each ticket, and the scores would be of bookings."""
    with pytest.raises(LabError, match=r"'tickets', and recipe.task is 'bookings', .* Pass it as Recipe\(task=…\)"):
        finetune(Recipe(model=model, **SHORT), tmp_path, dataset=tickets, progress=False)


def test_a_file_is_no_task_and_the_way_to_one_is_said():
    with pytest.raises(LabError, match=r"task='tickets.csv' is a file: give task=tasks.own\('tickets.csv', …\)"):
        Recipe(task="tickets.csv")
